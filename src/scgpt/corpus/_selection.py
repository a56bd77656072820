"""Which cells a corpus keeps, of those that several sources hold."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ._stage import Staged

AS_EXCLUDED, TWICE = "same as an excluded cell", "same as another cell"


def select(staged: Sequence[Staged]) -> tuple[list[NDArray[np.bool_]], list[dict[str, int]]]:
    """Drop all but the first of cells that express the same genes in the same order of expression.

    A cell that is the same as an excluded one is dropped, too: it may be that very cell in another file.

    Parameters
    ----------
    staged
        Sources, the first of which keep their cells.

    Returns
    -------
    For each source which of its staged cells stay, and how many do not, for each reason.
    """
    profiles = [source.array("profile") for source in staged]
    excluded = np.concatenate([source.array("excluded") for source in staged])
    together = np.concatenate(profiles)
    as_excluded = np.isin(together, excluded)
    first = np.zeros(len(together), bool)
    first[np.unique(together, return_index=True)[1]] = True
    bounds = np.cumsum([len(p) for p in profiles])[:-1]
    kept = np.split(first & ~as_excluded, bounds)
    reasons = [
        {AS_EXCLUDED: int(same.sum()), TWICE: int((~one & ~same).sum())}
        for same, one in zip(np.split(as_excluded, bounds), np.split(first, bounds), strict=True)
    ]
    return kept, reasons
