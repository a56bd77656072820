"""Whether a predicted profile is nearer to its own perturbation than to the others."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def centroid_accuracies(
    predicted: NDArray[np.float64], centroids: NDArray[np.float64], own: NDArray[np.intp]
) -> NDArray[np.float64]:
    """Return the share of other centroids that lie farther from each prediction than its own; NaN without others.

    Parameters
    ----------
    predicted
        ``(n, n_genes)``.
    centroids
        ``(n_centroids, n_genes)``.
    own
        ``(n,)``, which of the centroids is that of each prediction.
    """
    from scipy.spatial.distance import cdist

    if len(centroids) < 2:
        return np.full(len(predicted), np.nan)
    distances = cdist(predicted, centroids)
    farther = distances > distances[np.arange(len(own)), own][:, None]
    return farther.sum(1) / (len(centroids) - 1)


def discrimination(
    predicted: NDArray[np.float64], observed: NDArray[np.float64], targets: list[NDArray[np.intp]]
) -> dict[str, NDArray[np.float64]]:
    """Return 1 minus the rank of the true change among all, by their distance to the predicted one, over their number.

    Parameters
    ----------
    predicted
        ``(n, n_genes)``.
    observed
        ``(n, n_genes)``, of the same perturbations.
    targets
        For each perturbation, genes to leave out where its prediction is compared with all that is observed.

    Returns
    -------
    ``(n,)`` under ``"l1"``, ``"l2"`` and ``"cosine"``; NaN where there is nothing to tell it from.
    """
    n = len(observed)
    out = {name: np.full(n, np.nan) for name in ("l1", "l2", "cosine")}
    if n < 2:
        return out
    squares = np.square(observed).sum(1)
    for i, target in enumerate(targets):
        prediction = predicted[i].copy()
        prediction[target] = 0
        difference = observed - predicted[i]
        difference[:, target] = 0
        norms = np.sqrt(np.maximum(squares - np.square(observed[:, target]).sum(1), 0)) * np.linalg.norm(prediction)
        cosines = np.divide(observed @ prediction, norms, out=np.zeros(n), where=norms > 0)
        distances = {
            "l1": np.abs(difference).sum(1),
            "l2": np.square(difference).sum(1),
            # So that rounding makes no order among predictions that are equally like all.
            "cosine": np.round(1 - cosines, 12),
        }
        for name, values in distances.items():
            rank = (values < values[i]).sum() + ((values == values[i]).sum() - 1) / 2
            out[name][i] = 1 - rank / n
    return out
