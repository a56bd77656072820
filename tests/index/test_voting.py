import numpy as np
import pytest

from scgpt.index._voting import vote

NAMES = ("B", "NK", "T")


def test_each_neighbour_has_a_vote():
    votes = vote(np.array([[0, 0, 2], [1, 1, 1]]), np.array([[0.1, 0.2, 0.9], [0.5, 0.5, 0.5]]), NAMES, "uniform")
    assert votes.labels.tolist() == ["B", "NK"]
    assert votes.confidence == pytest.approx([2 / 3, 1])
    assert votes.probabilities == pytest.approx(np.array([[2 / 3, 0, 1 / 3], [0, 1, 0]]))
    assert votes.confidence.dtype == votes.probabilities.dtype == np.float32
    assert votes.categories == NAMES


def test_near_neighbours_have_more_votes():
    # cosines 0.5 and 0.875 are distances 1 and 1/2: two votes of B against two of T, then three of T
    votes = vote(np.array([[0, 0, 2], [0, 2, 2]]), np.array([[0.5, 0.5, 0.875], [0.5, 0.5, 0.875]]), NAMES, "distance")
    assert votes.labels.tolist() == ["B", "T"]  # equally many: 0.5 + 0.5 is more than 0.875
    assert votes.confidence == pytest.approx([0.5, 0.75])


def test_a_neighbour_at_the_very_place_decides():
    votes = vote(np.array([[0, 2, 2]]), np.array([[1.0, 0.9, 0.9]]), NAMES, "distance")
    assert votes.labels.tolist() == ["B"]
    assert np.isfinite(votes.probabilities).all()


@pytest.mark.parametrize(("cosines", "winner"), [([0.9, 0.8], "B"), ([0.8, 0.9], "T"), ([0.9, 0.9], "B"), ([-0.5, -0.4], "T")])  # fmt: skip
def test_equally_many_votes_go_to_the_nearer_label(cosines, winner):
    votes = vote(np.array([[0, 2]]), np.array([cosines]), NAMES, "uniform")
    assert (votes.labels.tolist(), votes.confidence.tolist()) == ([winner], [0.5])


def test_another_way_to_weigh_is_refused():
    with pytest.raises(ValueError, match="'uniform' or 'distance'"):
        vote(np.array([[0]]), np.array([[1.0]]), NAMES, "gaussian")
