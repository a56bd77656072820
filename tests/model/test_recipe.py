import pytest

from scgpt.model import epochs_of

BY_CELLS = {"cells_seen": 1000, "epochs": (3, 40)}


@pytest.mark.parametrize(
    ("n_cells", "epochs"), [(100, 10), (105, 10), (260, 4), (10_000, 3), (10, 40), (0, 40), (0.5, 40)]
)
def test_fewer_cells_take_more_epochs_within_bounds(n_cells, epochs):
    assert epochs_of(BY_CELLS, n_cells) == epochs


def test_a_fixed_number():
    assert epochs_of({"max_epochs": 15}, 10**6) == 15
