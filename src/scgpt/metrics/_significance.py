"""Which genes differ between groups of cells."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ._moments import Matrix, Moments
from ._rank_test import mann_whitney

_LEVEL = 0.05


def welch_t(groups: Moments, others: Moments) -> NDArray[np.float64]:
    """Return Welch's t of each gene in each group against a single group of other cells.

    As :func:`scanpy.tl.rank_genes_groups` does by default, and with it GEARS.

    Returns
    -------
    ``(n_groups, n_genes)``; 0 where it is undefined, as of a gene that never varies, and in groups of one cell.
    """
    with np.errstate(all="ignore"):
        error = np.sqrt(groups.variance / groups.n_cells[:, None] + others.variance / others.n_cells[:, None])
        t = (groups.mean - others.mean) / error
    return np.nan_to_num(t, nan=0.0, posinf=np.inf, neginf=-np.inf)


def significant_genes(groups: Sequence[Matrix], others: Matrix) -> NDArray[np.bool_]:
    """Return which genes differ between groups of cells and other cells.

    By the test of Mann and Whitney, at a false discovery rate below 0.05 by Benjamini and Hochberg over the genes of a
    group. Not by Welch's t-test: a few cells in none of which a gene is expressed have no variance, and differ by it
    from any others.

    Parameters
    ----------
    groups
        ``(n_cells, n_genes)`` values of each.
    others
        ``(n_others, n_genes)`` values that all groups are compared with.

    Returns
    -------
    ``(n_groups, n_genes)``; none in groups of one cell, or in comparison with one.
    """
    from scipy.stats import false_discovery_control

    out = np.zeros((len(groups), others.shape[1]), dtype=np.bool_)
    tested = [i for i, group in enumerate(groups) if group.shape[0] > 1 and others.shape[0] > 1]
    if tested:
        p = mann_whitney([groups[i] for i in tested], others)
        out[tested] = false_discovery_control(p, axis=1) < _LEVEL
    return out
