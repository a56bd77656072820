import warnings

import numpy as np
import pytest

from scgpt.metrics._moments import Moments
from scgpt.metrics._profiles import Profiles, correlation


def test_correlation_is_pearsons(rng):
    x, y = rng.normal(size=(2, 30))
    assert correlation(x, y) == pytest.approx(np.corrcoef(x, y)[0, 1])
    assert correlation(x, -3 * x + 1) == pytest.approx(-1)


@pytest.mark.parametrize(
    ("x", "y"),
    [
        ([1.0, 1, 1], [1.0, 2, 3]),
        ([1.0, 2, 3], [0.0, 0, 0]),
        (np.float32([0.1, 0.1, 0.1]) + np.array([0, 1e-8, 0]), [1.0, 2, 3]),
        ([1.0], [2.0]),
        ([], []),
    ],
)
def test_of_something_constant_it_is_undefined(x, y):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert np.isnan(correlation(np.array(x), np.array(y)))


def test_changes_below_the_rounding_of_single_precision_are_none(rng):
    control = rng.gamma(1, 1, (1, 50))
    cells = Moments(np.array([1, 1]), np.concatenate([control.astype(np.float32), control + 1e-3]), np.zeros((2, 50)))
    of_control = Moments(np.array([5]), control, control)
    profiles = Profiles(cells, of_control, cells.mean[1], np.zeros((2, 50), dtype=bool))
    assert (profiles.changes[0] == 0).all()
    np.testing.assert_allclose(profiles.changes[1], 1e-3)
    assert (profiles.changes_from_centre[1] == 0).all()
    assert profiles.testable.tolist() == [False, False]


def test_sums_that_cancel_to_almost_nothing_are_no_change():
    zero = np.zeros((1, 3))
    cells = Moments(np.array([4]), np.array([[1e-17, -1e-16, 1e-3]]), zero)
    profiles = Profiles(cells, Moments(np.array([5]), zero, zero), zero[0], zero.astype(bool))
    assert profiles.changes.tolist() == [[0, 0, 1e-3]]
    assert profiles.testable.tolist() == [True]
