"""A cell's embedding depends on the cell alone."""

import unittest

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from ._strategies import STRANGERS, VOCAB, expressions, to_adata

# How far embeddings of length 1 may be apart that are the same but for the order of sums in float32.
TOLERANCE = 2e-6


def embed(model, adata, **kwargs):
    return model.get_latent_representation(adata, progress_bar=False, precision="float32", **kwargs)


@given(expressions())
def test_any_matrix_gives_finite_unit_vectors_one_for_each_cell(model, cells):
    embedding = embed(model, cells.adata())
    assert embedding.shape == (len(cells.dense), 16)
    assert embedding.dtype == np.float32
    assert np.isfinite(embedding).all()
    np.testing.assert_allclose(np.linalg.norm(embedding.astype(float), axis=1), 1, atol=TOLERANCE)


@given(expressions())
def test_form_and_type_of_the_matrix_change_nothing(model, cells):
    assert np.array_equal(embed(model, cells.adata()), embed(model, cells.adata(cells.dense.astype(np.float64))))


@given(expressions())
def test_cells_that_express_no_known_gene_are_all_alike_and_counted(model, cells):
    empty = ~(cells.dense[:, cells.known] > 0).any(1)
    assume(empty.any())
    with unittest.TestCase().assertLogs("scgpt.model._embedding", "WARNING") as logs:
        embedding = embed(model, cells.adata())
    assert f"{empty.sum()} cells express no gene of the vocabulary" in logs.output[0]
    nothing = embed(model, to_adata(np.zeros((1, 1), np.float32), ["G0"]))
    assert np.abs(embedding[empty] - nothing).max() <= TOLERANCE


@given(expressions(), st.data())
def test_neither_order_of_cells_nor_of_genes_counts(model, cells, data):
    rows = np.array(data.draw(st.permutations(range(len(cells.dense)))))
    columns = data.draw(st.permutations(range(len(cells.genes))))
    max_length = data.draw(st.integers(2, 30))
    other = to_adata(cells.dense[rows][:, columns], [cells.genes[i] for i in columns])
    a, b = (embed(model, adata, max_length=max_length) for adata in (cells.adata(), other))
    assert np.abs(a[rows] - b).max() <= TOLERANCE


@given(expressions(), st.integers(1, 6), st.integers(1, 200))
def test_neither_portions_nor_passes_count(model, cells, cells_at_once, tokens_per_pass):
    whole = embed(model, cells.adata())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("scgpt.model._embedding._CELLS_AT_ONCE", cells_at_once)
        patch.setattr("scgpt.model._passes.tokens_per_pass", lambda network: tokens_per_pass)
        assert np.abs(embed(model, cells.adata()) - whole).max() <= TOLERANCE


@given(expressions(), st.data())
def test_two_data_sets_embed_as_one(model, cells, data):
    cut = data.draw(st.integers(0, len(cells.dense)))
    adata = cells.adata(cells.dense)  # scipy cuts no sparse matrix of half precision
    parts = [adata[:cut], adata[cut:]]
    together = np.concatenate([embed(model, part) for part in parts if part.n_obs])
    assert np.abs(together - embed(model, cells.adata())).max() <= TOLERANCE


@given(expressions(), st.data())
def test_rows_are_embedded_as_they_are_asked_for(model, cells, data):
    rows = data.draw(st.lists(st.integers(-len(cells.dense), len(cells.dense) - 1), max_size=10))
    some = embed(model, cells.adata(), indices=rows)
    assert some.shape == (len(rows), 16)
    assert np.abs(some - embed(model, cells.adata())[rows]).max(initial=0) <= TOLERANCE


@given(expressions(), st.data())
def test_genes_that_the_model_does_not_know_and_genes_of_zeros_change_nothing(model, cells, data):
    absent = sorted({*VOCAB.genes, *STRANGERS} - set(cells.genes))
    more = data.draw(st.lists(st.sampled_from(absent), unique=True)) if absent else []
    values = np.where([name in VOCAB for name in more], 0, 7)
    wider = np.hstack([cells.dense, np.tile(values, (len(cells.dense), 1))]).astype(np.float32)
    assert np.array_equal(embed(model, to_adata(wider, cells.genes + more)), embed(model, cells.adata()))


@given(expressions(), st.data())
def test_a_cell_may_be_scaled(model, cells, data):
    exponents = data.draw(st.lists(st.integers(-20, 20), min_size=len(cells.dense), max_size=len(cells.dense)))
    scaled = cells.dense * np.exp2(exponents)[:, None]
    assert np.array_equal(embed(model, cells.adata(scaled)), embed(model, cells.adata()))
