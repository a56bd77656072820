from fractions import Fraction

import numpy as np
import pytest

from scgpt.data import bin_values, unbin_values, values_of_bins


@pytest.fixture(scope="module")
def official(golden):
    """Expression of 12 cells, with the lowest and highest bin that the authors' code can give each value."""
    with np.load(golden / "binning.npz") as arrays:
        return dict(arrays)


def bounds(values: np.ndarray, n_bins: int) -> tuple[list[int], list[int]]:
    """Lowest and highest bin of each expressed value: the authors' rule in exact fractions."""
    ordered = [Fraction(float(v)) for v in np.sort(values)]
    n = len(ordered)
    edges = []
    for j in range(n_bins - 1):
        at = Fraction(j * (n - 1), n_bins - 2)
        low, share = int(at), at - int(at)
        edges.append(ordered[low] + share * (ordered[min(low + 1, n - 1)] - ordered[low]))
    lowest, highest = [], []
    for value in values:
        v = Fraction(float(value))
        at_or_below, below = sum(e <= v for e in edges), sum(e < v for e in edges)
        highest.append(at_or_below)
        lowest.append(min(below + 1, at_or_below))
    return lowest, highest


def test_middle_is_the_middle_of_the_authors_bounds(official):
    for row, lowest, highest in zip(*(official[k] for k in ("rows", "lowest_bin", "highest_bin")), strict=True):
        assert bin_values(row).tolist() == ((lowest + highest) // 2).tolist()


def test_spread_covers_the_authors_bounds_and_nothing_else(official):
    for row, lowest, highest in zip(*(official[k] for k in ("rows", "lowest_bin", "highest_bin")), strict=True):
        draws = np.stack([bin_values(row, ties="spread", seed=seed) for seed in range(1500)])
        assert draws.min(axis=0).tolist() == lowest.tolist()
        assert draws.max(axis=0).tolist() == highest.tolist()


@pytest.mark.parametrize("n_bins", [3, 7, 51])
def test_bounds_are_the_authors_for_any_number_of_bins_and_values(n_bins, rng):
    for n in (1, 2, 3, 5, 8, 50, 51, 120):
        row = rng.poisson(1.5, n).astype(np.float32) + 1
        lowest, highest = (np.array(x) for x in bounds(row, n_bins))
        assert bin_values(row, n_bins).tolist() == ((lowest + highest) // 2).tolist()
        draws = np.stack([bin_values(row, n_bins, ties="spread", seed=s) for s in range(20)])
        assert ((draws >= lowest) & (draws <= highest)).all()


def test_spread_is_even_over_the_bins_of_a_tie():
    row = np.ones(5000)
    row[:10] = 2
    bins = bin_values(row, 7, ties="spread")[10:]
    counts = np.bincount(bins.astype(int), minlength=7)
    lowest, highest = bounds(row, 7)
    assert (lowest[-1], highest[-1]) == (1, 5)
    assert counts[[0, 6]].tolist() == [0, 0]
    assert np.abs(counts[1:6] / len(bins) - 0.2).max() < 0.02


def test_a_seed_decides_the_spread():
    row = np.random.default_rng(0).poisson(1, 200)
    a, again, b = (bin_values(row, ties="spread", seed=s) for s in (1, 1, 2))
    assert a.tolist() == again.tolist()
    assert a.tolist() != b.tolist()


def test_spread_of_a_value_belongs_to_the_gene_and_not_to_chance():
    row = np.random.default_rng(0).poisson(1, 50)
    longer = np.concatenate([row, np.zeros(30)])
    assert bin_values(longer, ties="spread")[:50].tolist() == bin_values(row, ties="spread").tolist()


@pytest.mark.parametrize("ties", ["middle", "spread"])
@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda x: x * 1000, id="scaled up"),
        pytest.param(lambda x: x / 7, id="scaled down"),
        pytest.param(np.log1p, id="log1p"),
        pytest.param(lambda x: np.log1p(x / x.sum() * 1e4), id="normalised log1p"),
        pytest.param(np.sqrt, id="square root"),
    ],
)
def test_increasing_transformations_change_nothing(ties, change, official):
    for row in official["rows"]:
        assert bin_values(change(row), ties=ties).tolist() == bin_values(row, ties=ties).tolist()


def test_zeros_are_bin_zero_and_the_largest_value_is_the_last_bin():
    row = np.array([0, 5, 3, 0, 1, 9, 7, 4, 0.5])
    bins = bin_values(row, 7)
    assert bins.dtype == np.float32
    assert (bins == 0).tolist() == (row == 0).tolist()
    assert bins[5] == 6
    assert (np.diff(bins[np.argsort(row)]) >= 0).all()


def test_a_single_expressed_gene_can_take_any_bin():
    row = np.array([0, 3.0, 0])
    assert bin_values(row, 51).tolist() == [0, 25, 0]
    draws = {bin_values(row, 5, ties="spread", seed=s)[1] for s in range(100)}
    assert draws == {1, 2, 3, 4}


@pytest.mark.parametrize("n", [1, 2, 300])
def test_equal_values_take_the_middle_bin(n):
    assert bin_values(np.full(n, 2.5)).tolist() == [25] * n


def test_no_value_and_no_expression_are_fine():
    assert bin_values(np.zeros(3)).tolist() == [0, 0, 0]
    assert bin_values(np.zeros(0)).tolist() == []


@pytest.mark.parametrize("value", [np.nan, np.inf, -1.0])
def test_values_that_are_no_expression_are_refused(value):
    with pytest.raises(ValueError, match="finite and at least 0"):
        bin_values([1, value])


def test_values_beyond_single_precision_are_refused_as_infinite():
    with pytest.raises(ValueError, match="finite and at least 0"):
        bin_values([1e39, 1.0])


def test_cells_are_binned_one_by_one():
    with pytest.raises(ValueError, match=r"one cell, \(n_genes,\), not an array of shape \(2, 3\)"):
        bin_values(np.ones((2, 3)))


def test_too_few_bins_are_refused():
    with pytest.raises(ValueError, match="n_bins must be a whole number of at least 3, not 2"):
        bin_values([1.0], 2)


def test_an_unknown_way_with_ties_is_refused():
    with pytest.raises(ValueError, match="ties must be 'middle' or 'spread', not 'random'"):
        bin_values([1.0], ties="random")


@pytest.mark.parametrize("n_bins", [3, 11, 51])
def test_bins_lead_back_to_values_within_a_bin(rng, n_bins):
    row = np.round(rng.gamma(0.5, 3, 400), 3).astype(np.float32) * (rng.random(400) < 0.6)
    bins, table = bin_values(row, n_bins), values_of_bins(row[row > 0], n_bins)
    assert table[0] == 0 and table[1] == row[row > 0].min() and table[-1] == row.max()
    back = unbin_values(bins[None], table[None])[0]
    width = np.append(np.diff(table), 0)[bins.astype(int)]
    assert (back <= row + 1e-6).all() and (row - back <= width + 1e-5).all()
    assert np.array_equal(back == 0, row == 0)


def test_counts_that_many_genes_share_come_back_exactly(rng):
    row = np.repeat([0, 1, 2, 5], [50, 40, 30, 30]).astype(np.float32)
    assert np.array_equal(unbin_values(bin_values(row)[None], values_of_bins(row[row > 0], 51)[None])[0], row)


def test_between_bins_values_are_interpolated_and_each_cell_has_its_own():
    table = np.stack([values_of_bins(np.array([4.0, 8.0]), 3), values_of_bins(np.array([1.0, 3.0]), 3)])
    assert table.tolist() == [[0, 4, 8], [0, 1, 3]]
    bins = np.array([[0.5, 1.25, 2.0], [0.0, 1.5, 2.0]], np.float32)
    assert unbin_values(bins, table).tolist() == [[2, 5, 8], [0, 2, 3]]
    assert values_of_bins(np.empty(0), 5).tolist() == [0] * 5


def test_bins_in_lists_are_unbinned():
    assert unbin_values([[0, 1, 2.5]], [[0, 1, 2, 4]]).tolist() == [[0, 1, 3]]
