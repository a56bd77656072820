"""Value binning: expression values of a cell as their quantile bins among the cell's expressed genes."""

from __future__ import annotations

from typing import Literal

import numba
import numpy as np
from numpy.typing import ArrayLike, NDArray

from ._hashing import derive_key, uniform

Ties = Literal["middle", "spread"]


@numba.njit
def bin_expressed(values, n_bins, spread, key, cell, gene_ids, out):
    """Write the bins of one cell's ``values``, all above 0, into ``out``.

    The authors take ``n_bins - 1`` quantiles of the values as edges and count the edges at or below a value. Edge
    ``j`` stands at position ``j (n - 1) / (n_bins - 2)`` of the sorted values, so with the positions ``first ..
    last`` of a value among them both counts follow in whole numbers, free of rounding.
    """
    n = len(values)
    steps = n_bins - 2
    ordered = np.sort(values)
    for i in range(n):
        first = np.searchsorted(ordered, values[i], side="left")
        last = np.searchsorted(ordered, values[i], side="right") - 1
        lowest, highest = 1, n_bins - 1
        if n > 1:
            highest = steps * last // (n - 1) + 1  # edges at or below the value
            below = (steps * first + n - 2) // (n - 1)  # edges below it
            lowest = min(below + 1, highest)
        if spread:
            out[i] = lowest + int(uniform(key, cell, gene_ids[i]) * (highest - lowest + 1))
        else:
            out[i] = (lowest + highest) // 2


def bin_values(row: ArrayLike, n_bins: int = 51, *, ties: Ties = "middle", seed: int = 0) -> NDArray[np.float32]:
    """Bin the values of one cell.

    Bin 0 is zero. The expressed values are binned by their quantiles among themselves, hence unchanged by scaling
    and by any increasing transformation: counts and log-normalised values of a cell give the same bins
    (:cite:t:`Cui2024`, Methods).

    Parameters
    ----------
    row
        ``(n_genes,)`` values of at least 0.
    n_bins
        Number of bins, 0 included; bins are ``0 .. n_bins - 1``.
    ties
        A value that many genes share falls on several edges at once. ``"middle"`` takes the middle of the bins that
        it could take; ``"spread"`` spreads the genes at random over them, as the authors do.
    seed
        Of the spread.

    Returns
    -------
    ``(n_genes,)`` bins.
    """
    row = np.asarray(row, dtype=np.float32)
    if n_bins < 3:
        raise ValueError(f"n_bins must be at least 3, not {n_bins}.")
    if not (row >= 0).all() or not np.isfinite(row).all():
        raise ValueError("Values to bin must be finite and at least 0.")
    expressed = np.flatnonzero(row)
    bins = np.zeros(len(row), np.float32)
    out = np.empty(len(expressed), np.float32)
    bin_expressed(row[expressed], n_bins, ties == "spread", np.uint64(derive_key(seed, "ties")), 0, expressed, out)
    bins[expressed] = out
    return bins
