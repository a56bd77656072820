"""How far confidence and share of right answers differ, in bins of confidence."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class CalibrationBins:
    """Sums over the cells whose confidence lies in each of ``n_bins`` bins of equal width."""

    cells: NDArray[np.float64]
    confidence: NDArray[np.float64]
    right: NDArray[np.float64]

    @classmethod
    def of(
        cls,
        confidence: NDArray[np.float64],
        right: NDArray[np.bool_],
        n_bins: int,
        weights: NDArray[np.float64] | None = None,
    ) -> CalibrationBins:
        """Sum over cells; a value on an edge is of the lower bin, and 0 of the first.

        Parameters
        ----------
        confidence
            ``(n_obs,)`` between 0 and 1.
        right
            ``(n_obs,)`` whether the answer was right.
        n_bins
            Number of bins.
        weights
            ``(n_obs,)`` how often each cell is counted, once by default.
        """
        if n_bins < 1:
            raise ValueError(f"n_bins has to be 1 or more, and is {n_bins}.")
        if weights is None:
            weights = np.ones(len(confidence))
        # Shares of 15 neighbours in single precision lie on the edges of 15 bins, give or take.
        bins = np.searchsorted(np.linspace(0, 1, n_bins + 1)[1:-1] + 1e-6, confidence)
        return cls(*(np.bincount(bins, weights * values, n_bins) for values in (1, confidence, right)))

    @property
    def expected_error(self) -> float:
        """Expected calibration error; NaN without cells."""
        total = self.cells.sum()
        return float(np.abs(self.right - self.confidence).sum() / total) if total else np.nan
