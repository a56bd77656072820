import numpy as np
import pytest

from scgpt.train import CorpusOrder
from scgpt.train._corpus_order import BLOCK

N = 10 * BLOCK + 37


def order(n_cells=N, batch_size=60, *, shuffle=True, batches_per_read=4, **kwargs) -> CorpusOrder:
    return CorpusOrder(n_cells, batch_size, shuffle=shuffle, batches_per_read=batches_per_read, **kwargs)


def batches(order: CorpusOrder) -> list[np.ndarray]:
    return [order.batch(step) for step in range(len(order))]


def test_an_epoch_has_each_cell_at_most_once_and_leaves_out_less_than_a_batch():
    cells = np.concatenate(batches(order()))
    assert len(np.unique(cells)) == len(cells) == N - N % 60
    assert 0 <= cells.min() <= cells.max() < N


def test_other_cells_are_left_out_in_other_epochs():
    one = order()
    left_out = []
    for epoch in range(5):
        one.set_epoch(epoch)
        left_out.append(frozenset(range(N)) - frozenset(np.concatenate(batches(one)).tolist()))
    assert len(set(left_out)) > 2  # of eleven blocks, the end of the last


def test_batches_are_a_function_of_seed_and_epoch():
    first, again, other = order(), order(), order(seed=1)
    again.set_epoch(3)
    batches(again)
    again.set_epoch(0)
    assert all(np.array_equal(a, b) for a, b in zip(batches(first), batches(again), strict=True))
    again.set_epoch(1)
    for changed in (again, other):
        assert not any(np.array_equal(a, b) for a, b in zip(batches(first), batches(changed), strict=True))


@pytest.mark.parametrize("shuffle", [True, False])
@pytest.mark.parametrize("world_size", [2, 3, 60])
def test_processes_take_slices_of_the_same_batches(shuffle, world_size):
    whole = batches(order(shuffle=shuffle))
    ranks = [batches(order(shuffle=shuffle, rank=rank, world_size=world_size)) for rank in range(world_size)]
    for step, cells in enumerate(whole):
        assert np.array_equal(np.concatenate([own[step] for own in ranks]), cells)
        assert len({len(own[step]) for own in ranks[:1]}) == 1


def test_what_is_read_at_once_are_runs_of_neighbours_and_no_more_than_is_used():
    one = order()
    for number in range(one.n_reads):
        cells, places = one.read(number)
        assert np.array_equal(np.sort(np.concatenate(places)), np.arange(len(cells)))
        runs = np.split(cells, np.flatnonzero(np.diff(cells) != 1) + 1)
        assert len(runs) <= len(cells) // BLOCK + 3
    for rank in range(2):
        cells, _ = order(rank=rank, world_size=2).read(0)
        assert len(cells) == 4 * 30  # each process reads the cells of its own slices alone


def test_a_batch_mixes_all_blocks_that_are_read():
    one = order(100 * BLOCK, 4 * BLOCK, batches_per_read=8)
    cells, _ = one.read(0)
    blocks = set((cells // BLOCK).tolist())
    assert len(blocks) >= 32
    assert set((one.batch(0) // BLOCK).tolist()) == blocks


def test_without_shuffling_all_cells_come_in_order_in_every_epoch():
    one = order(shuffle=False)
    assert np.array_equal(np.concatenate(batches(one)), np.arange(N))
    assert [len(b) for b in batches(one)] == [60] * (N // 60 - 1) + [60 + N % 60]
    one.set_epoch(4)
    assert np.array_equal(np.concatenate(batches(one)), np.arange(N))
    assert [len(b) for b in batches(order(17, 60, shuffle=False))] == [17]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"batch_size": 0}, "batch_size must be a whole number of at least 1, not 0"),
        ({"batches_per_read": 0}, "batches_per_read must be a whole number of at least 1, not 0"),
        ({"rank": 2, "world_size": 2}, r"rank must lie in 0 .. 1, not 2"),
        ({"world_size": 7}, "A batch of 60 cells cannot be divided among 7 processes"),
        ({"n_cells": 59}, "59 cells are too few"),
        ({"n_cells": 3, "shuffle": False, "world_size": 4}, "3 cells are too few"),
    ],
)
def test_numbers_out_of_range_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        order(**arguments)
