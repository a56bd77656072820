"""Value binning: expression values of a cell as their quantile bins among the cell's expressed genes."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ._arguments import check_whole
from ._checks import single
from ._hashing import derive_key
from ._kernels import bin_in_place

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
    ``(n_genes,)`` float32 bins, whole numbers: a middle between two is rounded down.

    Raises
    ------
    ValueError
        When values are below 0, NaN or infinite, or not of one cell; when ``n_bins`` is below 3, or ``ties`` is neither.

    Examples
    --------
    >>> from scgpt.data import bin_values
    >>> bin_values([0, 1, 1, 2, 8], n_bins=5).tolist()
    [0.0, 1.0, 1.0, 3.0, 4.0]
    >>> bin_values([0, 10, 10, 20, 80], n_bins=5).tolist()  # their order counts alone
    [0.0, 1.0, 1.0, 3.0, 4.0]
    """
    row = single(np.asarray(row))
    check_whole(n_bins, "n_bins", 3)
    if ties not in ("middle", "spread"):
        raise ValueError(f"ties must be 'middle' or 'spread', not {ties!r}.")
    if row.ndim != 1:
        raise ValueError(f"bin_values takes the values of one cell, (n_genes,), not an array of shape {row.shape}.")
    if not (row >= 0).all() or not np.isfinite(row).all():
        raise ValueError("Values to bin must be finite and at least 0.")
    bins, genes = row.copy(), np.arange(len(row))
    if row.any():
        bin_in_place(bins, n_bins, ties == "spread", np.uint64(derive_key(seed, "ties")), 0, genes, genes)
    return bins


def values_of_bins(values: NDArray[np.float32], n_bins: int) -> NDArray[np.float32]:
    """Return what each bin of one cell stands for.

    Parameters
    ----------
    values
        ``(n,)`` expressed values of the cell, above 0, in any order.
    n_bins
        Number of bins, 0 included.

    Returns
    -------
    ``(n_bins,)`` float32 values: 0 for bin 0, then the lower edge of each bin, from the lowest value to the highest. All 0 for a
    cell that expresses nothing.

    Examples
    --------
    >>> import numpy as np
    >>> from scgpt.data import values_of_bins
    >>> values_of_bins(np.array([1, 1, 2, 8], dtype=np.float32), n_bins=4).tolist()
    [0.0, 1.0, 1.5, 8.0]
    """
    table = np.zeros(n_bins, np.float32)
    if len(values):
        table[1:] = np.quantile(values, np.linspace(0, 1, n_bins - 1))
    return table


def unbin_values(bins: ArrayLike, table: ArrayLike) -> NDArray[np.float32]:
    """Return the values that bins stand for, between whole bins by linear interpolation.

    What :func:`~scgpt.data.bin_values` binned comes back to the width of its bin, and exactly where a quantile falls on
    it, as on a count that many genes share.

    Parameters
    ----------
    bins
        ``(n_cells, n_genes)`` bins, from 0 to ``n_bins - 1``.
    table
        ``(n_cells, n_bins)`` values of the bins of each cell, see :func:`~scgpt.data.values_of_bins`.

    Returns
    -------
    ``(n_cells, n_genes)`` float32 values.

    Examples
    --------
    >>> import numpy as np
    >>> from scgpt.data import unbin_values, values_of_bins
    >>> table = values_of_bins(np.array([1, 2, 4], dtype=np.float32), n_bins=4)
    >>> unbin_values(np.array([[0, 1, 2.5]], dtype=np.float32), table[None]).tolist()
    [[0.0, 1.0, 3.0]]
    """
    bins, table = np.asarray(bins, dtype=np.float32), np.asarray(table, dtype=np.float32)
    lower = np.minimum(bins.astype(np.int64), table.shape[1] - 2)
    low, high = (np.take_along_axis(table, lower + step, axis=1) for step in (0, 1))
    return low + (bins - lower).astype(np.float32) * (high - low)
