"""What has been done to the values of an expression matrix, as they tell themselves."""

from __future__ import annotations

import warnings
from typing import Literal

import numpy as np
import scipy.sparse as sp
from anndata import AnnData
from numpy.typing import NDArray

from ._aligned import aligned
from ._cells import Cells

Scale = Literal["counts", "normalised", "log-normalised"]

# No logarithm of a count is as high as this: such a value was normalised and not log-transformed.
_MAX_LOG = 30.0
# Cells that are looked at.
_LOOKED_AT = 512


def scale_of_values(values: NDArray[np.float32]) -> Scale:
    """Return counts where all values are whole numbers; else log-normalised, unless a value is too high for that."""
    if np.array_equal(values, np.round(values)):
        return "counts"
    return "normalised" if values.max(initial=0) > _MAX_LOG else "log-normalised"


def scale_of(adata: AnnData, layer: str | None = None) -> Scale:
    """Return the scale of a data set, as some of its cells, evenly spaced, tell it.

    Raises
    ------
    KeyError
        When there is no such layer.
    """
    index = np.unique(np.linspace(0, adata.n_obs - 1, min(adata.n_obs, _LOOKED_AT)).astype(np.int64))
    return scale_of_values(Cells(adata, np.arange(adata.n_vars), layer=layer).rows(index).data)


def log_normalised(rows: sp.csr_matrix, scale: Scale | None = None, target_sum: float | None = None) -> sp.csr_matrix:
    """Return values log-normalised: counts are scaled first, by default to their median total.

    Values tell by themselves what they are.

    Raises
    ------
    ValueError
        When values are negative, as scaled ones are, NaN or infinite.
    """
    import scanpy as sc

    n_cells, n_vars = rows.shape
    values = aligned(rows, np.arange(n_vars), n_vars, np.arange(n_cells))
    cells = AnnData(values)
    scale = scale or scale_of_values(values.data)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Some cells have zero counts")
        if scale == "counts":
            sc.pp.normalize_total(cells, target_sum=target_sum)
    if scale != "log-normalised":
        sc.pp.log1p(cells)
    return sp.csr_matrix(cells.X)


def expression_of(adata: AnnData, layer: str | None = None, target_sum: float | None = None) -> sp.csr_matrix:
    """Return log-normalised values of all cells, in memory, see :func:`log_normalised`.

    Raises
    ------
    KeyError
        When there is no such layer.
    ValueError
        When values are negative, NaN or infinite.
    """
    cells = Cells(adata, np.arange(adata.n_vars), layer=None if layer == "X" else layer)
    return log_normalised(cells.rows(np.arange(adata.n_obs)), target_sum=target_sum)


def check_log_normalised(adata: AnnData, layer: str | None = None, what: str = "The") -> None:
    """Raise for raw counts, or values that were not log-transformed; ``what`` values they are goes into the message.

    Raises
    ------
    KeyError
        When there is no such layer.
    ValueError
        With what to do.
    """
    scale = scale_of(adata, layer)
    if scale != "log-normalised":
        found = "raw counts" if scale == "counts" else "not log-transformed"
        raise ValueError(
            f"{what} values are {found}, and perturbations are predicted in log-normalised ones: call "
            "scanpy.pp.normalize_total and scanpy.pp.log1p, or name the layer that holds them by layer=."
        )
