import numpy as np
import pytest
from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score
from sklearn.metrics.cluster import contingency_matrix

from scgpt.metrics._agreement import adjusted_rand_index, normalized_mutual_information


def both(labels, clusters) -> tuple[float, float]:
    table = contingency_matrix(labels, clusters).astype(float)
    return normalized_mutual_information(table), adjusted_rand_index(table)


@pytest.mark.parametrize("n_clusters", [2, 5, 30])
def test_as_scikit_learn(n_clusters, rng):
    labels = rng.integers(0, 5, 200)
    clusters = np.where(rng.random(200) < 0.5, labels % n_clusters, rng.integers(0, n_clusters, 200))
    expected = normalized_mutual_info_score(labels, clusters), adjusted_rand_score(labels, clusters)
    assert both(labels, clusters) == pytest.approx(expected, abs=1e-12)


def test_by_hand():
    # Pairs together: 1 in both, 2 by label, 3 by cluster, of 6 in all; by chance 2 * 3 / 6 = 1.
    assert both([0, 0, 1, 1], [0, 0, 0, 1])[1] == pytest.approx((1 - 1) / (2.5 - 1))
    # Labels and pairs of them: log 2 of log 2 and log 4.
    assert both([0, 0, 1, 1], [0, 1, 2, 3])[0] == pytest.approx(2 / 3)


def test_the_same_groups_under_other_names_agree():
    assert both([0, 0, 1, 2], [5, 5, 3, 1]) == (1, 1)


def test_one_cluster_tells_nothing():
    assert both([0, 0, 1, 1], [0, 0, 0, 0]) == (0, 0)


def test_weights_count_cells_several_times(rng):
    labels, clusters, weights = rng.integers(0, 3, (3, 50))
    table = np.zeros((3, 3))
    np.add.at(table, (labels, clusters), weights)
    repeated = np.repeat(labels, weights), np.repeat(clusters, weights)
    assert normalized_mutual_information(table) == pytest.approx(normalized_mutual_info_score(*repeated))
    assert adjusted_rand_index(table) == pytest.approx(adjusted_rand_score(*repeated))
