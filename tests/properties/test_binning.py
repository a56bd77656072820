"""Bins are ranks: of values among themselves, from 1 to the number of bins, in both ways with ties."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from scgpt.data import bin_values, unbin_values, values_of_bins

BOTH_TIES = pytest.mark.parametrize("ties", ["middle", "spread"])
N_BINS = st.integers(3, 60)
COUNTS = arrays(np.int64, st.integers(1, 80), elements=st.one_of(st.integers(0, 4), st.integers(0, 2**20)))
REALS = arrays(np.float32, st.integers(1, 80), elements=st.one_of(st.just(0.0), st.floats(2.0**-20, 2.0**20, width=32)))
CELLS = st.one_of(COUNTS, REALS)


@BOTH_TIES
@given(CELLS, N_BINS)
def test_zero_stays_zero_and_other_bins_are_in_range(ties, cell, n_bins):
    bins = bin_values(cell, n_bins, ties=ties)
    assert bins.dtype == np.float32
    assert np.array_equal(bins == 0, cell == 0)
    assert np.array_equal(bins, np.round(bins))
    assert bins.max() <= n_bins - 1


@BOTH_TIES
@given(CELLS, N_BINS)
def test_a_higher_value_has_no_lower_bin(ties, cell, n_bins):
    bins = bin_values(cell, n_bins, ties=ties)
    values = np.unique(cell)
    highest, lowest = ([pick(bins[cell == value]) for value in values] for pick in (max, min))
    assert all(below <= above for below, above in zip(highest[:-1], lowest[1:], strict=True))
    if ties == "middle":
        assert highest == lowest  # equal values have one bin


@BOTH_TIES
@given(COUNTS, N_BINS, st.integers(-40, 40))
def test_a_power_of_two_changes_nothing(ties, cell, n_bins, exponent):
    scaled = cell * 2.0**exponent
    assert np.array_equal(bin_values(scaled, n_bins, ties=ties), bin_values(cell, n_bins, ties=ties))


@BOTH_TIES
@given(COUNTS, N_BINS, st.floats(1e-3, 1e3))
def test_other_factors_and_logarithms_change_nothing_as_far_as_values_stay_apart(ties, cell, n_bins, factor):
    cell = cell % 2**12  # neighbours are told apart in float32, and so are their logarithms
    bins = bin_values(cell, n_bins, ties=ties)
    for changed in (cell * factor, np.log1p(cell), np.log1p(cell / max(cell.sum(), 1) * 1e4), np.sqrt(cell)):
        assert np.array_equal(bin_values(changed, n_bins, ties=ties), bins)


@given(CELLS, N_BINS, st.randoms(use_true_random=False))
def test_the_order_of_genes_does_not_count(cell, n_bins, random):
    order = random.sample(range(len(cell)), len(cell))
    assert np.array_equal(bin_values(cell[order], n_bins), bin_values(cell, n_bins)[order])


@given(CELLS, N_BINS)
def test_spread_values_lie_on_both_sides_of_the_middle(cell, n_bins):
    """The middle is that of the bins that a value could take, so no draw is farther from it than to the first or last."""
    middle = bin_values(cell, n_bins)
    spread = np.stack([bin_values(cell, n_bins, ties="spread", seed=seed) for seed in range(5)])
    lone = np.isin(cell, np.unique(cell)[np.unique(cell, return_counts=True)[1] == 1]) & (np.sum(cell > 0) >= n_bins)
    assert (np.abs(spread - middle)[:, lone] <= 1).all()
    assert ((spread >= np.minimum(middle, 1)) & (spread <= np.maximum(2 * middle, 0))).all()


@given(CELLS, N_BINS)
def test_bins_lead_back_to_values_in_their_order_and_within_a_bin(cell, n_bins):
    cell = cell.astype(np.float32)
    expressed, bins = cell[cell > 0], bin_values(cell, n_bins)
    table = values_of_bins(expressed, n_bins)
    back = unbin_values(bins[None], table[None])[0]
    assert np.array_equal(back == 0, cell == 0)
    assert (np.diff(table) >= 0).all()
    if len(expressed):
        assert back[cell > 0].min() >= expressed.min()
        assert back.max() <= expressed.max()
    order = np.argsort(cell, kind="stable")
    assert (np.diff(back[order]) >= 0).all()
    upper = table[np.minimum(bins.astype(int) + 1, n_bins - 1)]
    slack = 1e-6 * cell  # quantiles between two values are rounded
    assert ((back <= cell + slack) & (cell <= upper + slack)).all()
