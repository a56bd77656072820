import logging
import sys
import types

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scanpy as sc
import scipy.sparse as sp
from scipy.special import expit
from sklearn.linear_model import LogisticRegression, SGDClassifier
from sklearn.neighbors import KNeighborsClassifier

from scgpt.metrics import annotation_scores, baselines

FIT = {
    "majority_class": baselines.majority_class,
    "knn_pca": baselines.knn_pca,
    "l1": lambda adata, label_key, **kwargs: baselines.logistic_regression(adata, label_key, penalty="l1", **kwargs),
    "l2": lambda adata, label_key, **kwargs: baselines.logistic_regression(adata, label_key, penalty="l2", **kwargs),
    "celltypist": baselines.celltypist,
}
LEARNT = ["knn_pca", "l1", "l2", "celltypist"]


class StandIn(types.ModuleType):
    """What is used of CellTypist, as far as its 1.7 does it, for environments without it."""

    def __init__(self):
        super().__init__("celltypist")
        log = logging.getLogger("celltypist stand-in")
        self.logger = types.SimpleNamespace(logger=log, set_level=log.setLevel)
        self.seen: list[dict] = []

    def train(self, X, labels, *, genes, use_SGD, max_iter, check_expression, random_state, **selection):
        assert isinstance(X, np.ndarray)
        assert (use_SGD, check_expression, len(genes)) == (True, False, X.shape[1])
        self.logger.logger.warning("Training data")
        self.seen.append({"n": len(X), "labels": labels, "seed": random_state, "max_iter": max_iter} | selection)
        mean, scale = X.mean(0), np.where(X.std(0) > 0, X.std(0), 1)
        classifier = SGDClassifier(loss="log_loss", max_iter=max_iter or 1000, random_state=random_state)
        return mean, scale, classifier.fit(((X - mean) / scale).clip(max=10), labels)

    def annotate(self, adata, model):
        mean, scale, classifier = model
        scores = classifier.decision_function(((adata.X - mean) / scale).clip(max=10))
        scores = np.column_stack([-scores, scores]) if scores.ndim == 1 else scores
        table = pd.DataFrame(expit(scores), adata.obs_names, classifier.classes_)
        return types.SimpleNamespace(probability_matrix=table)


@pytest.fixture(autouse=True)
def stand_in(monkeypatch):
    module = StandIn()
    monkeypatch.setitem(sys.modules, "celltypist", module)
    monkeypatch.setattr("scgpt.metrics.baselines._notes.version", lambda name: "1")
    return module


@pytest.fixture
def train(counts) -> np.ndarray:
    return np.arange(counts.n_obs) < 80


def predict(name: str, adata: ad.AnnData, **kwargs) -> pd.DataFrame:
    """Return the probabilities, and take away what was written."""
    FIT[name](adata, "cell_type", key_added="x", **kwargs)
    del adata.obs["x"], adata.obs["x_confidence"], adata.uns["x"]
    return adata.obsm.pop("x_probabilities")


# All of them


@pytest.mark.parametrize("name", FIT)
def test_it_writes_types_confidence_probabilities_and_a_note_and_nothing_else(name, counts, train):
    before = counts.copy()
    assert FIT[name](counts, "cell_type", train=train, key_added="x") is None
    table = counts.obsm["x_probabilities"]
    assert list(table) == ["B", "NK", "T"]
    assert set(table.dtypes) == {np.dtype(np.float32)}
    assert table.index.equals(counts.obs_names)
    np.testing.assert_allclose(table.sum(axis=1), 1, atol=1e-5)
    assert list(counts.obs["x"].cat.categories) == ["B", "NK", "T"]
    assert (counts.obs["x"] == table.idxmax(axis=1)).all()
    assert (counts.obs["x_confidence"] == table.max(axis=1)).all()
    assert counts.uns["x"]["method"] == {"l1": "logistic_regression", "l2": "logistic_regression"}.get(name, name)
    assert counts.uns["x"]["params"]["n_train"] == 80
    assert counts.uns["x"]["params"]["label_key"] == "cell_type"
    assert (counts.X != before.X).nnz == 0
    pd.testing.assert_frame_equal(counts.obs[list(before.obs)], before.obs)
    assert (list(counts.obsm), list(counts.uns), list(counts.var)) == (["x_probabilities"], ["x"], [])


@pytest.mark.parametrize("name", FIT)
def test_what_is_written_can_be_scored_and_saved(name, counts, train, tmp_path):
    counts.obs["cell_type"] = counts.obs["cell_type"].cat.rename_categories({"T": "CD4+/CD25 T Reg"})
    FIT[name](counts, "cell_type", train=train, key_added="x")
    counts.write_h5ad(tmp_path / "cells.h5ad")
    scores = annotation_scores(ad.read_h5ad(tmp_path / "cells.h5ad")[~train], "cell_type", "x")
    if name == "majority_class":
        assert scores.overall["accuracy"] == pytest.approx(1 / 3, abs=0.05)
    else:
        assert scores.overall["accuracy"] > 0.8
    assert scores.overall["ECE"] < 0.3


@pytest.mark.parametrize("name", FIT)
def test_labels_of_cells_outside_training_are_not_read(name, counts, train, rng):
    expected = predict(name, counts, train=train)
    labels = counts.obs["cell_type"].astype(object)
    labels[~train] = rng.permutation(labels[~train].to_numpy())
    for scrambled in (
        labels,
        labels.astype("category"),
        labels.where(train, None),
        labels.where(train, "A, not seen in training").astype("category"),
    ):
        counts.obs["cell_type"] = scrambled
        pd.testing.assert_frame_equal(predict(name, counts, train=train), expected)


@pytest.mark.parametrize("name", LEARNT)
def test_expression_of_cells_outside_training_has_no_influence_on_others(name, counts, train):
    expected = predict(name, counts, train=train, n_top_genes=30)
    counts.X = sp.vstack([counts.X[:80], counts.X[80:, ::-1]]).tocsr()
    table = predict(name, counts, train=train, n_top_genes=30)
    np.testing.assert_allclose(table[:80], expected[:80], atol=1e-5)
    assert np.abs(table[80:] - expected[80:]).to_numpy().max() > 0.1


@pytest.mark.parametrize("name", FIT)
def test_by_default_it_learns_from_all_cells_that_have_a_label(name, counts, train):
    expected = predict(name, counts, train=train)
    counts.obs["cell_type"] = counts.obs["cell_type"].astype(object).where(train, np.nan)
    pd.testing.assert_frame_equal(predict(name, counts), expected)


@pytest.mark.parametrize("name", LEARNT)
def test_it_is_that_of_its_seed_and_leaves_other_random_numbers_alone(name, counts, train):
    np.random.seed(3)
    before = np.random.get_state()[1]
    first = predict(name, counts, train=train, seed=1)
    assert (np.random.get_state()[1] == before).all()
    pd.testing.assert_frame_equal(predict(name, counts, train=train, seed=1), first)


@pytest.mark.parametrize("name", LEARNT)
def test_any_matrix_of_counts_or_logs_gives_the_same(name, counts, train):
    expected = predict(name, counts, train=train)
    logs = counts.copy()
    sc.pp.normalize_total(logs, target_sum=1e4)
    sc.pp.log1p(logs)
    np.testing.assert_allclose(predict(name, logs, train=train, normalize=False), expected, atol=1e-3)
    counts.layers["counts"] = sp.csc_matrix(counts.X)
    counts.layers["array"] = sp.csr_array(counts.X)
    counts.layers["dense"] = counts.X.toarray()
    counts.X = counts.X * 0.5
    for layer in ("counts", "array", "dense"):
        np.testing.assert_allclose(predict(name, counts, train=train, layer=layer), expected, atol=1e-3)
    with pytest.raises(ValueError, match="`.X` does not hold counts: .* normalize=False"):
        predict(name, counts, train=train)


@pytest.mark.parametrize("name", ["l1", "l2", "celltypist"])
def test_all_genes_are_read_unless_told_otherwise(name, counts, train):
    FIT[name](counts, "cell_type", train=train, key_added="x")
    assert counts.uns["x"]["params"]["n_genes"] == 60
    FIT[name](counts, "cell_type", train=train, key_added="x", n_top_genes=10)
    assert counts.uns["x"]["params"]["n_genes"] == 10


@pytest.mark.parametrize("name", FIT)
def test_two_types_suffice_and_their_names_may_be_numbers(name, counts, train):
    counts.obs["cell_type"] = counts.obs["cell_type"].map({"B": 10, "NK": 2, "T": 2}).astype(int)
    table = predict(name, counts, train=train)
    assert list(table) == ["2", "10"]
    np.testing.assert_allclose(table.sum(axis=1), 1, atol=1e-5)
    if name != "majority_class":
        assert ((table["10"] > 0.5) == (counts.obs["cell_type"] == 10))[~train].mean() > 0.9


@pytest.mark.parametrize("name", FIT)
def test_wrong_labels_are_an_error_that_says_what(name, counts, train):
    with pytest.raises(KeyError, match="no column 'type' in .obs for the label"):
        FIT[name](counts, "type", train=train)
    with pytest.raises(KeyError, match="no column 'type' in .obs for the label"):
        FIT[name](counts, "type")
    with pytest.raises(ValueError, match="train has 3 entries"):
        FIT[name](counts, "cell_type", train=[True] * 3)
    counts.obs["holey"] = counts.obs["cell_type"].astype(object).where(np.arange(120) % 40 > 0, None)
    with pytest.raises(ValueError, match="2 of 80 cells have no label in .obs\\['holey'\\]; leave them out"):
        FIT[name](counts, "holey", train=train)
    counts.obs["empty"] = None
    with pytest.raises(ValueError, match="No cell has a label in .obs\\['empty'\\]"):
        FIT[name](counts, "empty")
    if name != "majority_class":
        counts.obs["same"] = np.where(train, "T", "B")
        with pytest.raises(ValueError, match="All training cells have the same label in .obs\\['same'\\]"):
            FIT[name](counts, "same", train=train)


# Majority


def test_shares_are_those_of_the_training_cells(counts):
    train = np.isin(np.arange(120), [0, 1, 2, 4, 7])  # B, NK, T, NK, NK
    baselines.majority_class(counts, "cell_type", train=train)
    assert (counts.obs["majority_class"] == "NK").all()
    assert counts.obs["majority_class_confidence"].to_numpy() == pytest.approx(0.6)
    assert counts.obsm["majority_class_probabilities"].iloc[-1].tolist() == pytest.approx([0.2, 0.6, 0.2])


# Logistic regression


def logs_of(adata: ad.AnnData) -> np.ndarray:
    x = adata.X.toarray()
    return np.log1p(x / x.sum(1, keepdims=True) * 1e4)


def test_the_l2_penalty_is_scikit_learns_on_logs(counts, train):
    x = logs_of(counts)
    model = LogisticRegression(C=0.01, max_iter=1000).fit(x[train], counts.obs["cell_type"][train])
    table = predict("l2", counts, train=train, C=0.01)
    np.testing.assert_allclose(table, model.predict_proba(x), atol=1e-3)


def test_the_l1_penalty_is_one_against_the_rest(counts, train):
    x = logs_of(counts)
    table = predict("l1", counts, train=train, C=0.1)
    scores = np.empty((120, 3))
    before_1_8 = LogisticRegression().get_params().get("penalty") == "l2"
    l1 = {"penalty": "l1"} if before_1_8 else {"l1_ratio": 1.0}
    for i, name in enumerate(table):
        model = LogisticRegression(C=0.1, max_iter=1000, solver="liblinear", random_state=0, **l1)
        model.fit(x[train], counts.obs["cell_type"][train] == name)
        assert 0 < (model.coef_ != 0).sum() < 30
        scores[:, i] = model.predict_proba(x)[:, 1]
    np.testing.assert_allclose(table, scores / scores.sum(1, keepdims=True), atol=1e-3)


@pytest.mark.parametrize("name", ["l1", "l2"])
def test_it_warns_once_for_the_callers_line_where_iterations_were_too_few(name, counts, train):
    with pytest.warns(UserWarning) as caught:
        FIT[name](counts, "cell_type", train=train, max_iter=1)
    (warning,) = caught
    assert "did not converge in 1 iterations: raise max_iter" in str(warning.message)
    assert warning.filename == __file__


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", ["l1", "l2"])
def test_nothing_is_deprecated_and_by_default_it_converges(name, counts, train):
    predict(name, counts, train=train)


def test_another_penalty_is_refused(counts):
    with pytest.raises(ValueError, match="penalty has to be 'l1' or 'l2', and is 'none'"):
        baselines.logistic_regression(counts, "cell_type", penalty="none")


# Nearest neighbours


def test_votes_are_those_among_components_of_the_training_cells(counts, train):
    table = predict("knn_pca", counts, train=train, n_neighbors=5, n_top_genes=30, n_comps=10)
    baselines.pca(counts, train=train, n_top_genes=30, n_comps=10)
    x = counts.obsm["X_pca"]
    model = KNeighborsClassifier(5).fit(x[train], counts.obs["cell_type"][train])
    np.testing.assert_allclose(table, model.predict_proba(x), atol=1e-6)
    assert set(np.unique((table * 5).round(4))) <= {0, 1, 2, 3, 4, 5}


@pytest.mark.parametrize("n_neighbors", [0, 81])
def test_neighbours_have_to_be_there(n_neighbors, counts, train):
    with pytest.raises(ValueError, match=f"between 1 and the number of training cells, 80, and is {n_neighbors}"):
        baselines.knn_pca(counts, "cell_type", train=train, n_neighbors=n_neighbors)


# CellTypist


def test_celltypist_is_given_the_training_cells_and_gives_them_in_portions(counts, train, stand_in, monkeypatch):
    expected = predict("celltypist", counts, train=train, seed=4)
    (seen,) = stand_in.seen
    assert (seen["n"], seen["seed"], seen["max_iter"]) == (80, 4, None)
    assert "feature_selection" not in seen
    assert (seen["labels"] == np.arange(80) % 3).all()
    monkeypatch.setattr("scgpt.metrics.baselines._annotation._CHUNK", 50)
    np.testing.assert_allclose(predict("celltypist", counts, train=train, seed=4), expected, atol=1e-6)


def test_celltypist_is_told_of_genes_and_iterations(counts, train, stand_in):
    baselines.celltypist(counts, "cell_type", train=train, top_genes=20, max_iter=50)
    (seen,) = stand_in.seen
    assert (seen["feature_selection"], seen["top_genes"], seen["max_iter"]) == (True, 20, 50)
    params = counts.uns["celltypist"]["params"]
    assert (params["top_genes"], params["max_iter"], params["n_genes"]) == (20, 50, 60)


def test_celltypist_is_quiet(counts, train, stand_in, caplog):
    stand_in.logger.set_level(logging.INFO)
    predict("celltypist", counts, train=train)
    assert caplog.messages == []
    assert stand_in.logger.logger.level == logging.INFO


def test_cells_far_from_all_types_are_of_none(counts, train, stand_in):
    def annotate(adata, model):
        return types.SimpleNamespace(probability_matrix=pd.DataFrame(0.0, adata.obs_names, [0, 1, 2]))

    stand_in.annotate = annotate
    assert (predict("celltypist", counts, train=train) == np.float32(1 / 3)).all(axis=None)


def test_celltypist_has_to_be_there(counts, monkeypatch):
    monkeypatch.setitem(sys.modules, "celltypist", None)
    with pytest.raises(ImportError, match="pip install celltypist"):
        baselines.celltypist(counts, "cell_type")


def test_celltypist_itself(counts, train, monkeypatch):
    stand_in = predict("celltypist", counts, train=train)
    monkeypatch.delitem(sys.modules, "celltypist")
    before = logging.getLogger().level, logging.getLogger().handlers[:]
    pytest.importorskip("celltypist")
    logging.getLogger().setLevel(before[0])
    logging.getLogger().handlers[:] = before[1]
    np.testing.assert_allclose(predict("celltypist", counts, train=train), stand_in, atol=1e-3)
    assert predict("celltypist", counts, train=train, top_genes=20, max_iter=50).shape == (120, 3)
