import numpy as np
import pytest

from scgpt.metrics._calibration import CalibrationBins


def test_a_cell_on_an_edge_is_of_the_lower_bin():
    confidence = np.array([0, 0.25, 0.26, 0.5, 0.75, 0.76, 1])
    bins = CalibrationBins.of(confidence, np.array([1, 0, 1, 0, 1, 0, 1], bool), 4)
    assert bins.cells.tolist() == [2, 2, 1, 2]
    np.testing.assert_allclose(bins.confidence, [0.25, 0.76, 0.75, 1.76])
    assert bins.right.tolist() == [1, 1, 1, 1]


def test_single_precision_does_not_move_cells_from_one_bin_to_the_next():
    shares = (np.arange(16) / 15).astype(np.float32).astype(np.float64)
    assert CalibrationBins.of(shares, np.ones(16, bool), 15).cells.tolist() == [2] + [1] * 14


def test_the_error_is_that_of_its_definition(rng):
    confidence = rng.random(500)
    right = rng.random(500) < confidence**2
    edges = np.linspace(0, 1, 16)
    expected = 0.0
    for low, high in zip(edges[:-1], edges[1:], strict=True):
        inside = (confidence > low) & (confidence <= high)
        if inside.any():
            expected += inside.sum() / 500 * abs(right[inside].mean() - confidence[inside].mean())
    assert CalibrationBins.of(confidence, right, 15).expected_error == pytest.approx(expected)


def test_weights_count_cells_several_times(rng):
    confidence, right, weights = rng.random(50), rng.random(50) < 0.5, rng.integers(0, 3, 50)
    repeat = np.repeat(np.arange(50), weights)
    weighted = CalibrationBins.of(confidence, right, 5, weights.astype(float))
    assert weighted.expected_error == pytest.approx(
        CalibrationBins.of(confidence[repeat], right[repeat], 5).expected_error
    )


def test_cells_that_are_right_as_often_as_they_say_have_no_error():
    assert CalibrationBins.of(np.full(4, 0.75), np.array([1, 1, 1, 0], bool), 15).expected_error == pytest.approx(0)
    assert np.isnan(CalibrationBins.of(np.empty(0), np.empty(0, bool), 15).expected_error)
