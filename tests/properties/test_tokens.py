"""Tokens hold what the matrix held, and packed batches what padded ones hold."""

from dataclasses import fields
from itertools import pairwise

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from scgpt.data import Cells, TokenBatch, Tokenizer, bin_values, match_genes
from scgpt.data._hashing import hash_ids

from ._strategies import VOCAB, expressions, token_batches


def tokenized(cells, **settings) -> TokenBatch:
    adata = cells.adata()
    match = match_genes(adata.var, VOCAB)
    return Cells(adata, match.token_ids).tokenize(np.arange(adata.n_obs), Tokenizer(VOCAB, **settings))


def to_matrix(batch: TokenBatch, genes: list[str]) -> np.ndarray:
    """Cells by genes again; what is no token is NaN."""
    matrix = np.full((batch.n_cells, len(VOCAB)), np.nan, np.float32)
    matrix[batch.cell_of_token.numpy(), batch.gene_ids.numpy()] = batch.values.numpy()
    return matrix[:, VOCAB.ids(genes)]


def same(a: TokenBatch, b: TokenBatch) -> bool:
    pairs = [(getattr(a, field.name), getattr(b, field.name)) for field in fields(TokenBatch)]
    return all((x is None and y is None) or (x.dtype == y.dtype and torch.equal(x, y)) for x, y in pairs)


@given(expressions())
def test_values_that_are_left_as_they_are_lead_back_to_the_matrix(cells):
    known, genes = cells.dense[:, cells.known], [gene for gene in cells.genes if gene in VOCAB]
    with_zeros = tokenized(cells, n_bins=None, include_zeros=True)
    assert np.array_equal(to_matrix(with_zeros, genes), known)
    expressed = to_matrix(tokenized(cells, n_bins=None), genes)
    assert np.array_equal(expressed, np.where(known > 0, known, np.nan), equal_nan=True)


@given(expressions(), st.integers(3, 60), st.booleans())
def test_bins_of_tokens_are_those_of_the_cell(cells, n_bins, include_zeros):
    known, genes = cells.dense[:, cells.known], [gene for gene in cells.genes if gene in VOCAB]
    got = to_matrix(tokenized(cells, n_bins=n_bins, include_zeros=include_zeros), genes)
    expected = np.stack([bin_values(row, n_bins) for row in known])
    if not include_zeros:
        expected[known == 0] = np.nan
    assert np.array_equal(got, expected, equal_nan=True)


@given(expressions(), st.integers(2, 26), st.booleans())
def test_long_cells_keep_the_genes_that_a_fixed_hash_puts_first(cells, max_length, include_zeros):
    whole, cut = (tokenized(cells, max_length=n, include_zeros=include_zeros) for n in (30, max_length))
    assert (cut.gene_ids[cut.first] == VOCAB.cls_id).all()
    assert torch.equal(cut.lengths, whole.lengths.clamp(max=max_length))
    for part, of_whole in zip(cut.split(1), whole.split(1), strict=True):
        bins = dict(zip(of_whole.gene_ids.tolist(), of_whole.values.tolist(), strict=True))
        genes = of_whole.gene_ids[1:].numpy()
        first = genes[np.argsort(hash_ids(genes))][: max_length - 1]
        assert sorted(part.gene_ids[1:].tolist()) == sorted(first.tolist())
        assert part.values.tolist() == [bins[gene] for gene in part.gene_ids.tolist()]


@given(token_batches())
def test_padded_and_back_is_the_same_batch(batch):
    assert same(TokenBatch.from_padded(**batch.to_padded(pad_id=7, pad_value=-9.0)), batch)


@given(token_batches(), st.data())
def test_padding_may_stand_anywhere(batch, data):
    """More columns, and of each cell the tokens at any places in their order."""
    plain = TokenBatch(batch.gene_ids, batch.values, batch.offsets, batch.cell_index)
    width = plain.longest + data.draw(st.integers(0, 3))
    rng = np.random.default_rng(data.draw(st.integers(0, 1000)))
    padded = {
        "gene_ids": torch.full((plain.n_cells, width), 5),
        "values": torch.full((plain.n_cells, width), torch.nan),
        "padding": torch.ones(plain.n_cells, width, dtype=torch.bool),
    }
    for row, cell in enumerate(plain.split(1)):
        places = np.sort(rng.permutation(width)[: cell.n_tokens])
        padded["gene_ids"][row, places], padded["values"][row, places] = cell.gene_ids, cell.values
        padded["padding"][row, places] = False
    assert same(TokenBatch.from_padded(**padded, cell_index=plain.cell_index), plain)


@given(token_batches(), st.integers(1, 40))
def test_parts_are_consecutive_cells_of_at_most_so_many_tokens(batch, max_tokens):
    parts = batch.split(max_tokens)
    assert all(part.n_tokens <= max_tokens or part.n_cells == 1 for part in parts)
    # As few as there can be: no two neighbours would fit together.
    assert all(a.n_tokens + b.cells(0, 1).n_tokens > max_tokens for a, b in pairwise(parts))
    start = 0
    for part in parts:
        assert same(part, batch.cells(start, start + part.n_cells))
        start += part.n_cells
    assert start == batch.n_cells


@given(token_batches(), st.data())
def test_kept_are_cls_and_the_tokens_asked_for(batch, data):
    kept = torch.tensor(data.draw(st.lists(st.booleans(), min_size=batch.n_tokens, max_size=batch.n_tokens)))
    part = batch.keep(kept)
    kept[batch.first] = True
    assert torch.equal(part.gene_ids, batch.gene_ids[kept])
    assert torch.equal(part.lengths, torch.stack([own.sum() for own in kept.split(batch.lengths.tolist())]))
    assert same(part.keep(torch.ones(part.n_tokens, dtype=torch.bool)), part)
