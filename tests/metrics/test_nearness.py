import numpy as np
import pytest
from scipy.spatial.distance import cdist

from scgpt.metrics._nearness import centroid_accuracies, discrimination

NONE: list[np.ndarray] = [np.array([], dtype=int)] * 4


@pytest.fixture
def observed(rng) -> np.ndarray:
    return rng.normal(size=(4, 6))


def test_accuracy_is_the_share_of_others_that_are_farther():
    centroids = np.array([[0.0], [1], [3], [10]])
    predicted = np.array([[0.4], [9.0], [2.1]])
    np.testing.assert_allclose(centroid_accuracies(predicted, centroids, np.array([0, 1, 2])), [1, 1 / 3, 1])
    assert np.isnan(centroid_accuracies(predicted[:1], centroids[:1], np.array([0]))).all()


def test_equal_distance_is_not_farther():
    centroids = np.array([[0.0], [2.0], [9.0]])
    np.testing.assert_allclose(centroid_accuracies(np.array([[1.0]]), centroids, np.array([0])), [0.5])


def test_ranks_are_those_of_plain_distances(observed, rng):
    predicted = observed + rng.normal(size=observed.shape)
    targets = [np.array([0]), np.array([1, 2]), np.array([], dtype=int), np.array([5])]
    out = discrimination(predicted, observed, targets)
    for name, metric in (("l1", "cityblock"), ("l2", "euclidean"), ("cosine", "cosine")):
        for i, target in enumerate(targets):
            kept = np.setdiff1d(np.arange(6), target)
            distances = cdist(predicted[i : i + 1, kept], observed[:, kept], metric)[0]
            assert out[name][i] == 1 - (distances < distances[i]).sum() / 4


def test_half_of_what_is_as_near_counts_as_nearer(observed):
    out = discrimination(np.zeros((4, 6)), observed, NONE)
    assert out["cosine"].tolist() == [1 - 1.5 / 4] * 4
    order = np.abs(observed).sum(1).argsort().argsort()
    np.testing.assert_allclose(out["l1"], 1 - order / 4)
    same = discrimination(observed, np.tile(observed[:1], (4, 1)), NONE)
    assert [values.tolist() for values in same.values()] == [[1 - 1.5 / 4] * 4] * 3


def test_scale_of_a_prediction_does_not_matter_by_cosine():
    observed = np.array([[1.0, 0], [5, 0.5]])
    out = discrimination(observed * 100, observed, NONE[:2])
    assert out["cosine"].tolist() == [1, 1]
    assert out["l1"].tolist() == out["l2"].tolist() == [0.5, 1]


def test_a_single_perturbation_is_told_from_nothing(observed):
    assert all(np.isnan(values).all() for values in discrimination(observed[:1], observed[:1], NONE[:1]).values())
