import numpy as np
import pytest

from scgpt.train import CellOrder

CELLS = np.arange(100, 123)


def epoch_of(order: CellOrder, epoch: int) -> list[int]:
    order.set_epoch(epoch)
    return [cell for step in range(len(order)) for cell in order.batch(step).tolist()]


def test_an_epoch_holds_every_cell_once_and_the_last_batch_what_is_left():
    order = CellOrder(CELLS, 5, shuffle=True, seed=1)
    assert len(order) == 5
    assert sorted(epoch_of(order, 0)) == CELLS.tolist()
    assert len(order.batch(4)) == 3


def test_the_order_is_a_function_of_seed_and_epoch():
    orders = {
        (seed, epoch): epoch_of(CellOrder(CELLS, 5, shuffle=True, seed=seed), epoch)
        for seed in (0, 1)
        for epoch in (0, 1)
    }
    assert len({tuple(o) for o in orders.values()}) == 4
    again = CellOrder(CELLS, 7, shuffle=True, seed=1)
    epoch_of(again, 0)  # what was asked before does not matter
    assert epoch_of(again, 1) == orders[1, 1]


def test_without_shuffling_the_order_is_the_one_given():
    assert epoch_of(CellOrder(CELLS[::-1], 5, shuffle=False), 3) == CELLS[::-1].tolist()


def test_no_cell_and_no_batch_are_refused():
    with pytest.raises(ValueError, match="no cell"):
        CellOrder(np.array([], dtype=int), 5, shuffle=True)
    with pytest.raises(ValueError, match="batch_size"):
        CellOrder(CELLS, 0, shuffle=True)
