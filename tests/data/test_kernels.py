"""The inner loops by themselves; what they add up to is tested through the functions that call them."""

from itertools import pairwise

import numpy as np
import pytest
import scipy.sparse as sp

from scgpt.data._kernels import NEGATIVE, NOT_FINITE, bin_in_place, choose, merge, survey, uniform_all

SLOTS = np.array([0, -1, 1, 0])  # columns 0 and 3 carry one gene, column 1 none


def csr(rows):
    matrix = sp.csr_matrix(np.array(rows, dtype=np.float32))
    return matrix.indptr.astype(np.int64), matrix.indices.astype(np.int32), matrix.data


def test_survey_counts_known_genes_and_flags_every_column():
    n_genes, flags = survey(*csr([[1, 5, 2, 0], [0, 0, 0, 0], [0, np.nan, 1, 0], [0, -1, np.inf, 3]]), SLOTS)
    assert n_genes.tolist() == [2, 0, 1, 1]
    assert flags.tolist() == [0, 0, NOT_FINITE, NOT_FINITE | NEGATIVE]


def test_merge_keeps_the_highest_value_of_each_gene_within_a_cell():
    indptr, indices, data = merge(*csr([[1, 9, 2, 4], [7, 0, 0, 3], [0, 9, 0, 0], [0, 0, 5, 6]]), SLOTS, 2)
    rows = [dict(zip(indices[a:b].tolist(), data[a:b].tolist(), strict=True)) for a, b in pairwise(indptr)]
    assert rows == [{0: 4.0, 1: 2.0}, {0: 7.0}, {}, {0: 6.0, 1: 5.0}]


@pytest.mark.parametrize("n_bins", [3, 51])
@pytest.mark.parametrize(
    "values",
    [
        np.array([3.0]),
        np.array([2, 2, 2]),
        np.random.default_rng(0).poisson(1, 500) + 1,
        np.random.default_rng(1).lognormal(size=300),
        np.log1p(np.random.default_rng(2).poisson(2, 300) + 1),
        np.array([1, 1, 4095, 4096, 5000, 1]),
        np.array([1, 4095, 7, 7]),
    ],
    ids=["one", "equal", "counts", "distinct", "logged", "large", "almost large"],
)
def test_bins_are_those_of_positions_among_the_sorted_values(values, n_bins):
    values = values.astype(np.float32)
    n, ordered = len(values), np.sort(values)
    genes = np.arange(n)
    lowest, highest = np.ones(n, int), np.full(n, n_bins - 1)
    if n > 1:
        first, last = np.searchsorted(ordered, values), np.searchsorted(ordered, values, "right") - 1
        highest = (n_bins - 2) * last // (n - 1) + 1
        lowest = np.minimum(((n_bins - 2) * first + n - 2) // (n - 1) + 1, highest)
    chance = uniform_all(np.uint64(5), np.full(n, 7), genes + 100)
    spread = lowest + (chance * (highest - lowest + 1)).astype(int)
    zeros = np.sort(np.random.default_rng(3).integers(0, n + 1, 5))  # where genes that are not expressed stand
    for is_spread, bins in ((False, (lowest + highest) // 2), (True, spread)):
        out = np.insert(values, zeros, np.float32(0))
        slots = np.insert(genes, zeros, 0)
        bin_in_place(out, n_bins, is_spread, np.uint64(5), 7, genes + 100, slots)
        assert np.array_equal(out, np.insert(bins, zeros, 0))


def test_chosen_are_the_genes_that_chance_puts_first(rng):
    offsets = np.array([0, 1, 3, 60, 200])
    cells, genes = np.array([4, 9, 2, 7]), rng.permutation(500)[:200]
    chosen = choose(np.uint64(3), cells, genes, offsets, 0.3)
    for cell, a, b in zip(cells, offsets[:-1], offsets[1:], strict=True):
        n = b - a - 1
        first = np.argsort(uniform_all(np.uint64(3), np.full(n, cell), genes[a + 1 : b]))[: int(n * 0.3)]
        assert np.array_equal(np.flatnonzero(chosen[a:b]), np.sort(first) + 1)
