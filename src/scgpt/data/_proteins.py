"""Levels of proteins over their background."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp
from anndata import AnnData
from numpy.typing import NDArray


def above_background(counts: sp.csr_matrix | NDArray[np.number], batches: NDArray[np.integer]) -> sp.csr_matrix:
    """Return how far proteins stand above what is usual of them, 0 where they do not.

    Antibodies bind a little everywhere: nearly every count is above 0, and which proteins a cell has is told by which
    of them are more than background. Counts are divided by the geometric mean of the cell (the centred log-ratio of
    :cite:t:`Stoeckius2017`, by :func:`muon.prot.pp.clr`), and of each protein the median over the cells of the batch is
    taken off, which takes off differences of staining between batches as well.

    Parameters
    ----------
    counts
        ``(n_cells, n_proteins)``, sparse or dense.
    batches
        ``(n_cells,)`` experimental batch of each cell.

    Returns
    -------
    ``(n_cells, n_proteins)`` float32, at least 0.

    Raises
    ------
    ValueError
        When counts are below 0 or not finite, or there is not one batch for each cell.

    Examples
    --------
    >>> import numpy as np
    >>> import scipy.sparse as sp
    >>> from scgpt.data import above_background
    >>> counts = sp.csr_matrix(np.array([[1, 90], [2, 80], [70, 2]], dtype="float32"))
    >>> above_background(counts, np.zeros(3, dtype=int)).toarray() > 0
    array([[False,  True],
           [False, False],
           [ True, False]])
    """
    from muon.prot.pp import clr

    values = sp.csr_matrix(counts, dtype=np.float64).toarray()
    if not (np.isfinite(values) & (values >= 0)).all():
        raise ValueError("Counts of proteins must be finite and at least 0.")
    if len(batches) != len(values):
        raise ValueError(f"There are {len(batches)} batches for {len(values)} cells; each cell has one.")
    cells = AnnData(values)
    clr(cells, axis=1, flavor="stoeckius")
    levels = np.asarray(cells.X)
    for batch in np.unique(batches):
        levels[batches == batch] -= np.median(levels[batches == batch], axis=0)
    return sp.csr_matrix(np.maximum(levels, 0), dtype=np.float32)
