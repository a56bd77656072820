"""Probabilities that mean what they say."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax

_RANGE = (0.05, 20.0)


def fit_temperature(logits: NDArray[np.floating], labels: NDArray[np.integer]) -> float:
    """Return the temperature under which the labels are likeliest :cite:p:`Guo2017`.

    Parameters
    ----------
    logits
        ``(n_cells, n_types)`` of cells that were not trained on.
    labels
        ``(n_cells,)`` their types, from 0.

    Returns
    -------
    Logits divided by it, between 0.05 and 20, give the probabilities.
    """
    rows = np.arange(len(labels))

    def nll(log_temperature: float) -> float:
        return -float(log_softmax(logits / np.exp(log_temperature), axis=1)[rows, labels].mean())

    return float(np.exp(minimize_scalar(nll, bounds=tuple(np.log(_RANGE)), method="bounded").x))
