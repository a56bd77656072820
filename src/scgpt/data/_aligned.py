"""Rows of expression with one column for each gene, whatever a data set's variables are."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from ._checks import raise_for_values, single
from ._kernels import merge, survey


def aligned(
    rows: sp.csr_matrix, slots: NDArray[np.int64], n_slots: int, cell_index: NDArray[np.int64]
) -> sp.csr_matrix:
    """Bring the variables of a data set into the columns of other genes.

    Parameters
    ----------
    rows
        ``(n_cells, n_vars)`` counts or log-normalised values.
    slots
        ``(n_vars,)`` column of each variable's gene, -1 to leave it out; of several variables with one column the highest
        value of each cell stays.
    n_slots
        Number of columns.
    cell_index
        ``(n_cells,)`` rows of the cells in their data set, for messages.

    Returns
    -------
    ``(n_cells, n_slots)`` float32, in order of columns, zeros left out.

    Raises
    ------
    ValueError
        When values are negative, NaN or infinite.
    """
    # A copy in single precision: sums of small integers overflow.
    rows = sp.csr_matrix((single(rows.data), rows.indices, rows.indptr), rows.shape, copy=True)
    rows.sum_duplicates()
    indptr, indices = rows.indptr.astype(np.int64), rows.indices.astype(np.int32)
    raise_for_values(survey(indptr, indices, rows.data, slots)[1], cell_index)
    indptr, indices, data = merge(indptr, indices, rows.data, slots, n_slots)
    merged = sp.csr_matrix((data, indices, indptr), shape=(rows.shape[0], n_slots))
    merged.eliminate_zeros()
    merged.sort_indices()
    return merged
