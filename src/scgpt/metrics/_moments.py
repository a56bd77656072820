"""Log-normalised values, and their means and variances in groups of cells."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ._matrix import Matrix, in_memory

if TYPE_CHECKING:
    from anndata import AnnData


@dataclass(frozen=True)
class LogValues:
    """Expression of some genes in cells.

    Parameters
    ----------
    matrix
        ``(n_cells, n_vars)``, dense or CSR.
    columns
        ``(n_genes,)``, the genes.
    """

    matrix: Matrix
    columns: NDArray[np.intp]

    @classmethod
    def of(cls, adata: AnnData, layer: str | None, columns: NDArray[np.intp] | None = None) -> LogValues:
        """Read a layer, or ``.X``, into memory, where it is not yet.

        Raises
        ------
        KeyError
            When the layer is not there.
        ValueError
            When ``.X`` is empty.
        """
        return cls(_canonical(in_memory(adata, layer)), np.arange(adata.n_vars) if columns is None else columns)

    def cells(self, rows: NDArray[np.intp]) -> Matrix:
        """Return ``(n_rows, n_genes)`` values of some cells."""
        values = self.matrix[rows]
        return values if np.array_equal(self.columns, np.arange(values.shape[1])) else values[:, self.columns]

    def moments(self, groups: Sequence[NDArray[np.intp]]) -> Moments:
        """Return moments of groups of cells, in double precision whatever the matrix is in."""
        mean = np.empty((len(groups), len(self.columns)))
        variance = np.full_like(mean, np.nan)
        for i, rows in enumerate(groups):
            values = self.cells(rows)
            mean[i], variance[i] = _dense(values) if isinstance(values, np.ndarray) else _sparse(values)
        return Moments(np.array([len(rows) for rows in groups], dtype=np.intp), mean, variance)

    @property
    def look_like_counts(self) -> bool:
        """Whether there are whole numbers only, larger ones than 0 and 1 among them."""
        values = np.asarray(self.matrix if isinstance(self.matrix, np.ndarray) else self.matrix.data)
        return bool(values.size and values.max() > 1 and values.min() >= 0 and np.array_equal(values, np.rint(values)))


@dataclass(frozen=True)
class Moments:
    """Of groups of cells.

    Parameters
    ----------
    n_cells
        ``(n_groups,)`` number of cells.
    mean
        ``(n_groups, n_genes)``.
    variance
        ``(n_groups, n_genes)``, unbiased; NaN of a single cell.
    """

    n_cells: NDArray[np.intp]
    mean: NDArray[np.float64]
    variance: NDArray[np.float64]


def _dense(values: NDArray[Any]) -> tuple[NDArray[np.float64], NDArray[np.float64] | float]:
    values = values.astype(np.float64)
    return values.mean(0), values.var(0, ddof=1) if len(values) > 1 else np.nan


def _sparse(values: Any) -> tuple[NDArray[np.float64], NDArray[np.float64] | float]:
    n, n_genes = values.shape
    stored = values.data.astype(np.float64)
    mean = np.bincount(values.indices, stored, minlength=n_genes) / n
    if n < 2:
        return mean, np.nan
    # About the mean, not as a difference of large sums, which leaves noise where a gene hardly varies.
    squares = np.bincount(values.indices, (stored - mean[values.indices]) ** 2, minlength=n_genes)
    n_zeros = n - np.bincount(values.indices, minlength=n_genes)
    return mean, (squares + n_zeros * mean**2) / (n - 1)


def _canonical(matrix: Matrix) -> Matrix:
    """Return a matrix in which no place is stored twice."""
    if isinstance(matrix, np.ndarray) or matrix.has_canonical_format:
        return matrix
    matrix = matrix.copy()
    matrix.sum_duplicates()
    return matrix
