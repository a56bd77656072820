"""Orders of cells are functions of seed, epoch and step."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from scgpt.data import derive_key
from scgpt.train import CellOrder, CorpusOrder, split_cells

SEEDS = st.integers(0, 2**63)
CELLS = st.lists(st.integers(0, 10**6), unique=True, min_size=1, max_size=100).map(lambda cells: np.array(cells))


def of_epoch(order, epoch: int) -> list[list[int]]:
    order.set_epoch(epoch)
    return [order.batch(step).tolist() for step in range(len(order))]


@given(CELLS, st.integers(1, 120), st.booleans(), SEEDS, st.integers(0, 10**6))
def test_an_epoch_has_every_cell_once_whatever_was_asked_before(cells, batch_size, shuffle, seed, epoch):
    order = CellOrder(cells, batch_size, shuffle=shuffle, seed=seed)
    batches = of_epoch(order, epoch)
    seen = sum(batches, [])
    assert (sorted(seen) if shuffle else seen) == (sorted(cells.tolist()) if shuffle else cells.tolist())
    assert all(len(batch) == batch_size for batch in batches[:-1])
    assert 1 <= len(batches[-1]) <= batch_size
    others = [of_epoch(order, other) for other in range(epoch + 1, epoch + 5)]  # have no say
    if len(cells) > 10:
        assert all((other == batches) != shuffle for other in others)
    assert of_epoch(order, epoch)[::-1] == batches[::-1]
    last = CellOrder(cells, batch_size, shuffle=shuffle, seed=seed)
    last.set_epoch(epoch)
    assert last.batch(len(last) - 1).tolist() == batches[-1]


@given(
    st.integers(1, 6),
    st.integers(1, 40),
    st.integers(0, 2000),
    st.booleans(),
    SEEDS,
    st.integers(0, 9),
    st.integers(1, 5),
)
def test_a_corpus_is_shared_out_among_processes(world_size, size, n_more, shuffle, seed, epoch, batches_per_read):
    batch_size = world_size * size
    n_cells = batch_size + n_more
    settings = {"shuffle": shuffle, "seed": seed, "batches_per_read": batches_per_read}
    ranks = [
        of_epoch(CorpusOrder(n_cells, batch_size, rank=rank, world_size=world_size, **settings), epoch)
        for rank in range(world_size)
    ]
    alone = of_epoch(CorpusOrder(n_cells, batch_size, **settings), epoch)
    joined = [sum(parts, []) for parts in zip(*ranks, strict=True)]
    assert [sorted(batch) for batch in joined] == [sorted(batch) for batch in alone]
    seen = sum(alone, [])
    assert len(set(seen)) == len(seen)
    assert set(seen) <= set(range(n_cells))
    if shuffle:
        assert all(len(part) == size for parts in ranks for part in parts)
    else:
        assert seen == list(range(n_cells))


@given(CELLS, st.floats(0.01, 1), st.floats(0, 1), SEEDS)
def test_a_split_is_a_partition_of_the_sizes_asked_for(cells, train_size, share_of_rest, seed):
    if round(len(cells) * train_size) == 0:
        return
    validation_size = (1 - train_size) * share_of_rest
    split = split_cells(cells, train_size, validation_size, seed)
    parts = [split.train, split.validation, split.test]
    assert sorted(np.concatenate(parts).tolist()) == sorted(cells.tolist())
    assert all((np.diff(part) > 0).all() for part in parts)
    assert len(split.train) == round(len(cells) * train_size)
    assert abs(len(split.validation) - len(cells) * validation_size) <= 1
    again = split_cells(cells, train_size, validation_size, seed)
    assert all(np.array_equal(a, b) for a, b in zip(parts, [again.train, again.validation, again.test], strict=True))


KEYED = st.tuples(SEEDS, st.sampled_from(["order", "mask", "drop"]), st.lists(st.integers(0, 3), max_size=3).map(tuple))


@given(st.lists(KEYED, unique=True, min_size=2, max_size=20))
def test_no_two_purposes_share_a_key(keyed):
    keys = [derive_key(seed, purpose, *parts) for seed, purpose, parts in keyed]
    assert len(set(keys)) == len(keys)
    assert all(0 <= key < 2**64 for key in keys)
