"""Scores are in their range, know their best value, and ask for no order of cells, genes or names."""

import anndata
import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from sklearn.metrics import (
    accuracy_score,
    adjusted_rand_score,
    average_precision_score,
    normalized_mutual_info_score,
    roc_auc_score,
)

from scgpt.metrics import annotation_scores, network_scores, perturbation_scores
from scgpt.metrics._agreement import adjusted_rand_index, normalized_mutual_information

LABELS = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3), st.floats(0, 1)), min_size=2, max_size=40)


def cells_of(labels) -> anndata.AnnData:
    true, called, confidence = zip(*labels, strict=True)
    obs = {"type": [f"T{i}" for i in true], "x": [f"T{i}" for i in called], "x_confidence": np.array(confidence)}
    return anndata.AnnData(obs=pd.DataFrame(obs, index=[f"cell{i}" for i in range(len(true))]))


@given(LABELS, st.randoms(use_true_random=False))
def test_annotation_is_scored_from_0_to_1_in_any_order_of_cells(labels, random):
    scores = annotation_scores(cells_of(labels), "type", "x").overall
    assert ((scores >= 0) & (scores <= 1)).all()
    assert scores["accuracy"] == pytest.approx(accuracy_score(*list(zip(*labels, strict=True))[:2]))
    shuffled = annotation_scores(cells_of(random.sample(labels, len(labels))), "type", "x").overall
    pd.testing.assert_series_equal(shuffled, scores, rtol=1e-9)
    right = annotation_scores(cells_of([(true, true, 1.0) for true, *_ in labels]), "type", "x").overall
    assert right["ECE"] == 0
    assert (right.drop("ECE") == 1).all()


@given(LABELS, st.permutations(range(4)))
def test_annotation_does_not_ask_what_types_are_called(labels, names):
    scores = annotation_scores(cells_of(labels), "type", "x").overall
    renamed = [(names[true], names[called], confidence) for true, called, confidence in labels]
    pd.testing.assert_series_equal(annotation_scores(cells_of(renamed), "type", "x").overall, scores, rtol=1e-9)


@given(LABELS)
def test_agreement_is_that_of_scikit_learn(labels):
    one, other, _ = map(np.array, zip(*labels, strict=True))
    table = np.zeros((4, 4))
    np.add.at(table, (one, other), 1)
    assert normalized_mutual_information(table) == pytest.approx(normalized_mutual_info_score(one, other), abs=1e-9)
    assert adjusted_rand_index(table) == pytest.approx(adjusted_rand_score(one, other), abs=1e-9)
    assert normalized_mutual_information(table.T) == pytest.approx(normalized_mutual_information(table), abs=1e-12)


@given(st.integers(1, 4), st.integers(2, 8), st.integers(0, 2**32 - 1), st.booleans())
def test_networks_are_scored_as_rankings_in_any_order_of_genes(n_regulators, n_targets, seed, tied):
    rng = np.random.default_rng(seed)
    regulators, targets = ([f"{kind}{i}" for i in range(n)] for kind, n in (("R", n_regulators), ("T", n_targets)))
    shape = (n_regulators, n_targets)
    values = rng.integers(0, 3, shape).astype(float) if tied else rng.random(shape)
    right = rng.random(shape) < 0.4
    right[np.arange(n_regulators), rng.integers(0, n_targets, n_regulators)] = True  # each regulator has a link
    assume(not right.all())
    known = [(regulators[i], targets[j]) for i, j in np.argwhere(right)]
    network = pd.DataFrame(values, regulators, targets)
    scores = network_scores(network, known, n_bootstrap=0).iloc[0]
    assert scores["AUPRC"] == pytest.approx(average_precision_score(right.ravel(), values.ravel()))
    assert scores["AUROC"] == pytest.approx(roc_auc_score(right.ravel(), values.ravel()))
    assert 0 <= scores["early_precision"] <= 1
    shuffled = network.iloc[rng.permutation(n_regulators), rng.permutation(n_targets)] * 3 + 1
    order = rng.permutation(len(known))
    pd.testing.assert_series_equal(
        network_scores(shuffled, [known[i] for i in order], n_bootstrap=0).iloc[0], scores, rtol=1e-9
    )


@given(st.integers(2, 4), st.integers(3, 8), st.integers(0, 2**32 - 1))
def test_perturbations_are_scored_in_any_order_of_cells_and_genes(n_perturbations, n_genes, seed):
    rng = np.random.default_rng(seed)
    names = [f"P{i}" for i in range(n_perturbations)]
    of_cell = np.repeat(["control", *names], 4)
    genes = [f"G{i}" for i in range(n_genes)]

    def cells(values, labels) -> anndata.AnnData:
        obs = pd.DataFrame({"perturbation": labels}, index=[f"cell{i}" for i in range(len(labels))])
        return anndata.AnnData(values, obs=obs, var=pd.DataFrame(index=genes))

    observed = cells(rng.gamma(1, 1, (len(of_cell), n_genes)), of_cell)
    predicted = cells(rng.gamma(1, 1, (n_perturbations, n_genes)), names)
    scores = perturbation_scores(observed, predicted, n_top=3).overall
    rows, columns = rng.permutation(observed.n_obs), rng.permutation(n_genes)
    other = perturbation_scores(
        observed[rows, columns].copy(), predicted[rng.permutation(n_perturbations), columns].copy(), n_top=3
    ).overall
    pd.testing.assert_series_equal(other, scores, rtol=1e-6, atol=1e-9)
    for name, value in scores.dropna().items():
        low = -1 if name.startswith("pearson") else 0
        high = np.inf if name.startswith(("mse", "mae", "l2")) else 1
        assert low - 1e-9 <= value <= high + 1e-9, name
    means = np.stack([observed[of_cell == name].X.mean(0) for name in names])
    best = perturbation_scores(observed, cells(means, names), n_top=3).overall
    assert best["pearson_delta"] == pytest.approx(1)
    assert best["mse_delta"] == pytest.approx(0, abs=1e-9)
    assert best["centroid_accuracy"] == 1
