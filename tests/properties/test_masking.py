"""What is hidden is a function of key, cell and gene; <cls> and one gene of each cell are left."""

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from scgpt.data import TokenBatch, add_unknown, drop_genes, drop_modalities, mark_unknown, mask_values

from ._strategies import VOCAB, token_batches

SHARES = st.one_of(st.sampled_from([0.0, 0.5, 1.0]), st.floats(0, 1))
KEYS = st.integers(0, 2**64 - 1)
HIDING = pytest.mark.parametrize("hide", [mask_values, mark_unknown], ids=["masked", "unknown"])


def genes_of(batch: TokenBatch, chosen: torch.Tensor) -> dict[int, set[int]]:
    """Which genes of each cell were chosen, by the cell's number."""
    genes: dict[int, set[int]] = {int(cell): set() for cell in batch.cell_index}
    for token in torch.nonzero(chosen).flatten():
        genes[int(batch.cell_index[batch.cell_of_token[token]])].add(int(batch.gene_ids[token]))
    return genes


def reordered(batch: TokenBatch, seed: int) -> TokenBatch:
    """The cells in another order, and the genes of each."""
    rng = np.random.default_rng(seed)
    cells = rng.permutation(batch.n_cells)
    tokens, boundaries = [], batch.boundaries
    for cell in cells:
        first, last = boundaries[cell], boundaries[cell + 1]
        tokens += [first, *(first + 1 + rng.permutation(last - first - 1))]
    tokens = torch.tensor(tokens)
    lengths = batch.lengths[torch.from_numpy(cells)]
    offsets = torch.nn.functional.pad(lengths.cumsum(0), (1, 0))
    return TokenBatch(batch.gene_ids[tokens], batch.values[tokens], offsets, batch.cell_index[torch.from_numpy(cells)])


@HIDING
@given(token_batches(), SHARES, KEYS)
def test_one_gene_stays_known_and_cls_is_never_hidden(hide, batch, share, key):
    hidden = hide(batch, share, key=key)
    n_genes = batch.lengths - 1
    n_hidden = torch.stack([part.predict.sum() for part in hidden.split(1)])
    assert (n_hidden <= (n_genes - 1).clamp(min=0)).all()
    assert (n_hidden <= n_genes * share).all()
    assert ((n_hidden > n_genes * share - 1) | (n_hidden == n_genes - 1) | (n_genes == 0)).all()  # rounded down
    assert not hidden.predict[hidden.first].any()
    assert torch.equal(hidden.targets, batch.values)


@given(token_batches(), SHARES, KEYS)
def test_masked_values_are_hidden_and_unknown_genes_the_same_ones(batch, share, key):
    masked, unknown = mask_values(batch, share, mask_value=-1.0, key=key), mark_unknown(batch, share, key=key)
    assert torch.equal(masked.predict, unknown.predict)
    assert torch.equal(masked.values, torch.where(masked.predict, -1.0, batch.values))
    assert torch.equal(unknown.unknown, unknown.predict)
    assert torch.equal(unknown.values, batch.values)


@HIDING
@given(token_batches(), SHARES, KEYS, st.integers(0, 1000))
def test_what_is_hidden_depends_neither_on_other_cells_nor_on_order(hide, batch, share, key, seed):
    together = hide(batch, share, key=key)
    expected = genes_of(together, together.predict)
    other = hide(reordered(batch, seed), share, key=key)
    assert genes_of(other, other.predict) == expected
    for cell in batch.split(1):
        alone = hide(cell, share, key=key)
        assert genes_of(alone, alone.predict).items() <= expected.items()


@given(token_batches(), SHARES, SHARES, KEYS)
def test_a_larger_share_hides_the_same_genes_and_more(batch, one, other, key):
    fewer, more = (mask_values(batch, share, key=key).predict for share in sorted((one, other)))
    assert (more | ~fewer).all()


@given(token_batches(), SHARES, KEYS)
def test_dropped_genes_are_those_that_would_be_hidden(batch, share, key):
    dropped, hidden = drop_genes(batch, share, key=key), mask_values(batch, share, key=key).predict
    everything = torch.ones(batch.n_tokens, dtype=torch.bool)
    left = genes_of(dropped, torch.ones(dropped.n_tokens, dtype=torch.bool))
    hidden_genes = genes_of(batch, hidden)
    assert left == {cell: genes - hidden_genes[cell] for cell, genes in genes_of(batch, everything).items()}


@given(token_batches(), SHARES, KEYS)
def test_a_cell_loses_at_most_one_of_its_modalities_and_never_the_last(batch, share, key):
    assume(batch.modality_ids is not None)
    dropped = drop_modalities(batch, share, key=key)
    for before, after in zip(batch.split(1), dropped.split(1), strict=True):
        had, has = (set(part.modality_ids[1:].tolist()) for part in (before, after))
        assert has <= had
        assert len(has) >= min(len(had), 1)
        assert len(had) - len(has) <= (1 if len(had) > 1 and share > 0 else 0)
        kept = [
            gene for gene, kind in zip(before.gene_ids[1:], before.modality_ids[1:], strict=True) if int(kind) in has
        ]
        assert after.gene_ids[1:].tolist() == kept
        alone = drop_modalities(before, share, key=key)
        assert torch.equal(alone.gene_ids, after.gene_ids)


@given(token_batches(), st.integers(0, 6))
def test_genes_that_are_added_are_unknown_and_come_last(batch, n_genes):
    plain = TokenBatch(batch.gene_ids, batch.values, batch.offsets, batch.cell_index)
    genes = np.arange(len(VOCAB), len(VOCAB) + n_genes)
    longer = add_unknown(plain, genes)
    assert torch.equal(longer.lengths, plain.lengths + n_genes)
    for cell, own in zip(longer.split(1), plain.split(1), strict=True):
        assert cell.gene_ids.tolist() == [*own.gene_ids.tolist(), *genes]
        assert cell.values[: own.n_tokens].tolist() == own.values.tolist()
        assert cell.unknown.tolist() == [False] * own.n_tokens + [True] * n_genes
