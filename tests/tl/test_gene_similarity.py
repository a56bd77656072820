import anndata
import numpy as np
import pandas as pd
import pytest
import torch

import scgpt
from scgpt.model import SCGPT


def similarity(adata, model, **kwargs):
    return scgpt.tl.gene_similarity(adata, model, **({"genes": "all", "progress_bar": False} | kwargs))


def cosines(model, names):
    points = model.get_gene_embeddings(names).to_numpy()
    points = points / np.linalg.norm(points, axis=1, keepdims=True)
    return points @ points.T


@pytest.fixture
def other_model(grouped_cells, grouped_model) -> SCGPT:
    """The same model, but that A0 lies with B0 to B7."""
    own = grouped_cells.copy()
    SCGPT.setup_anndata(own)
    other = SCGPT(own, d_model=32, n_layers=1, n_heads=2)
    other.module.load_state_dict(grouped_model.module.state_dict())
    other.is_trained_ = True
    with torch.no_grad():
        weight = other.module.network.genes.embedding.weight
        a, b = (int(i) for i in other.vocab.ids(["A0", "B0"]))
        weight[a] = weight[b] + 0.01 * torch.arange(32) / 32
    return other


def test_ties_each_gene_to_its_nearest(grouped_cells, grouped_model, monkeypatch):
    monkeypatch.setattr("scgpt.tl._gene_similarity._GENES_AT_ONCE", 7)
    similarity(grouped_cells, grouped_model, n_neighbors=4)
    network = grouped_cells.varp["scgpt_similarity"].toarray()
    own = cosines(grouped_model, list(grouped_cells.var_names))
    np.fill_diagonal(own, 0)
    nearest = np.argsort(-own, axis=1)[:, :4]
    chosen = np.zeros(own.shape, bool)
    np.put_along_axis(chosen, nearest, True, axis=1)
    expected = np.where((chosen | chosen.T) & (own > 0), own, 0)
    np.testing.assert_allclose(network, expected, atol=1e-6)
    assert network.dtype == np.float32


def test_ties_all_above_a_threshold(grouped_cells, grouped_model):
    similarity(grouped_cells, grouped_model, threshold=0.9)
    network = grouped_cells.varp["scgpt_similarity"].toarray() > 0
    expected = np.zeros((60, 60), bool)
    for start in (0, 8, 16):
        expected[start : start + 8, start : start + 8] = True
    np.fill_diagonal(expected, False)
    assert np.array_equal(network, expected)


def test_tells_ties_gained_and_lost(grouped_cells, grouped_model, other_model, tmp_path):
    similarity(grouped_cells, other_model, threshold=0.9, compare_to=grouped_model)
    changes = grouped_cells.uns["scgpt_similarity"]["changes"]
    pairs = {change: own[["gene_1", "gene_2"]].apply(frozenset, axis=1) for change, own in changes.groupby("change")}
    assert set(pairs["lost"]) == {frozenset(("A0", f"A{i}")) for i in range(1, 8)}
    assert set(pairs["gained"]) == {frozenset(("A0", f"B{i}")) for i in range(8)}
    names = list(grouped_cells.var_names)
    now, before = cosines(other_model, names), cosines(grouped_model, names)
    for _, row in changes.iterrows():
        i, j = names.index(row["gene_1"]), names.index(row["gene_2"])
        assert row["similarity"] == pytest.approx(now[i, j], abs=1e-6)
        assert row["similarity_before"] == pytest.approx(before[i, j], abs=1e-6)
    assert (changes["similarity"] - changes["similarity_before"]).abs().is_monotonic_decreasing
    grouped_cells.write_h5ad(tmp_path / "cells.h5ad")
    again = anndata.read_h5ad(tmp_path / "cells.h5ad")
    pd.testing.assert_frame_equal(again.uns["scgpt_similarity"]["changes"].astype(object), changes.astype(object))


def test_the_same_model_gains_and_loses_nothing(grouped_cells, grouped_model):
    similarity(grouped_cells, grouped_model, compare_to=grouped_model)
    assert len(grouped_cells.uns["scgpt_similarity"]["changes"]) == 0


def test_some_genes_in_a_copy(grouped_cells, grouped_model):
    names = ["B3", "A1", "A2", "C7"]
    copy = similarity(grouped_cells, grouped_model, genes=names, n_neighbors=1, copy=True)
    assert "scgpt_similarity" not in grouped_cells.varp
    rows, columns = copy.varp["scgpt_similarity"].nonzero()
    assert set(copy.var_names[rows]) | set(copy.var_names[columns]) <= set(names)
    assert copy.varp["scgpt_similarity"].shape == (60, 60)
    assert copy.uns["scgpt"]["scgpt_similarity"]["n_neighbors"] == 1


def test_bad_input(grouped_cells, grouped_model, golden):
    with pytest.raises(ValueError, match=r"threshold is a cosine in \(0, 1\], not 1\.5"):
        similarity(grouped_cells, grouped_model, threshold=1.5)
    with pytest.raises(ValueError, match="n_neighbors must be a whole number of at least 1"):
        similarity(grouped_cells, grouped_model, n_neighbors=0)
    with pytest.raises(ValueError, match="No two of the 2 genes have a cosine of 0.999"):
        similarity(grouped_cells, grouped_model, genes=["A0", "B0"], threshold=0.999)
    grouped_cells.var_names = [*grouped_cells.var_names[:-1], "G0001"]
    with pytest.raises(ValueError, match="compare_to= knows 0 of the 59 genes"):
        similarity(grouped_cells, grouped_model, compare_to=golden / "checkpoint")


def test_mini_holds_genes_alike_that_belong_together():
    model = SCGPT.from_pretrained("mini")
    genes = list(model.vocab.genes)
    own = model.get_gene_embeddings(genes).to_numpy()
    own = own / np.linalg.norm(own, axis=1, keepdims=True)
    place = {gene: i for i, gene in enumerate(genes)}

    def rank(gene, *partners):
        similarity = own @ own[place[gene]]
        similarity[place[gene]] = -1
        return 1 + min(int((similarity > similarity[place[partner]]).sum()) for partner in partners)

    # Among 26,404 genes.
    assert rank("CD79A", "CD79B") <= 10
    assert rank("CD3D", "CD3E", "CD3G") <= 10
    assert rank("CD8A", "CD8B") <= 10
    first = [place[f"HLA-{letter}"] for letter in "ABC"]
    second = [place[f"HLA-{name}"] for name in ("DRA", "DRB1", "DPA1", "DPB1", "DQA1", "DQB1", "DMA", "DMB")]
    between = own[first] @ own[second].T
    for same in (first, second):
        within = (own[same] @ own[same].T)[np.triu_indices(len(same), 1)]
        assert np.median(within) > np.quantile(between, 0.95)
