import numpy as np
import pytest

from scgpt.metrics._bootstrap import with_intervals


def shares(values):
    """Score cells by the mean of their values, and by the last alone, which is NaN where it is not drawn."""

    def score(weights):
        last = weights[-1:]
        return {
            "mean": float(np.average(values, weights=weights)),
            "last": float(values[-1]) if last.sum() else np.nan,
            "other": 0.5,
        }

    return score


def test_bounds_are_those_of_the_normal_approximation(rng):
    values = rng.random(400)
    score = shares(values)
    scores = with_intervals(score(np.ones(400)), score, 400, 2000, 0, {"mean"})
    assert list(scores) == ["mean", "mean_low", "mean_high", "last", "other"]
    error = values.std() / 20
    assert scores["mean_low"] == pytest.approx(values.mean() - 1.96 * error, abs=0.25 * error)
    assert scores["mean_high"] == pytest.approx(values.mean() + 1.96 * error, abs=0.25 * error)


def test_draws_without_a_score_are_left_out():
    score = shares(np.linspace(0, 1, 5))
    scores = with_intervals(score(np.ones(5)), score, 5, 50, 0, {"last"})
    assert scores["last_low"] == scores["last_high"] == 1
    nothing = {"x": np.nan}
    assert np.isnan(with_intervals(nothing, lambda _: nothing, 5, 3, 0, {"x"})["x_low"])


def test_a_seed_decides_the_draws(rng):
    score = shares(rng.random(30))
    one, same, other = (with_intervals(score(np.ones(30)), score, 30, 20, seed, {"mean"}) for seed in (1, 1, 2))
    assert one == same
    assert one["mean_low"] != other["mean_low"]
