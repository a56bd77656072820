"""Intervals of scores, from drawing the scored cells with replacement."""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping

import numpy as np
from numpy.typing import NDArray

Scores = Mapping[str, float]


def with_intervals(
    scores: Scores,
    score: Callable[[NDArray[np.float64]], Scores],
    n_cells: int,
    n_draws: int,
    seed: int,
    names: Container[str],
) -> dict[str, float]:
    """Put the bounds of 95 % intervals behind scores, as ``..._low`` and ``..._high``.

    Parameters
    ----------
    scores
        Of all cells, each counted once.
    score
        Scores the cells, each counted as often as a weight says.
    n_cells
        Number of cells.
    n_draws
        How often to draw them.
    seed
        Of the draws.
    names
        Scores that get bounds. Draws in which one is NaN, as where few cells decide and none of them is drawn, are left
        out of its own.
    """
    rng = np.random.default_rng(seed)
    weights = (np.bincount(rng.integers(n_cells, size=n_cells), minlength=n_cells) for _ in range(n_draws))
    draws = [score(counts.astype(np.float64)) for counts in weights]
    out = {}
    for name, value in scores.items():
        out[name] = value
        if name in names:
            values = np.array([draw[name] for draw in draws])
            values = values[~np.isnan(values)]
            bounds = np.quantile(values, [0.025, 0.975]) if len(values) else (np.nan, np.nan)
            out[f"{name}_low"], out[f"{name}_high"] = map(float, bounds)
    return out
