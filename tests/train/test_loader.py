from dataclasses import fields, replace

import numpy as np
import pytest
import torch

from scgpt.data import Cells, GeneVocab, Tokenizer, match_genes
from scgpt.train import CellOrder, TokenDataModule, TokenLoader, split_cells


@pytest.fixture
def cells(counts) -> Cells:
    vocab = GeneVocab.from_genes(counts.var_names)
    return Cells(counts, match_genes(counts.var, vocab).token_ids, labels=np.arange(counts.n_obs))


@pytest.fixture
def tokenizer(counts) -> Tokenizer:
    return Tokenizer(GeneVocab.from_genes(counts.var_names), ties="spread")


def loader(cells, tokenizer, *, seed=0, batch_size=16, shuffle=True) -> TokenLoader:
    order = CellOrder(np.arange(len(cells)), batch_size, shuffle=shuffle, seed=seed)
    return TokenLoader(cells, tokenizer, order, mask_share=0.4)


def same(a, b) -> bool:
    pairs = [(getattr(a, f.name), getattr(b, f.name)) for f in fields(a)]
    return all((x is None) == (y is None) and (x is None or torch.equal(x, y)) for x, y in pairs)


def test_batches_are_a_function_of_seed_epoch_and_step(cells, tokenizer):
    first, second = loader(cells, tokenizer), loader(cells, tokenizer)
    second.order.set_epoch(1)
    list(second)
    second.order.set_epoch(0)
    assert all(same(a, b) for a, b in zip(first, second, strict=True))
    second.order.set_epoch(1)
    assert not any(same(a, b) for a, b in zip(first, second, strict=True))
    assert not any(same(a, b) for a, b in zip(first, loader(cells, tokenizer, seed=1), strict=True))


def test_masks_and_ties_of_a_cell_do_not_depend_on_its_batch(cells, tokenizer):
    by_cell = {}
    for batch_size in (16, 7):
        for batch in loader(cells, tokenizer, batch_size=batch_size):
            for i, cell in enumerate(batch.cell_index.tolist()):
                one = batch.cells(i, i + 1)
                assert same(one, by_cell.setdefault(cell, one))
    assert len(by_cell) == len(cells)


def test_validation_batches_are_the_same_in_every_epoch(cells, tokenizer):
    validation = loader(cells, tokenizer, shuffle=False)
    first = list(validation)
    validation.order.set_epoch(5)
    assert all(same(a, b) for a, b in zip(first, validation, strict=True))


def test_labels_go_with_their_cells(cells, tokenizer):
    for batch in loader(cells, tokenizer):
        assert torch.equal(batch.labels, batch.cell_index)  # the fixture labels each cell by its row


def test_measured_genes_are_told_on_request(cells, tokenizer, counts):
    plain, telling = loader(cells, tokenizer), loader(cells, tokenizer)
    telling.levels = True
    assert next(iter(plain)).measured is None
    batch = next(iter(telling))
    assert batch.measured.tolist() == list(range(counts.n_vars))
    assert np.array_equal(batch.levels.numpy() > 0, counts.X.toarray()[batch.cell_index.numpy()] > 0)


@pytest.mark.parametrize("consumed", [0, 1, 4])
def test_a_loader_goes_on_with_the_very_next_batch(cells, tokenizer, consumed):
    whole = loader(cells, tokenizer)
    whole.order.set_epoch(2)
    expected = list(whole)

    interrupted = loader(cells, tokenizer)
    interrupted.order.set_epoch(2)
    running = iter(interrupted)
    for _ in range(consumed):
        next(running)
    state = interrupted.state_dict()
    assert state["consumed"] == consumed

    resumed = loader(cells, tokenizer)
    iterator = iter(resumed)  # Lightning makes the iterator first and loads the state then
    resumed.load_state_dict(state)
    resumed.order.set_epoch(2)
    rest = list(iterator)
    assert len(rest) == len(expected) - consumed
    assert all(same(a, b) for a, b in zip(rest, expected[consumed:], strict=True))
    assert len(list(resumed)) == len(expected)  # the next epoch is whole again


def test_split_is_a_partition_and_a_function_of_the_seed():
    split = split_cells(np.arange(100), 0.7, 0.2, seed=3)
    assert [len(part) for part in (split.train, split.validation, split.test)] == [70, 20, 10]
    assert np.array_equal(np.sort(np.concatenate([split.train, split.validation, split.test])), np.arange(100))
    assert np.array_equal(split.train, split_cells(np.arange(100), 0.7, 0.2, seed=3).train)
    assert not np.array_equal(split.train, split_cells(np.arange(100), 0.7, 0.2, seed=4).train)
    assert len(split_cells(np.arange(100), 0.9, None, seed=0).validation) == 10


@pytest.mark.parametrize(("train", "validation"), [(0.0, None), (1.2, None), (0.8, 0.3), (0.001, 0.1)])
def test_shares_out_of_range_are_refused(train, validation):
    with pytest.raises(ValueError, match="train_size"):
        split_cells(np.arange(100), train, validation, seed=0)


def test_only_training_spreads_ties(cells, tokenizer):
    data = TokenDataModule(
        cells, tokenizer, split_cells(np.arange(len(cells)), 0.8, None, 0), batch_size=8, mask_share=0.4, seed=0
    )
    assert data.train_dataloader().tokenizer.ties == "spread"
    assert data.val_dataloader().tokenizer.ties == "middle"
    everything = TokenDataModule(
        cells,
        replace(tokenizer),
        split_cells(np.arange(len(cells)), 1.0, None, 0),
        batch_size=8,
        mask_share=0.4,
        seed=0,
    )
    assert everything.val_dataloader() == []


def test_dropping_and_masking_are_independent(cells, tokenizer):
    """Of the genes that are left, those that a mask alone would hide are hidden in their share: no key is shared."""
    whole, dropping = loader(cells, tokenizer, batch_size=120), loader(cells, tokenizer, batch_size=120)
    dropping.drop_share = 0.5
    hidden, left, both = 0, 0, 0
    pairs = zip(whole.make_batch(0).split(1), dropping.make_batch(0).split(1), strict=True)
    for plain, part in pairs:
        would = set(plain.gene_ids[plain.predict].tolist())
        stay = set(part.gene_ids[1:].tolist())
        assert len(stay) == len(plain.gene_ids[1:]) - (len(plain.gene_ids) - 1) // 2
        hidden, left, both = hidden + len(would), left + len(stay), both + len(would & stay)
    n_genes = whole.make_batch(0).n_tokens - 120
    assert both / left == pytest.approx(hidden / n_genes, abs=0.05)
    assert dropping.make_batch(0).predict.sum() < 0.4 * left


SHARES = (0.25, 0.5, 0.75)


def shares_of(batches) -> list[float]:
    """The share of genes that is hidden in each batch: that of its longest cell, where rounding matters least."""
    longest = [max(batch.split(1), key=lambda cell: cell.n_tokens) for batch in batches]
    return [round(4 * int(cell.predict.sum()) / (cell.n_tokens - 1) + 0.02) / 4 for cell in longest]


def test_one_of_several_shares_is_drawn_for_each_step(cells, tokenizer):
    several = loader(cells, tokenizer, batch_size=2)
    several.mask_share = SHARES
    drawn = []
    for epoch in range(2):
        several.order.set_epoch(epoch)
        batches = list(several)
        drawn.append(shares_of(batches))
        assert all(same(a, b) for a, b in zip(batches, several, strict=True))
        single = loader(cells, tokenizer, batch_size=2)
        single.order.set_epoch(epoch)
        for share in SHARES:
            single.mask_share = share
            step = drawn[-1].index(share)
            assert same(single.make_batch(step), batches[step])
    assert set(drawn[0]) == set(drawn[1]) == set(SHARES)
    assert drawn[0] != drawn[1]
    assert all(drawn[0].count(share) > 10 for share in SHARES)


def test_batches_of_one_step_have_one_share(cells, tokenizer):
    several = loader(cells, tokenizer, batch_size=4)
    several.mask_share, several.accumulate = SHARES, 3
    drawn = shares_of(several)
    assert len(drawn) == 30
    assert all(len(set(drawn[i : i + 3])) == 1 for i in range(0, 30, 3))
    assert len(set(drawn)) == 3


def test_hidden_genes_are_unknown_on_request(cells, tokenizer):
    masked, marked = loader(cells, tokenizer), loader(cells, tokenizer)
    marked.unknown = True
    for a, b in zip(masked, marked, strict=True):
        assert a.unknown is None
        assert torch.equal(b.unknown, a.predict)
        assert torch.equal(b.values, a.targets)
