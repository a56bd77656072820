"""The test of Mann and Whitney, of many genes in many groups of cells."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ._moments import Matrix


def mann_whitney(groups: Sequence[Matrix], others: Matrix) -> NDArray[np.float64]:
    """Return p-values of groups of cells against other cells, two-sided, by the normal approximation.

    With corrections for ties and continuity, as :func:`scipy.stats.mannwhitneyu` makes them. Genes are sorted once for
    all groups, their zeros left out.

    Parameters
    ----------
    groups
        ``(n_cells, n_genes)`` values of each.
    others
        ``(n_others, n_genes)`` values that all groups are compared with.

    Returns
    -------
    ``(n_groups, n_genes)``, 1 where all values are equal.
    """
    import scipy.sparse as sp
    from scipy.special import ndtr

    blocks = [*groups, others]
    codes = np.repeat(np.arange(len(blocks)), [block.shape[0] for block in blocks])
    values = sp.csc_array(sp.vstack([sp.csr_array(block) for block in blocks]))
    values.eliminate_zeros()
    sizes = np.array([group.shape[0] for group in groups], dtype=np.float64)
    n_groups, n_others = len(groups), others.shape[0]
    total = sizes + n_others
    mean = sizes * n_others / 2
    p = np.ones((n_groups, values.shape[1]))
    for gene in range(values.shape[1]):
        stored = slice(values.indptr[gene], values.indptr[gene + 1])
        above, ties = _counts(
            values.data[stored], codes[values.indices[stored]].astype(np.intp), sizes.astype(np.intp), n_others
        )
        with np.errstate(all="ignore"):
            deviation = np.sqrt(sizes * n_others / 12 * (total + 1 - ties / (total * (total - 1))))
            z = (np.abs(above - mean) - 0.5) / deviation
        p[:, gene] = np.where(deviation > 0, np.minimum(2 * ndtr(-z), 1), 1)
    return p


def _counts(
    values: NDArray[np.float64], codes: NDArray[np.intp], sizes: NDArray[np.intp], n_others: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return how often a cell of each group has more than another cell, ties half, and the sums of t³ - t over ties.

    Parameters
    ----------
    values
        ``(n,)`` that are not 0.
    codes
        ``(n,)`` which group each is of; the number of groups stands for the other cells.
    sizes
        ``(n_groups,)`` number of cells, those with 0 included.
    n_others
        Number of other cells.
    """
    n_groups = len(sizes)
    unique, place = np.unique(np.append(values, 0), return_inverse=True)
    zero, place = place[-1], place[:-1]
    of_others = codes == n_groups
    others = np.bincount(place[of_others], minlength=len(unique)).astype(np.float64)
    others[zero] = n_others - of_others.sum()
    # What the groups have of each value, pairs of a group and a value that it has.
    pairs, numbers = np.unique(codes[~of_others] * len(unique) + place[~of_others], return_counts=True)
    group, at = np.divmod(pairs, len(unique))
    n_zeros = sizes - np.bincount(group, numbers, minlength=n_groups)
    group, at = np.append(group, np.arange(n_groups)), np.append(at, np.full(n_groups, zero))
    number = np.append(numbers, n_zeros).astype(np.float64)
    as_many = others[at]
    below = (np.cumsum(others) - others)[at]
    above = np.bincount(group, number * (below + as_many / 2), minlength=n_groups)
    more_ties = np.bincount(group, _cubes(as_many + number) - _cubes(as_many), minlength=n_groups)
    return above, _cubes(others).sum() + more_ties


def _cubes(counts: NDArray[np.float64]) -> NDArray[np.float64]:
    return counts**3 - counts
