import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from scipy.stats import spearmanr

from scgpt.metrics import baselines, network_scores
from scgpt.metrics.baselines import _network


def log_normalized(counts: ad.AnnData) -> np.ndarray:
    x = counts.X.toarray().astype(np.float64)
    return np.log1p(x / x.sum(1, keepdims=True) * 1e4)


@pytest.fixture
def counts(counts) -> ad.AnnData:
    """Genes that vary, as others have no correlation elsewhere."""
    return counts[:, counts.X.toarray().max(0) > 0].copy()


FORMS = {
    "csr": lambda x: x,
    "csr_array": sp.csr_array,
    "csc": sp.csc_matrix,
    "dense": lambda x: x.toarray(),
}


# By correlation


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("absolute", [True, False])
def test_pearson_is_that_of_numpy(form, absolute, counts):
    expected = np.corrcoef(log_normalized(counts), rowvar=False)
    counts.X = FORMS[form](counts.X)
    table = baselines.coexpression(counts, absolute=absolute)
    np.testing.assert_allclose(table, np.abs(expected) if absolute else expected, atol=1e-6)
    assert list(table.index) == list(table.columns) == list(counts.var_names)
    assert (table.dtypes == np.float32).all()
    assert (table.index.name, table.columns.name) == ("regulator", "target")


@pytest.mark.parametrize("form", FORMS)
def test_spearman_is_that_of_scipy(form, counts):
    logs = log_normalized(counts).astype(np.float32)  # equal in double precision need not be equal in single
    expected = spearmanr(logs).statistic
    counts.X = FORMS[form](sp.csr_matrix(logs))
    table = baselines.coexpression(counts, method="spearman", absolute=False, normalize=False)
    np.testing.assert_allclose(table, expected, atol=1e-6)


def test_values_below_zero_and_columns_without_zeros_have_their_ranks(rng):
    x = rng.normal(size=(50, 6)).round(1) * (rng.random((50, 6)) < 0.5)
    x[:, 0] = rng.normal(size=50)
    x[:, 1] = rng.normal(size=50).round(1) - 9
    table = baselines.coexpression(ad.AnnData(sp.csr_matrix(x)), normalize=False, method="spearman", absolute=False)
    np.testing.assert_allclose(table, spearmanr(x).statistic, atol=1e-6)


def test_some_regulators_and_genes(counts, monkeypatch):
    whole = baselines.coexpression(counts)
    monkeypatch.setattr(_network, "_BLOCK", 3)
    regulators, genes = [f"GENE{i}" for i in (9, 3, 50, 3, 7)], ["GENE3", "GENE1"]
    part = baselines.coexpression(counts, regulators=iter(regulators), genes=genes)
    assert list(part.index) == ["GENE9", "GENE3", "GENE50", "GENE7"]
    np.testing.assert_allclose(part, whole.loc[part.index, genes], atol=1e-6)
    assert part.loc["GENE3", "GENE3"] == pytest.approx(1)


@pytest.mark.parametrize("method", ["pearson", "spearman"])
@pytest.mark.parametrize("form", [np.asarray, sp.csr_matrix])
def test_genes_that_do_not_vary_have_no_correlation(method, form, rng):
    x = rng.random((30, 4))
    x[:, 1], x[:, 2] = 0, 0.1
    table = baselines.coexpression(ad.AnnData(form(x)), normalize=False, method=method)
    assert (table.iloc[1:3] == 0).all(axis=None)
    assert (table.iloc[:, 1:3] == 0).all(axis=None)
    assert table.iloc[0, 3] > 0


def test_a_layer_is_read_and_nothing_is_written(counts):
    expected = baselines.coexpression(counts)
    counts.layers["log"] = log_normalized(counts).astype(np.float32)
    counts.X = None
    before = counts.copy()
    table = baselines.coexpression(counts, layer="log", normalize=False)
    np.testing.assert_allclose(table, expected, atol=1e-5)
    np.testing.assert_array_equal(counts.layers["log"], before.layers["log"])


def test_counts_are_left_as_they_were(counts):
    before = counts.X.copy()
    for method in ("pearson", "spearman"):
        baselines.coexpression(counts, method=method)
    assert (counts.X != before).nnz == 0


def test_it_finds_a_planted_link(rng):
    regulators, genes = [f"TF{i}" for i in range(4)], [f"G{i}" for i in range(20)]
    x = rng.normal(size=(200, 24))
    x[:, 4:9] -= 0.8 * x[:, [1]]
    adata = ad.AnnData(x, var=pd.DataFrame(index=[*regulators, *genes]))
    known = [("TF1", f"G{i}") for i in range(5)] + [("TF0", "G19")]
    networks = {
        "absolute": baselines.coexpression(adata, regulators=regulators, normalize=False),
        "signed": baselines.coexpression(adata, regulators=regulators, normalize=False, absolute=False),
    }
    table = network_scores(networks, known, n_bootstrap=0)
    assert table.loc["absolute", "early_precision"] >= 5 / 6
    assert table.loc["signed", "early_precision"] < 0.2


# By chance


def test_random_scores_are_uniform_and_of_the_seed():
    genes = [f"G{i}" for i in range(200)]
    table = baselines.random_network(genes)
    assert table.shape == (200, 200)
    values = np.sort(table.to_numpy().ravel())
    np.testing.assert_allclose(values, np.linspace(0, 1, 40_000), atol=0.02)
    pd.testing.assert_frame_equal(table, baselines.random_network(iter(genes), seed=0))
    assert not np.allclose(table, baselines.random_network(genes, seed=1))
    part = baselines.random_network(genes, regulators=["TF", "G1"])
    assert list(part.index) == ["TF", "G1"]
    assert list(part.columns) == genes
    assert (part.index.name, part.columns.name) == ("regulator", "target")


@pytest.mark.parametrize(
    ("genes", "regulators", "message"),
    [
        ([], None, "genes holds no name"),
        (["A"], [], "regulators holds no name"),
        (["A", "B", "A"], None, "genes has names twice: A. Leave one of each"),
        (["A"], ["B", "B"], "regulators has names twice: B. Leave one of each"),
    ],
)
def test_names_for_random_scores_have_to_be_there_once(genes, regulators, message):
    with pytest.raises(ValueError, match=message):
        baselines.random_network(genes, regulators=regulators)


# What is wrong


INFER = {
    "coexpression": baselines.coexpression,
    "grnboost2": lambda adata, regulators=("GENE1",), **kwargs: baselines.grnboost2(adata, regulators, **kwargs),
}


@pytest.mark.parametrize("name", INFER)
def test_wrong_input_is_an_error_that_says_what(name, counts):
    infer = INFER[name]
    with pytest.raises(
        KeyError,
        match=r"2 of 3 regulators are not in \.var_names: X, Y\. Leave them out, as by `adata\.var_names\.inte",
    ):
        infer(counts, regulators=["X", "GENE1", "Y"])
    with pytest.raises(KeyError, match=r"1 of 1 genes are not in \.var_names: X\. Leave"):
        infer(counts, genes=["X"])
    with pytest.raises(ValueError, match="genes holds no name"):
        infer(counts, genes=[])
    with pytest.raises(TypeError, match="genes has to be several names, and is 'GENE1': put it into a list"):
        infer(counts, genes="GENE1")
    with pytest.raises(KeyError, match="There is no layer 'x'"):
        infer(counts, layer="x")
    with pytest.raises(ValueError, match="Two or more cells are needed to see genes vary, and there are 1"):
        infer(counts[:1])
    logs = ad.AnnData(log_normalized(counts), var=counts.var)
    with pytest.raises(ValueError, match="`.X` does not hold counts: .* normalize=False"):
        infer(logs)
    logs.X[3, 4] = np.nan
    with pytest.raises(ValueError, match="There are NaN or infinite values in the cells"):
        infer(logs, normalize=False)
    counts.var_names = ["GENE1", "GENE1", *counts.var_names[2:]]
    with pytest.raises(ValueError, match="are not unique: GENE1 stand there twice"):
        infer(counts, regulators=None) if name == "coexpression" else infer(counts, ["GENE2"])


def test_wrong_settings_are_an_error(counts):
    with pytest.raises(ValueError, match="method has to be 'pearson' or 'spearman', and is 'kendall'"):
        baselines.coexpression(counts, method="kendall")
    with pytest.raises(ValueError, match="max_trees has to be 1 or more, and is 0"):
        baselines.grnboost2(counts, ["GENE1"], max_trees=0)
