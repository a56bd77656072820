"""Cells of as many genes as there are, of one, and of none."""

import tracemalloc

import anndata
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import torch

from scgpt.data import bin_values
from scgpt.model import SCGPT

N_GENES = 60_000


@pytest.fixture(scope="module")
def cells() -> anndata.AnnData:
    """A cell that expresses every gene, one that expresses one, and one that expresses none."""
    counts = sp.lil_matrix((3, N_GENES), dtype=np.float32)
    counts[0] = np.random.default_rng(0).integers(1, 50, N_GENES)
    counts[1, 7] = 3
    return anndata.AnnData(counts.tocsr(), var=pd.DataFrame(index=[f"G{i}" for i in range(N_GENES)]))


@pytest.fixture(scope="module")
def model(cells) -> SCGPT:
    data = cells.copy()
    SCGPT.setup_anndata(data)
    model = SCGPT(data, d_model=8, n_layers=2, n_heads=2)
    model.is_trained_ = True
    return model


def embed(model, cells, **kwargs):
    return model.get_latent_representation(cells, progress_bar=False, precision="float32", **kwargs)


def test_they_embed_beside_one_another_and_in_any_order_of_genes(model, cells):
    whole = embed(model, cells)
    np.testing.assert_allclose(np.linalg.norm(whole, axis=1), 1, atol=1e-5)
    order = np.random.default_rng(1).permutation(N_GENES)
    np.testing.assert_allclose(embed(model, cells[:, order].copy()), whole, atol=1e-5)
    for i in range(3):
        np.testing.assert_allclose(embed(model, cells[[i]].copy()), whole[[i]], atol=1e-5)


def test_a_long_cell_is_cut_to_an_even_choice_of_its_genes(model, cells):
    source = model.cells_to_embed(cells, model.match(cells))
    tracemalloc.start()
    batch = source.tokenize(np.arange(3), model.tokenizer)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert batch.lengths.tolist() == [1200, 2, 1]
    assert most < 100 * N_GENES  # bytes: a few arrays of the genes, and nothing of cells by genes
    kept = batch.gene_ids[1:1200].numpy()
    assert np.abs(np.histogram(kept, 10, (0, N_GENES))[0] / 119.9 - 1).max() < 0.3  # of all, in ten parts alike
    of_whole = bin_values(cells.X[0].toarray()[0])  # the vocabulary has the order of the data
    assert np.array_equal(batch.values[1:1200].numpy(), of_whole[kept])


def test_they_can_be_trained_on(model, cells):
    data = cells.copy()
    SCGPT.setup_anndata(data)
    other = SCGPT(data, d_model=8, n_layers=1, n_heads=2)
    other.train(1, batch_size=1, train_size=1.0, enable_progress_bar=False)  # each alone: nothing of two is to predict
    assert all(torch.isfinite(x).all() for x in other.module.state_dict().values())
    assert np.isfinite(other.history["train_loss"].to_numpy(float)).all()


@pytest.mark.slow
def test_every_gene_can_be_read(model, cells):
    """All 60,001 tokens at once: squared they would be 14 GB for each head."""
    whole = embed(model, cells, max_length=N_GENES + 1)
    np.testing.assert_allclose(np.linalg.norm(whole, axis=1), 1, atol=1e-5)
    assert np.abs(whole[0] - embed(model, cells)[0]).max() > 1e-4  # they say more than a choice of them
    np.testing.assert_allclose(whole[1:], embed(model, cells)[1:], atol=1e-5)
