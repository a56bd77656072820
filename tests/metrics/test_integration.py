import anndata as ad
import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import silhouette_score

from scgpt.metrics import integration_scores
from scgpt.metrics._integration import _ScoredCells

COLUMNS = ["NMI", "ARI", "ASW_label", "AvgBIO", "ASW_batch", "graph_connectivity", "AvgBATCH", "Overall"]


def scores(adata, batch_key="batch", **kwargs) -> pd.Series:
    return integration_scores(adata, batch_key, "cell_type", "X_emb", **kwargs).loc["X_emb"]


# Numbers


def test_types_apart_and_batches_mixed_score_high(make_cells):
    adata = make_cells()
    s = scores(adata)
    assert s["NMI"] == s["ARI"] == s["graph_connectivity"] == 1
    assert s["ASW_label"] == pytest.approx((silhouette_score(adata.obsm["X_emb"], adata.obs["cell_type"]) + 1) / 2)
    assert s["ASW_label"] > 0.98
    assert s["ASW_batch"] > 0.9


def test_labels_that_have_nothing_to_do_with_the_embedding_score_low(make_cells, rng):
    adata = make_cells()
    adata.obs["cell_type"] = rng.permutation(adata.obs["cell_type"])
    s = scores(adata)
    assert s["NMI"] < 0.15
    assert abs(s["ARI"]) < 0.05
    assert s["ASW_label"] == pytest.approx(0.5, abs=0.05)


def test_batches_apart_score_low(make_cells):
    s = scores(make_cells(batch_shift=5.0))
    assert s["ASW_batch"] < 0.1
    assert s["graph_connectivity"] == pytest.approx(25 / 40)


def test_averages_are_those_of_the_paper(make_cells):
    s = scores(make_cells(batch_shift=1.0, spread=3.0))
    assert list(s.index) == COLUMNS
    assert s["AvgBIO"] == pytest.approx((s["NMI"] + s["ARI"] + s["ASW_label"]) / 3)
    assert s["AvgBATCH"] == pytest.approx((s["ASW_batch"] + s["graph_connectivity"]) / 2)
    assert s["Overall"] == pytest.approx(0.6 * s["AvgBIO"] + 0.4 * s["AvgBATCH"])
    assert s.between(0, 1).all()


def test_the_resolution_with_the_highest_nmi_is_taken(make_cells):
    adata = make_cells(spread=4.0)
    each = pd.DataFrame([scores(adata, resolutions=[r]) for r in (0.2, 0.8, 2.0)])
    assert each["NMI"].nunique() == 3
    best = each.iloc[int(each["NMI"].to_numpy().argmax())]
    pd.testing.assert_series_equal(scores(adata, resolutions=[0.2, 0.8, 2.0]), best, check_names=False)


def test_each_embedding_has_a_row(make_cells, rng):
    adata = make_cells()
    adata.obsm["noise"] = rng.normal(size=(120, 2))
    table = integration_scores(adata, "batch", "cell_type", ["noise", "X_emb"])
    assert list(table.index) == ["noise", "X_emb"]
    assert table.index.name == "embedding"
    pd.testing.assert_series_equal(table.loc["X_emb"], scores(adata))
    assert table["Overall"].is_monotonic_increasing


def test_the_original_scib_gives_the_same(golden):
    """Reference numbers of scib 1.1.7; see the README beside them."""
    with np.load(golden / "integration_scib.npz") as file:
        reference = dict(file)
    names = ["good", "poor", "noise"]
    adata = ad.AnnData(
        obs=pd.DataFrame({"cell_type": reference["labels"], "batch": reference["batches"]}).set_axis(
            [f"c{i}" for i in range(len(reference["labels"]))]
        ),
        obsm={name: reference[name] for name in names},
    )
    expected = pd.DataFrame(reference["scores"], names, reference["metrics"])
    table = integration_scores(adata, "batch", "cell_type", names)
    for metric in ("ASW_label", "ASW_batch", "graph_connectivity"):
        np.testing.assert_allclose(table[metric], expected[metric], atol=1e-6)
    # Where clusters are weak, another version of igraph may find others: only those that are plain are compared.
    np.testing.assert_allclose(table.loc["good", ["NMI", "ARI"]], expected.loc["good", ["NMI", "ARI"]], atol=1e-6)
    # All of them, at scib's own clusters.
    labels = pd.factorize(reference["labels"])[0]
    for name, clusters in zip(names, reference["clusters"].astype(int), strict=True):
        cells = _ScoredCells(labels, clusters, np.zeros_like(labels), *np.zeros((2, len(labels))))
        ours = cells.scores(np.ones(len(labels)))
        assert [ours["NMI"], ours["ARI"]] == pytest.approx(expected.loc[name, ["NMI", "ARI"]].tolist(), abs=1e-10)


# What must not matter


@pytest.mark.parametrize(
    "change",
    [
        lambda x, q: x @ q,
        lambda x, q: 1000 * x,
        lambda x, q: x + 5,
        lambda x, q: x[:, ::-1],
        lambda x, q: np.hstack([x, np.zeros((len(x), 3))]),
    ],
    ids=["rotation", "scale", "shift", "order of dimensions", "empty dimensions"],
)
def test_distances_alone_matter(change, make_cells, rng):
    adata = make_cells(batch_shift=2.0, spread=1.0)
    before = scores(adata)
    rotation = np.linalg.qr(rng.normal(size=(4, 4)))[0]
    adata.obsm["X_emb"] = change(adata.obsm["X_emb"], rotation)
    np.testing.assert_allclose(scores(adata), before, atol=1e-6)


def test_the_order_of_cells_does_not_matter(make_cells, rng):
    adata = make_cells(batch_shift=2.0, spread=1.0)
    np.testing.assert_allclose(scores(adata[rng.permutation(120)].copy()), scores(adata), atol=1e-9)


def test_names_do_not_matter(make_cells):
    adata = make_cells(spread=3.0)
    expected = scores(adata)
    adata.obs["batch"] = adata.obs["batch"].map({0: "x", 1: "a"}).astype("category").cat.add_categories("unused")
    adata.obs["cell_type"] = adata.obs["cell_type"].map({"B": 2.5, "NK": -1.0, "T": 7.0}).astype(float)
    adata.obs_names = ["same"] * 120
    pd.testing.assert_series_equal(scores(adata), expected)


def test_the_kind_of_array_does_not_matter(make_cells):
    adata = make_cells(spread=3.0)
    adata.obsm["X_emb"] = adata.obsm["X_emb"].astype(np.float32)
    expected = scores(adata)
    adata.obsm["X_emb"] = pd.DataFrame(adata.obsm["X_emb"], adata.obs_names)
    pd.testing.assert_series_equal(scores(adata), expected)


def test_nothing_is_written(make_cells):
    adata = make_cells()
    before = adata.copy()
    scores(adata, n_bootstrap=2)
    assert adata.obs.equals(before.obs)
    assert (list(adata.obsm), list(adata.uns), list(adata.obsp)) == (["X_emb"], [], [])


# Intervals


def test_intervals_hold_the_average(make_cells):
    s = scores(make_cells(batch_shift=2.0, spread=3.0), n_bootstrap=200)
    assert list(s.index) == [
        *("NMI", "ARI", "ASW_label", "AvgBIO", "AvgBIO_low", "AvgBIO_high", "ASW_batch", "graph_connectivity"),
        *("AvgBATCH", "AvgBATCH_low", "AvgBATCH_high", "Overall", "Overall_low", "Overall_high"),
    ]
    for name in ("AvgBIO", "AvgBATCH", "Overall"):
        assert s[f"{name}_low"] < s[name] < s[f"{name}_high"]
        assert 0.005 < s[f"{name}_high"] - s[f"{name}_low"] < 0.3


def test_intervals_are_those_of_the_seed_and_the_same_draws_for_all(make_cells):
    adata = make_cells(spread=3.0)
    adata.obsm["twin"] = adata.obsm["X_emb"]
    table = integration_scores(adata, "batch", "cell_type", ["X_emb", "twin"], n_bootstrap=50, seed=1)
    pd.testing.assert_series_equal(table.loc["X_emb"], table.loc["twin"], check_names=False)
    pd.testing.assert_series_equal(scores(adata, n_bootstrap=50, seed=1), table.loc["X_emb"])
    assert scores(adata, n_bootstrap=50, seed=2)["AvgBIO_low"] != table.loc["X_emb", "AvgBIO_low"]


def test_a_weight_counts_a_cell_several_times(rng):
    labels, clusters, batches = rng.integers(0, 4, (3, 60))
    components = labels * 3 + rng.integers(0, 3, 60)
    silhouettes = rng.uniform(-1, 1, (2, 60))
    silhouettes[1, labels == 2] = np.nan
    weights = rng.integers(0, 4, 60)
    repeat = np.repeat(np.arange(60), weights)
    weighted = _ScoredCells(labels, clusters, components, *silhouettes).scores(weights.astype(float))
    repeated = _ScoredCells(labels[repeat], clusters[repeat], components[repeat], *silhouettes[:, repeat])
    assert weighted == pytest.approx(repeated.scores(np.ones(len(repeat))))


def test_labels_that_are_not_drawn_are_left_out():
    labels = np.array([0, 0, 1, 1, 2])
    cells = _ScoredCells(labels, labels, np.array([0, 1, 2, 2, 3]), np.full(5, 0.5), np.array([0.2, 0.2, 0, 0, np.nan]))
    assert cells.scores(np.ones(5))["graph_connectivity"] == pytest.approx((0.5 + 1 + 1) / 3)
    drawn = cells.scores(np.array([2.0, 1, 2, 0, 0]))
    assert drawn["graph_connectivity"] == pytest.approx((2 / 3 + 1) / 2)
    assert drawn["ASW_batch"] == pytest.approx((0.8 + 1) / 2)


# Unusual and wrong input


def test_without_batches_what_needs_them_is_missing(make_cells):
    adata = make_cells()
    with_batches, without = scores(adata), scores(adata, batch_key=None, n_bootstrap=3)
    missing = [name for name in without.index if name.startswith(("ASW_batch", "AvgBATCH", "Overall"))]
    assert without[missing].isna().all()
    same = ["NMI", "ARI", "ASW_label", "AvgBIO", "graph_connectivity"]
    pd.testing.assert_series_equal(without[same], with_batches[same])


def test_a_label_of_one_cell_and_one_of_one_batch(make_cells):
    adata = make_cells()
    labels = adata.obs["cell_type"].astype(str)
    labels.iloc[0] = "rare"
    labels[(labels == "T") & (adata.obs["batch"] == 1)] = "T of batch 1"
    adata.obs["cell_type"] = labels
    s = scores(adata)
    assert s.notna().all()
    # Of the batches in B and NK alone.
    kept = adata[labels.isin(["B", "NK"])].copy()
    assert s["ASW_batch"] == pytest.approx(scores(kept)["ASW_batch"])


def change_obs(key, value):
    def change(adata):
        adata.obs[key] = value(adata) if callable(value) else value

    return change


def change_embedding(value):
    def change(adata):
        adata.obsm["X_emb"][7] = value

    return change


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda a: a.obs.pop("batch"), KeyError, "no column 'batch' in .obs for the batch"),
        (lambda a: a.obs.pop("cell_type"), KeyError, "no column 'cell_type' in .obs for the label"),
        (lambda a: a.obsm.pop("X_emb"), KeyError, "no embedding 'X_emb' in .obsm"),
        (change_obs("batch", lambda a: [None, *a.obs["batch"][1:]]), ValueError, "1 of 120 cells have no batch"),
        (
            change_obs("cell_type", lambda a: [np.nan] * 2 + a.obs["cell_type"][2:].tolist()),
            ValueError,
            "2 of 120 cells have no label",
        ),
        (change_embedding(np.nan), ValueError, "X_emb'\\] is NaN or infinite in 1 of 120"),
        (change_embedding(np.inf), ValueError, "X_emb'\\] is NaN or infinite in 1 of 120"),
        (change_obs("batch", "one"), ValueError, "All cells are of one batch .* pass batch_key=None"),
        (change_obs("cell_type", "T"), ValueError, "same label"),
        (change_obs("cell_type", np.arange(120)), ValueError, "Every cell has a label of its own"),
        (
            change_obs("batch", lambda a: a.obs["cell_type"].astype(str)),
            ValueError,
            "No label of .obs\\['cell_type'\\] has cells of two batches .* pass batch_key=None",
        ),
    ],
    ids=[
        *("no batches", "no labels", "no embedding", "missing batch", "missing labels", "NaN", "infinite"),
        *("one batch", "one label", "all labels differ", "batches are labels"),
    ],
)
def test_wrong_input_is_an_error_that_says_what(change, error, message, make_cells):
    adata = make_cells()
    change(adata)
    with pytest.raises(error, match=message):
        scores(adata)


def test_too_few_cells_or_embeddings(make_cells):
    adata = make_cells()
    with pytest.raises(ValueError, match="There are 10 cells, fewer than n_neighbors=15"):
        scores(adata[:10].copy())
    with pytest.raises(ValueError, match="each once, and is \\[\\]"):
        integration_scores(adata, "batch", "cell_type", [])
    with pytest.raises(ValueError, match="each once"):
        integration_scores(adata, "batch", "cell_type", ["X_emb", "X_emb"])
