from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import scipy.sparse as sp
import torch

from scgpt.data import GeneVocab, TokenBatch, Tokenizer, bin_values
from scgpt.data._hashing import uniform_of

N_VARS = 40
VOCAB = GeneVocab([*(f"G{i}" for i in range(50)), "<pad>", "<cls>", "<eoc>"])
DTYPES = (np.float16, np.float32, np.float64, np.int8, np.uint16, np.int32, np.int64, bool)


@pytest.fixture
def counts(rng) -> np.ndarray:
    """Dense counts of 30 cells; the last has none."""
    counts = rng.poisson(rng.gamma(0.4, 3, (30, N_VARS))).clip(max=100)
    counts[-1] = 0
    return counts


@pytest.fixture
def token_ids(rng) -> np.ndarray:
    """Genes of the variables in any order; some are not in the vocabulary, two are there twice, one three times."""
    ids = rng.permutation(50)[:N_VARS]
    ids[[3, 11, 30]] = -1
    ids[[5, 6, 7, 8]] = ids[[20, 21, 22, 22]]
    return ids


def cells_of(batch: TokenBatch) -> list[dict[int, float]]:
    """Value of each gene of each cell, after a look at ``<cls>``."""
    cells = []
    for start, stop in zip(batch.boundaries[:-1], batch.boundaries[1:], strict=True):
        genes, values = batch.gene_ids[start:stop].tolist(), batch.values[start:stop].tolist()
        assert genes[0] == VOCAB.cls_id
        assert len(set(genes)) == len(genes)
        cells.append(dict(zip(genes[1:], values[1:], strict=True)))
    return cells


def reference(
    dense: np.ndarray,
    token_ids: np.ndarray,
    *,
    max_length: int = 1200,
    n_bins: int | None = 51,
    include_zeros: bool = False,
    rank: Callable[[int], int] | None = None,
) -> list[dict[int, float]]:
    """The same, slowly: a loop over cells and genes. ``rank`` orders genes where there are too many."""
    cells = []
    for row in np.asarray(dense, np.float32):
        cell: dict[int, float] = {}
        for gene, value in zip(token_ids.tolist(), row.tolist(), strict=True):
            if gene >= 0 and (include_zeros or value > 0):
                cell[gene] = max(value, cell.get(gene, 0.0))
        if n_bins is not None:
            cell = dict(zip(cell, bin_values(list(cell.values()), n_bins).tolist(), strict=True))
        if len(cell) > max_length - 1:
            cell = {gene: cell[gene] for gene in sorted(cell, key=rank)[: max_length - 1]}
        cells.append(cell)
    return cells


def splitmix64(x: int) -> int:
    x = (x + 0x9E3779B97F4A7C15) % 2**64
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
    x = (x ^ (x >> 27)) * 0x94D049BB133111EB % 2**64
    return x ^ (x >> 31)


@pytest.mark.parametrize("include_zeros", [False, True])
@pytest.mark.parametrize("n_bins", [None, 7, 51])
@pytest.mark.parametrize("max_length", [1200, 9])
@pytest.mark.parametrize("duplicates", [False, True])
def test_equals_a_slow_reference(include_zeros, n_bins, max_length, duplicates, counts, token_ids):
    if not duplicates:
        token_ids = np.arange(N_VARS)[::-1] + 5
    settings = {"n_bins": n_bins, "max_length": max_length, "include_zeros": include_zeros}
    batch = Tokenizer(VOCAB, **settings)(sp.csr_matrix(counts, dtype=np.float32), token_ids)
    assert cells_of(batch) == reference(counts, token_ids, **settings, rank=splitmix64)


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: np.dtype(dtype).name)
@pytest.mark.parametrize("array", [sp.csr_matrix, sp.csr_array])
@pytest.mark.parametrize("index_dtype", [np.int32, np.int64])
def test_every_kind_of_csr_gives_the_same(dtype, array, index_dtype, counts, token_ids):
    dense = counts > 0 if dtype is bool else counts
    plain = sp.csr_matrix(dense, dtype=np.float32)
    matrix = array((plain.data.astype(dtype), plain.indices, plain.indptr), shape=plain.shape)
    matrix.indices, matrix.indptr = matrix.indices.astype(index_dtype), matrix.indptr.astype(index_dtype)
    assert cells_of(Tokenizer(VOCAB)(matrix, token_ids)) == reference(dense, token_ids)


def disordered(plain: sp.csr_matrix, rng: np.random.Generator, dtype: type) -> sp.csr_matrix:
    """The same matrix with entries in any order, every second one in two halves, and zeros written out."""
    rows = []
    for dense in plain.toarray():
        columns = np.flatnonzero(dense)
        entries = [(c, v) for c, v in zip(columns, dense[columns], strict=True)]
        entries = [(c, v / 2) for c, v in entries[::2] for _ in range(2)] + entries[1::2]
        entries += [(c, 0) for c in np.flatnonzero(dense == 0)[::3]]
        rows.append([entries[i] for i in rng.permutation(len(entries))])
    indices = np.array([c for row in rows for c, _ in row], np.int32)
    data = np.array([v for row in rows for _, v in row], dtype)
    return sp.csr_matrix((data, indices, np.cumsum([0, *map(len, rows)])), shape=plain.shape)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.int8, np.int64], ids=lambda dtype: np.dtype(dtype).name)
@pytest.mark.parametrize("include_zeros", [False, True])
def test_disordered_repeated_and_explicit_zero_entries_change_nothing(dtype, include_zeros, counts, token_ids, rng):
    counts = (counts * 2).clip(max=254)  # even, so that halves are whole; their sums overflow int8
    matrix = disordered(sp.csr_matrix(counts), rng, dtype)
    before = {name: getattr(matrix, name).copy() for name in ("data", "indices", "indptr")}
    assert not matrix.has_canonical_format
    batch = Tokenizer(VOCAB, include_zeros=include_zeros)(matrix, token_ids)
    assert cells_of(batch) == reference(counts, token_ids, include_zeros=include_zeros)
    for name, array in before.items():  # the caller's matrix is left alone
        assert np.array_equal(getattr(matrix, name), array)


def test_a_batch_has_fields_of_the_right_types(counts, token_ids):
    index = np.arange(100, 130, dtype=np.int32)
    batch = Tokenizer(VOCAB)(sp.csr_matrix(counts), token_ids, cell_index=index)
    assert batch.cell_index.tolist() == index.tolist()
    dtypes = [x.dtype for x in (batch.gene_ids, batch.values, batch.offsets, batch.cell_index)]
    assert dtypes == [torch.int64, torch.float32, torch.int64, torch.int64]
    assert Tokenizer(VOCAB)(sp.csr_matrix(counts), token_ids).cell_index.tolist() == list(range(30))


def test_counts_and_log_normalised_values_give_the_same_bins(counts, token_ids):
    normalised = np.log1p(counts / counts.sum(1, keepdims=True).clip(min=1) * 1e4)
    tokenizer = Tokenizer(VOCAB)
    a, b = (cells_of(tokenizer(sp.csr_matrix(x), token_ids)) for x in (counts, normalised))
    assert a == b


@pytest.mark.parametrize("include_zeros", [False, True])
def test_order_of_variables_does_not_matter(include_zeros, counts, token_ids, rng):
    tokenizer = Tokenizer(VOCAB, max_length=9, include_zeros=include_zeros, ties="spread")
    order = rng.permutation(N_VARS)
    a = tokenizer(sp.csr_matrix(counts), token_ids, key=3)
    b = tokenizer(sp.csr_matrix(counts[:, order]), token_ids[order], key=3)
    assert cells_of(a) == cells_of(b)


@pytest.mark.parametrize("ties", ["middle", "spread"])
def test_a_cell_does_not_depend_on_the_others(ties, counts, token_ids):
    tokenizer = Tokenizer(VOCAB, max_length=9, ties=ties)
    matrix = sp.csr_matrix(counts)
    together = cells_of(tokenizer(matrix, token_ids, key=1))
    order = np.array([7, 3, 29, 3])
    some = tokenizer(matrix[order], token_ids, cell_index=order, key=1)
    assert cells_of(some) == [together[i] for i in order]


def test_genes_are_cut_after_binning_and_by_a_fixed_hash(token_ids):
    dense = np.arange(1, N_VARS + 1, dtype=np.float32)[None]
    ids = np.arange(N_VARS)
    whole, cut = (cells_of(Tokenizer(VOCAB, max_length=n)(sp.csr_matrix(dense), ids))[0] for n in (1200, 11))
    assert len(cut) == 10
    assert cut.items() <= whole.items()  # the bins are those of the whole cell
    assert set(cut) == set(sorted(range(N_VARS), key=splitmix64)[:10])
    # Another cell keeps its genes in the same order of preference.
    half = dense * (ids % 2)
    kept = cells_of(Tokenizer(VOCAB, max_length=11)(sp.csr_matrix(half), ids))[0]
    assert set(kept) == set(sorted(range(1, N_VARS, 2), key=splitmix64)[:10])


@pytest.mark.parametrize(("n_genes", "max_length"), [(8, 9), (8, 8), (1, 2), (2, 2)])
def test_max_length_counts_cls(n_genes, max_length):
    dense = np.ones((1, n_genes), np.float32)
    batch = Tokenizer(VOCAB, max_length=max_length)(sp.csr_matrix(dense), np.arange(n_genes))
    assert batch.n_tokens == min(n_genes + 1, max_length)


def test_duplicates_take_the_highest_value_of_each_cell():
    dense = np.array([[1, 5, 2, 0], [4, 0, 0, 3], [0, 0, 0, 0]], np.float32)
    batch = Tokenizer(VOCAB, n_bins=None)(sp.csr_matrix(dense), np.array([9, 4, 9, 4]))
    assert cells_of(batch) == [{9: 2, 4: 5}, {9: 4, 4: 3}, {}]


@pytest.mark.parametrize("include_zeros", [False, True])
def test_a_cell_without_expression_keeps_cls(include_zeros):
    matrix = sp.csr_matrix((2, 3), dtype=np.float32)
    batch = Tokenizer(VOCAB, include_zeros=include_zeros)(matrix, np.array([1, -1, 2]))
    assert cells_of(batch) == [{1: 0, 2: 0} if include_zeros else {}] * 2
    assert batch.values[batch.first].tolist() == [-2, -2]


def test_data_without_a_known_gene_and_without_cells_are_empty(counts):
    none = Tokenizer(VOCAB)(sp.csr_matrix(counts), np.full(N_VARS, -1))
    assert none.lengths.tolist() == [1] * 30
    assert Tokenizer(VOCAB)(sp.csr_matrix((0, 2), dtype=np.float32), np.arange(2)).n_tokens == 0


def test_cls_has_the_value_that_is_asked_for(counts, token_ids):
    batch = Tokenizer(VOCAB, cls_value=0.5)(sp.csr_matrix(counts), token_ids)
    assert batch.values[batch.first].tolist() == [0.5] * 30


def test_spread_ties_follow_key_cell_and_gene():
    dense, index = np.ones((3, 20), np.float32), np.array([4, 9, 4])
    tokenizer = Tokenizer(VOCAB, n_bins=7, ties="spread")
    cells = cells_of(tokenizer(sp.csr_matrix(dense), np.arange(20) + 10, cell_index=index, key=77))
    for cell, i in zip(cells, index, strict=True):
        chance = uniform_of(77, np.full(20, i), np.arange(20) + 10)
        assert list(cell.values()) == (1 + np.floor(chance * 6)).tolist()
    other = cells_of(tokenizer(sp.csr_matrix(dense), np.arange(20) + 10, cell_index=index, key=78))
    assert cells[0] == cells[2] != cells[1]
    assert other[0] != cells[0]


@pytest.mark.parametrize("duplicates", [False, True])
@pytest.mark.parametrize("matched", [False, True])
@pytest.mark.parametrize(
    ("value", "message"),
    [
        (np.nan, "NaN or infinite values"),
        (np.inf, "NaN or infinite values"),
        (-np.inf, "NaN or infinite values"),
        (1e39, r"NaN or infinite values \(or above 3.4e38\)"),
        (-0.5, "negative values, as scaled data"),
    ],
)
def test_values_that_are_no_expression_are_refused_wherever_they_are(value, message, matched, duplicates):
    dense = np.ones((4, 3))
    dense[2, 0] = value
    token_ids = np.array([5 if matched else -1, 7, 7 if duplicates else 8])
    with pytest.raises(ValueError, match=rf"{message}.*rows \[12\]"):
        Tokenizer(VOCAB)(sp.csr_matrix(dense), token_ids, cell_index=np.arange(10, 14))


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_a_bad_value_does_not_hide_behind_a_variable_of_the_same_gene(order):
    for value in (-1.0, np.nan):
        dense = np.array([[value, 2.0]], np.float32)[:, order]
        with pytest.raises(ValueError, match=r"rows \[0\]"):
            Tokenizer(VOCAB)(sp.csr_matrix(dense), np.array([7, 7]))


def test_a_matrix_of_other_variables_is_refused():
    with pytest.raises(ValueError, match="The matrix has 3 variables and token_ids 2"):
        Tokenizer(VOCAB)(sp.csr_matrix((1, 3)), np.arange(2))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"n_bins": 2}, "n_bins must be a whole number of at least 3, or None to leave values, not 2"),
        ({"n_bins": 51.0}, "n_bins must be a whole number .*, not 51.0"),
        ({"max_length": 1}, "max_length must be a whole number of at least 2, <cls> included, not 1"),
        ({"max_length": None}, "max_length must be a whole number .*, not None"),
        ({"ties": "random"}, "ties must be 'middle' or 'spread', not 'random'"),
    ],
)
def test_settings_out_of_range_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        Tokenizer(VOCAB, **settings)


def test_settings_and_back_is_the_same():
    tokenizer = Tokenizer(VOCAB, n_bins=None, max_length=7, ties="spread", include_zeros=True, cls_value=0.0)
    again = Tokenizer.from_settings(VOCAB, tokenizer.settings())
    assert again.settings() == tokenizer.settings()
    assert again.vocab is VOCAB
    assert replace(tokenizer, max_length=8).max_length == 8
    with pytest.raises(ValueError, match=r"Unknown tokenizer settings \['colour'\].*newer version"):
        Tokenizer.from_settings(VOCAB, {"colour": 1})
