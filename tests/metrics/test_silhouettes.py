import numpy as np
import pytest
from sklearn.metrics import silhouette_samples

from scgpt.metrics._silhouettes import silhouettes, summed_distances


@pytest.fixture(autouse=True)
def _small_tiles(monkeypatch):
    monkeypatch.setattr("scgpt.metrics._silhouettes._TILE", 50)


def test_by_hand():
    points = np.array([[0.0], [1], [4], [6]])
    of_label, of_batch = silhouettes(points, np.array([0, 0, 1, 1]))
    np.testing.assert_allclose(of_label, [4 / 5, 3 / 4, 1.5 / 3.5, 3.5 / 5.5])
    assert np.isnan(of_batch).all()


@pytest.mark.parametrize("n", [40, 70, 170], ids=["one tile", "two tiles", "four tiles"])
def test_as_scikit_learn(n, rng):
    x = (rng.normal(size=(n, 5)) + 100).astype(np.float32).astype(float)
    labels, batches = rng.permutation(np.arange(n) % 4), rng.integers(0, 3, n)
    of_label, of_batch = silhouettes(x, labels, batches)
    np.testing.assert_allclose(of_label, silhouette_samples(x, labels), atol=1e-10)
    for label in range(4):
        cells = labels == label
        np.testing.assert_allclose(of_batch[cells], silhouette_samples(x[cells], batches[cells]), atol=1e-10)


def test_distances_are_summed_by_group(rng):
    x, groups = rng.normal(size=(120, 3)), rng.integers(0, 7, 120)
    distances = np.sqrt(((x[:, None] - x) ** 2).sum(-1))
    np.testing.assert_allclose(summed_distances(x, groups), distances @ np.eye(7)[groups], rtol=1e-10)


def test_a_cell_alone_has_none(rng):
    labels = np.array([0] * 5 + [1] * 5 + [2])
    of_label, _ = silhouettes(rng.normal(size=(11, 2)), labels)
    assert of_label[-1] == 0
    assert (of_label[:-1] != 0).all()


def test_cells_at_one_place_have_none():
    of_label, of_batch = silhouettes(np.ones((6, 2)), np.array([0, 0, 0, 1, 1, 1]), np.array([0, 0, 1, 0, 0, 1]))
    assert (of_label == 0).all()
    assert (of_batch == 0).all()


def test_labels_of_one_batch_or_of_batches_of_one_cell_are_left_out(rng):
    labels = np.array([0] * 4 + [1] * 4 + [2] * 2)
    batches = np.array([0, 0, 1, 1, 0, 0, 0, 0, 0, 1])
    _, of_batch = silhouettes(rng.normal(size=(10, 2)), labels, batches)
    assert np.isnan(of_batch).tolist() == [False] * 4 + [True] * 6
