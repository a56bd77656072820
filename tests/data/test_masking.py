from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch

from scgpt.data import TokenBatch, add_unknown, drop_genes, drop_modalities, mark_unknown, mask_values

LENGTHS = (1, 2, 3, 11, 101, 41)


@pytest.fixture
def batch(rng) -> TokenBatch:
    offsets = torch.tensor([0, *LENGTHS]).cumsum(0)
    genes = torch.cat([torch.from_numpy(rng.permutation(200)[:n]) for n in LENGTHS])
    genes[offsets[:-1]] = 201
    return TokenBatch(
        gene_ids=genes,
        values=torch.arange(len(genes)) + 1.0,
        offsets=offsets,
        cell_index=torch.tensor([10, 20, 30, 40, 50, 60]),
    )


def hidden_genes(batch: TokenBatch) -> dict[int, set[int]]:
    """Hidden genes of each cell, by its number in the data set."""
    return {
        int(cell): set(part.gene_ids[part.predict].tolist())
        for cell, part in zip(batch.cell_index, batch.split(1), strict=True)
    }


@pytest.mark.parametrize(
    ("share", "expected"),
    [
        (0.0, [0, 0, 0, 0, 0, 0]),
        (0.15, [0, 0, 0, 1, 15, 6]),
        (0.4, [0, 0, 0, 4, 40, 16]),
        (0.5, [0, 0, 1, 5, 50, 20]),
        (1.0, [0, 0, 1, 9, 99, 39]),  # one gene stays known
    ],
)
def test_share_of_each_cells_genes_is_hidden_rounded_down(share, expected, batch):
    masked = mask_values(batch, share)
    assert [int(part.predict.sum()) for part in masked.split(1)] == expected
    assert not masked.predict[masked.first].any()


def test_hidden_values_become_targets_and_the_others_stay(batch):
    masked = mask_values(batch, 0.5, mask_value=-1.0)
    assert torch.equal(masked.targets, batch.values)
    assert (masked.values[masked.predict] == -1).all()
    assert torch.equal(masked.values[~masked.predict], batch.values[~masked.predict])
    assert batch.predict is None
    assert batch.values.min() == 1  # the batch that came in is left alone


def test_what_is_hidden_does_not_depend_on_the_batch(batch):
    together = hidden_genes(mask_values(batch, 0.4, key=5))
    alone = {
        cell: genes for part in batch.split(1) for cell, genes in hidden_genes(mask_values(part, 0.4, key=5)).items()
    }
    assert alone == together
    padded = batch.to_padded()
    backwards = TokenBatch.from_padded(**{name: x.flip(0) for name, x in padded.items()})
    assert hidden_genes(mask_values(backwards, 0.4, key=5)) == together


def test_what_is_hidden_does_not_depend_on_the_order_of_genes(batch):
    order = torch.cat([torch.tensor([a, *range(b - 1, a, -1)]) for a, b in pairwise(batch.boundaries)])
    reordered = TokenBatch(batch.gene_ids[order], batch.values[order], batch.offsets, batch.cell_index)
    assert hidden_genes(mask_values(reordered, 0.4)) == hidden_genes(mask_values(batch, 0.4))


def test_another_key_and_another_cell_hide_other_genes(batch):
    a, b = (hidden_genes(mask_values(batch, 0.4, key=key))[50] for key in (0, 1))
    assert a != b
    twins = TokenBatch(torch.arange(100).repeat(2), torch.ones(200), torch.tensor([0, 100, 200]), torch.tensor([3, 4]))
    hidden = hidden_genes(mask_values(twins, 0.4))
    assert hidden[3] != hidden[4]


def test_every_gene_is_hidden_equally_often():
    batch = TokenBatch(torch.arange(41), torch.ones(41), torch.tensor([0, 41]), torch.tensor([0]))
    times = sum(mask_values(batch, 0.25, key=key).predict.int() for key in range(2000))
    shares = times[1:].numpy() / 2000
    assert shares.mean() == pytest.approx(0.25)
    assert np.abs(shares - 0.25).max() < 0.04  # four standard deviations


@pytest.mark.parametrize("share", [-0.1, 1.1, float("nan")])
def test_a_share_out_of_range_is_refused(share, batch):
    with pytest.raises(ValueError, match=r"must lie in \[0, 1\]"):
        mask_values(batch, share)


def kept_genes(batch: TokenBatch) -> dict[int, set[int]]:
    return {int(part.cell_index): set(part.gene_ids[1:].tolist()) for part in batch.split(1)}


@pytest.mark.parametrize(
    ("share", "lengths"),
    [(0.0, [1, 2, 3, 11, 101, 41]), (0.5, [1, 2, 2, 6, 51, 21]), (0.75, [1, 2, 2, 4, 26, 11]), (1.0, [1] + [2] * 5)],
)
def test_share_of_each_cells_genes_is_dropped_rounded_down(share, lengths, batch):
    dropped = drop_genes(batch, share)
    assert dropped.lengths.tolist() == lengths  # <cls> and, where there was any, one gene are left
    assert (dropped.gene_ids[dropped.first] == 201).all()
    value_of = dict(zip(batch.values.tolist(), batch.gene_ids.tolist(), strict=True))
    assert [value_of[value] for value in dropped.values.tolist()] == dropped.gene_ids.tolist()
    assert batch.n_tokens == sum(LENGTHS)  # the batch that came in is left alone


def test_what_is_dropped_depends_on_key_cell_and_gene_alone(batch):
    together = kept_genes(drop_genes(batch, 0.75, key=5))
    assert together == kept_genes(drop_genes(batch, 0.75, key=5))
    assert together != kept_genes(drop_genes(batch, 0.75, key=6))
    alone = [kept_genes(drop_genes(part, 0.75, key=5)) for part in batch.split(1)]
    assert {cell: genes for part in alone for cell, genes in part.items()} == together
    order = torch.cat([torch.tensor([a, *range(b - 1, a, -1)]) for a, b in pairwise(batch.boundaries)])
    reordered = TokenBatch(batch.gene_ids[order], batch.values[order], batch.offsets, batch.cell_index)
    assert kept_genes(drop_genes(reordered, 0.75, key=5)) == together


def test_a_share_to_drop_out_of_range_is_refused(batch):
    with pytest.raises(ValueError, match=r"dropped genes must lie in \[0, 1\], not 1.5"):
        drop_genes(batch, 1.5)


@pytest.mark.parametrize("share", [0.0, 0.25, 0.75, 1.0])
def test_unknown_genes_are_those_that_a_mask_would_hide_and_values_stay(share, batch):
    masked, marked = mask_values(batch, share, key=3), mark_unknown(batch, share, key=3)
    assert torch.equal(marked.unknown, masked.predict)
    assert torch.equal(marked.predict, masked.predict)
    assert torch.equal(marked.targets, batch.values)
    assert torch.equal(marked.values, batch.values)
    assert not marked.unknown[marked.first].any()
    assert batch.unknown is None


def test_a_share_to_make_unknown_out_of_range_is_refused(batch):
    with pytest.raises(ValueError, match=r"unknown genes must lie in \[0, 1\], not 1.5"):
        mark_unknown(batch, 1.5)


def test_genes_to_generate_come_after_those_of_each_cell(batch):
    genes = np.array([300, 250, 400])
    more = add_unknown(batch, genes)
    assert more.lengths.tolist() == [n + 3 for n in LENGTHS]
    for before, after in zip(batch.split(1), more.split(1), strict=True):
        assert after.gene_ids.tolist() == [*before.gene_ids.tolist(), 300, 250, 400]
        assert after.unknown.tolist() == [False] * before.n_tokens + [True] * 3
        assert torch.equal(after.values[: before.n_tokens], before.values)
    assert torch.equal(more.keep(~more.unknown).gene_ids, batch.gene_ids)


@pytest.fixture
def modal() -> TokenBatch:
    """400 cells of three modalities, but that every fourth has RNA alone."""
    lengths = np.where(np.arange(400) % 4, 7, 3)
    offsets = np.concatenate([[0], lengths.cumsum()])
    kinds = np.concatenate([[0, 1, 1, 2, 2, 3, 3][:n] for n in lengths])
    return TokenBatch(
        gene_ids=torch.arange(len(kinds)),
        values=torch.ones(len(kinds)),
        offsets=torch.from_numpy(offsets),
        cell_index=torch.arange(400) + 5,
        modality_ids=torch.from_numpy(kinds),
    )


def test_of_some_cells_one_modality_is_dropped(modal):
    dropped = drop_modalities(modal, 0.5, key=3)
    kinds = [set(cell.modality_ids.tolist()) for cell in dropped.split(1)]
    assert all(kinds[i] == {0, 1} for i in range(0, 400, 4))  # it has no other
    several = [kinds[i] for i in range(400) if i % 4]
    lost = [{1, 2, 3} - kind for kind in several]
    assert all(0 in kind for kind in several) and max(map(len, lost)) == 1
    counts = [sum(one == {kind} for one in lost) for kind in (1, 2, 3)]
    assert abs(sum(counts) - 150) < 30 and min(counts) > 30
    # It is a function of key and cell.
    part = drop_modalities(modal.cells(100, 200), 0.5, key=3)
    assert torch.equal(part.gene_ids, dropped.cells(100, 200).gene_ids)
    assert not torch.equal(drop_modalities(modal, 0.5, key=4).lengths, dropped.lengths)
    assert drop_modalities(modal, 0) is modal
    assert drop_modalities(modal, 1, key=3).lengths.tolist() == [3 if i % 4 == 0 else 5 for i in range(400)]


def test_modalities_that_cannot_be_dropped(modal):
    with pytest.raises(ValueError, match=r"must lie in \[0, 1\], not 2"):
        drop_modalities(modal, 2)
    with pytest.raises(ValueError, match="no modalities"):
        drop_modalities(replace(modal, modality_ids=None), 0.5)
