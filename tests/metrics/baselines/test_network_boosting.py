import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from joblib import parallel_config
from sklearn.ensemble import GradientBoostingRegressor

from scgpt.metrics import baselines
from scgpt.metrics.baselines import _network_boosting

REGULATORS = [f"TF{i}" for i in range(8)]
TARGETS = ["DRIVEN", "FREE", "CONSTANT"]


@pytest.fixture
def cells(rng) -> ad.AnnData:
    """TF3 and, less, TF5 drive a gene, and nothing drives another."""
    x = rng.gamma(2, 1, (150, 11))
    x[:, 8] = x[:, 3] + 0.4 * x[:, 5] + 0.2 * rng.normal(size=150) + 2
    x[:, 10] = 1
    return ad.AnnData(x.astype(np.float32), var=pd.DataFrame(index=[*REGULATORS, *TARGETS]))


def infer(adata, regulators=REGULATORS, genes=("DRIVEN", "FREE", "TF3"), **kwargs):
    return baselines.grnboost2(adata, regulators, **{"genes": genes, "normalize": False, "max_trees": 150} | kwargs)


def test_it_finds_a_planted_regulator(cells):
    table = infer(cells, genes=TARGETS, max_trees=400)
    assert (table.index.tolist(), table.columns.tolist()) == (REGULATORS, TARGETS)
    assert (table.index.name, table.columns.name) == ("regulator", "target")
    assert table["DRIVEN"].nlargest(2).index.tolist() == ["TF3", "TF5"]
    # What can be predicted gets more trees.
    assert table["DRIVEN"].sum() > 3 * table["FREE"].sum()
    assert (table["CONSTANT"] == 0).all()


def test_scores_of_a_target_add_up_to_the_number_of_its_trees(cells, monkeypatch):
    models = []

    class Kept(GradientBoostingRegressor):
        def fit(self, *args, **kwargs):
            models.append(self)
            return super().fit(*args, **kwargs)

    monkeypatch.setattr("sklearn.ensemble.GradientBoostingRegressor", Kept)
    table = infer(cells, genes=["DRIVEN", "FREE"])
    for (_, scores), model in zip(table.items(), models, strict=True):
        assert scores.sum() == pytest.approx(len(model.estimators_))
        np.testing.assert_allclose(scores, model.feature_importances_ * len(model.estimators_))
    assert len(models[0].estimators_) == 150
    assert 25 <= len(models[1].estimators_) < 100
    params = models[0].get_params()
    assert (params["learning_rate"], params["max_features"], params["subsample"]) == (0.01, 0.1, 0.9)
    assert (params["max_depth"], params["n_estimators"]) == (3, 150)
    assert params["random_state"] != models[1].get_params()["random_state"]


def test_trees_stop_by_the_cells_that_each_left_out(cells, monkeypatch):
    """The same boosting by hand, from the trees and the cells that they were grown on."""
    fits = []

    class Watched(_network_boosting._Monitor):
        def __call__(self, i, model, fit):
            stop = super().__call__(i, model, fit)
            fits.append((model.estimators_[i, 0], ~fit["sample_mask"], stop))
            return stop

    monkeypatch.setattr(_network_boosting, "_Monitor", Watched)
    infer(cells, genes=["FREE"], max_trees=400)
    x, y = cells[:, REGULATORS].X, cells[:, "FREE"].X.ravel().astype(np.float64)
    prediction = np.full(len(y), y.mean())
    improvements = []
    for tree, left_out, _ in fits:
        after = prediction + 0.01 * tree.predict(x)
        errors = ((y - p)[left_out] ** 2 for p in (prediction, after))
        improvements.append(next(errors).mean() - next(errors).mean())
        prediction = after
        assert left_out.sum() == 15
    means = np.convolve(improvements, np.full(25, 1 / 25), "valid")
    assert [stop for *_, stop in fits] == [False] * (len(fits) - 1) + [True]
    assert (means[:-1] >= 0).all()
    assert means[-1] < 0


def test_a_gene_does_not_regulate_itself(cells):
    table = infer(cells, genes=["TF3", "TF5"])
    assert table.loc["TF3", "TF3"] == table.loc["TF5", "TF5"] == 0
    assert table.loc["TF3"].drop("TF3").sum() > 0
    assert (infer(cells, ["TF3"], ["TF3"]) == 0).all(axis=None)


def test_the_order_of_genes_and_what_else_is_inferred_have_no_say(cells):
    table = infer(cells)
    reverse = infer(cells[:, ::-1], REGULATORS[::-1], ["TF3", "DRIVEN", "FREE"])
    assert reverse.index.tolist() == REGULATORS[::-1]
    pd.testing.assert_frame_equal(reverse.loc[table.index, table.columns], table)
    pd.testing.assert_frame_equal(infer(cells, genes=["FREE"]), table[["FREE"]])


def test_sparse_values_and_jobs_give_the_same(cells):
    table = infer(cells)
    cells.X = sp.csr_matrix(cells.X)
    with parallel_config(backend="threading"):  # processes take seconds to start
        pd.testing.assert_frame_equal(infer(cells, n_jobs=2), table)


def test_a_seed_decides(cells):
    assert not np.allclose(infer(cells, seed=1), infer(cells, seed=2))
    assert _network_boosting._seed_of(1, "A") == _network_boosting._seed_of(1, "A")
    assert len({_network_boosting._seed_of(seed, name) for seed in range(10) for name in "ABC"}) == 30


def test_counts_are_normalized_over_all_genes(counts):
    logs = counts.copy()
    totals = np.asarray(counts.X.sum(1)).ravel()
    logs.X = sp.csr_matrix(np.log1p(counts.X.toarray() / totals[:, None] * 1e4).astype(np.float32))
    regulators, genes = [f"GENE{i}" for i in range(10)], ["GENE20", "GENE5"]
    expected = baselines.grnboost2(logs, regulators, genes=genes, normalize=False, max_trees=30)
    np.testing.assert_allclose(
        baselines.grnboost2(counts, regulators, genes=genes, max_trees=30), expected, rtol=1e-3, atol=1e-3
    )
