"""Value binning: expression values of a cell as their quantile bins among the cell's expressed genes."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ._hashing import derive_key
from ._kernels import bin_expressed

Ties = Literal["middle", "spread"]


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
    if ties not in ("middle", "spread"):
        raise ValueError(f"ties must be 'middle' or 'spread', not {ties!r}.")
    if not (row >= 0).all() or not np.isfinite(row).all():
        raise ValueError("Values to bin must be finite and at least 0.")
    expressed = np.flatnonzero(row)
    bins = np.zeros(len(row), np.float32)
    out = np.empty(len(expressed), np.float32)
    bin_expressed(row[expressed], n_bins, ties == "spread", np.uint64(derive_key(seed, "ties")), 0, expressed, out)
    bins[expressed] = out
    return bins
