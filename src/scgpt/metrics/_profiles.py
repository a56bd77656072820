"""Mean profiles of perturbations, and how they differ from a reference."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ._moments import Moments

# Predictions are in single precision: differences this small, relative to what is subtracted, are its rounding.
_ROUNDING = 1e-6
# Where the reference is 0, what sums in double precision leave.
_NOTHING = 1e-12


@dataclass(frozen=True)
class Profiles:
    """Perturbations as they were observed, or as they were predicted.

    Parameters
    ----------
    cells
        Moments of the perturbations.
    control
        Moments of the control cells that they are compared with, a single group.
    centre
        ``(n_genes,)`` mean of the centroids of perturbations, which they are compared with as well.
    significant
        ``(n, n_genes)`` bool, which genes differ from control; none do where that cannot be told.
    """

    cells: Moments
    control: Moments
    centre: NDArray[np.float64]
    significant: NDArray[np.bool_]

    @property
    def changes(self) -> NDArray[np.float64]:
        """``(n, n_genes)``, from control."""
        return _differences(self.cells.mean, self.control.mean[0])

    @property
    def testable(self) -> NDArray[np.bool_]:
        """``(n,)``, whether there are cells enough to tell what differs: two, and as many control cells."""
        return (self.cells.n_cells > 1) & (self.control.n_cells > 1)

    @property
    def changes_from_centre(self) -> NDArray[np.float64]:
        """``(n, n_genes)``, from the mean of the centroids."""
        return _differences(self.cells.mean, self.centre)


def _differences(profiles: NDArray[np.float64], reference: NDArray[np.float64]) -> NDArray[np.float64]:
    out = profiles - reference
    out[np.abs(out) <= _ROUNDING * np.abs(reference) + _NOTHING] = 0
    return out


def correlation(first: NDArray[np.float64], second: NDArray[np.float64]) -> float:
    """Return Pearson's correlation of two vectors; NaN where one of them is constant."""
    if len(first) < 2:
        return np.nan
    product = 1.0
    deviations = first - first.mean(), second - second.mean()
    for vector, deviation in zip((first, second), deviations, strict=True):
        norm = np.linalg.norm(deviation)
        if norm <= _ROUNDING * np.linalg.norm(vector):
            return np.nan
        product *= float(norm)
    return float(np.clip(deviations[0] @ deviations[1] / product, -1, 1))
