import anndata
import numpy as np
import pytest
import scipy.sparse as sp
import torch

from scgpt.model import SCGPT
from scgpt.nn import rank_normalised

N_GENES = 24


@pytest.fixture(scope="module")
def cells() -> anndata.AnnData:
    counts = np.random.default_rng(5).poisson(1.0, (30, N_GENES))
    adata = anndata.AnnData(sp.csr_matrix(counts.astype(np.float32)))
    adata.var_names = [f"GENE{i}" for i in range(N_GENES)]
    adata.obs["group"] = np.where(np.arange(30) < 20, "a", "b")
    return adata


@pytest.fixture(scope="module")
def model(cells) -> SCGPT:
    own = cells.copy()
    SCGPT.setup_anndata(own)
    model = SCGPT(own, d_model=16, n_layers=2, n_heads=2)
    model.is_trained_ = True
    with torch.no_grad():  # at their start, weights make attention even
        for layer in model.module.network.layers:
            layer.attention.qkv.weight.mul_(4)
    return model


def attention(model, genes, cells, **kwargs):
    return model.get_gene_attention(genes, cells, progress_bar=False, **kwargs)


def by_hand(model, cells, genes, layer, heads, include_zeros):
    """Cell by cell: the tokens, the scores, the ranks, and sums over the genes that the cell has."""
    names = list(cells.var_names)
    total, n = np.zeros((len(genes), len(genes))), np.zeros((len(genes), len(genes)))
    tokenizer = model.tokenizer
    for row in cells.X.toarray():
        batch = tokenizer(sp.csr_matrix(row[None]), model.match(cells).token_ids)
        value_of = dict(zip(batch.gene_ids.tolist(), batch.values.tolist(), strict=True))
        ids = {gene: int(model.vocab.ids([gene])[0]) for gene in genes}
        own = [gene for gene in names if gene in ids and (include_zeros or ids[gene] in value_of)]
        tokens = [int(batch.gene_ids[0]), *(ids[gene] for gene in own)]
        values = [value_of[tokens[0]], *(value_of.get(ids[gene], 0.0) for gene in own)]
        one = type(batch)(torch.tensor(tokens), torch.tensor(values), torch.tensor([0, len(tokens)]), torch.tensor([0]))
        with torch.inference_mode():
            (scores,) = model.module.network.attention_scores(one, layer)
        ranks = torch.stack([rank_normalised(scores[head, 1:, 1:]) for head in heads]).mean(0).numpy()
        place = np.ix_([genes.index(gene) for gene in own], [genes.index(gene) for gene in own])
        total[place] += ranks
        n[place] += 1
    return np.divide(total, n, out=np.full(total.shape, np.nan), where=n > 0)


@pytest.mark.parametrize("include_zeros", [False, True])
@pytest.mark.parametrize(("layer", "heads", "averaged"), [(-1, None, [0, 1]), (0, [1], [1]), (1, 0, [0])])
def test_is_the_mean_of_ranks_over_cells_and_heads(model, cells, include_zeros, layer, heads, averaged):
    genes = [f"GENE{i}" for i in (3, 1, 9, 20, 12)]
    found = attention(model, genes, cells, attention_layer=layer, heads=heads, include_zeros=include_zeros)
    assert (found.genes, found.groups) == (tuple(genes), ("all",))
    assert found.n_cells.tolist() == [30]
    expected = by_hand(model, cells, genes, layer, averaged, include_zeros)
    np.testing.assert_allclose(found.influence[0], expected, atol=1e-5)


def test_group_means_are_the_same_in_portions_of_any_size(model, cells, monkeypatch):
    genes = list(cells.var_names)
    whole = attention(model, genes, cells, groups=cells.obs["group"])
    for at_once, tokens in ((1, 1), (64, 8192)):
        monkeypatch.setattr("scgpt.model._attention._GENES_AT_ONCE", at_once * N_GENES)
        monkeypatch.setattr("scgpt.model._passes.tokens_per_pass", lambda device, tokens=tokens: tokens)
        again = attention(model, genes, cells, groups=cells.obs["group"])
        np.testing.assert_allclose(again.influence, whole.influence, atol=2e-3, rtol=0)  # a near tie moves one rank
        assert np.array_equal(again.n_cells, [20, 10])
    apart = [attention(model, genes, cells[cells.obs["group"] == group]).influence[0] for group in "ab"]
    np.testing.assert_allclose(whole.influence, apart, atol=2e-3, rtol=0)


def test_cells_without_a_group_have_no_say(model, cells):
    groups = cells.obs["group"].where(cells.obs["group"] == "a")
    found = attention(model, ["GENE1", "GENE2"], cells, groups=groups)
    assert found.groups == ("a",)
    alone = attention(model, ["GENE1", "GENE2"], cells[cells.obs["group"] == "a"])
    np.testing.assert_allclose(found.influence, alone.influence, atol=1e-6)


def test_counts_the_cells_that_have_both(model, cells):
    genes = ["GENE0", "GENE1", "GENE2"]
    present = (cells[:, genes].X.toarray() > 0).astype(int)
    found = attention(model, genes, cells, include_zeros=False)
    assert np.array_equal(found.n_both[0], present.T @ present)
    assert np.array_equal(np.isfinite(found.influence), found.n_both > 0)


def test_the_order_of_genes_and_cells_has_no_say(model, cells):
    genes = [f"GENE{i}" for i in range(8)]
    found = attention(model, genes, cells).influence[0]
    other = attention(model, genes[::-1], cells[::-1].copy()).influence[0]
    np.testing.assert_allclose(other[::-1, ::-1], found, atol=2e-3, rtol=0)


def test_bad_input(model, cells):
    with pytest.raises(KeyError, match="1 genes are not in the vocabulary"):
        attention(model, ["GENE1", "NONE"], cells)
    with pytest.raises(ValueError, match=r"named twice: \['GENE1'\]"):
        attention(model, ["GENE1", "GENE1"], cells)
    with pytest.raises(ValueError, match=r"1 genes were not measured, such as \['GENE3'\]"):
        attention(model, ["GENE1", "GENE3"], cells[:, :3].copy())
    with pytest.raises(IndexError, match=r"heads=\[2\]: this network has 2, from 0 to 1"):
        attention(model, ["GENE1", "GENE2"], cells, heads=[2])
    with pytest.raises(IndexError, match="no layer 5"):
        attention(model, ["GENE1", "GENE2"], cells, attention_layer=5)
    with pytest.raises(ValueError, match="groups has 3 entries for 30 cells"):
        attention(model, ["GENE1", "GENE2"], cells, groups=["a", "b", "c"])
    with pytest.raises(ValueError, match="No cell has a group"):
        attention(model, ["GENE1", "GENE2"], cells, groups=[None] * 30)


def test_an_untrained_model_warns(cells):
    own = cells.copy()
    SCGPT.setup_anndata(own)
    with pytest.warns(UserWarning, match="its attention means nothing yet"):
        attention(SCGPT(own, d_model=16, n_layers=1, n_heads=2), ["GENE1", "GENE2"], cells)
