"""From the labels of neighbours to the label of a cell."""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

Weights = Literal["uniform", "distance"]

# Distances below it count as it: a neighbour at the very place outweighs all others, but not infinitely.
_LEAST_DISTANCE = 1e-3


class Votes(NamedTuple):
    """What the neighbours of each cell say.

    Parameters
    ----------
    labels
        ``(n,)`` the label with most votes.
    confidence
        ``(n,)`` float32, its share of the votes, from 0 to 1.
    probabilities
        ``(n, n_categories)`` float32, the share of every label.
    categories
        The labels in the order of the columns of ``probabilities``.

    Examples
    --------
    >>> import pandas as pd
    >>> import scgpt
    >>> labels = pd.DataFrame({"cell_type": ["B", "T"]})
    >>> index = scgpt.ReferenceIndex.from_embeddings([[1.0, 0.0], [0.0, 1.0]], labels)
    >>> votes = index.vote(index.query([[0.2, 1.0]], k=2), "cell_type")
    >>> votes.categories, votes.probabilities.tolist()
    (('B', 'T'), [[0.5, 0.5]])
    """

    labels: NDArray[np.object_]
    confidence: NDArray[np.float32]
    probabilities: NDArray[np.float32]
    categories: tuple[str, ...]


def vote(
    codes: NDArray[np.integer], similarities: NDArray[np.floating], categories: tuple[str, ...], weights: Weights
) -> Votes:
    """Count the votes of neighbours.

    Parameters
    ----------
    codes
        ``(n, k)`` numbers of the neighbours' labels.
    similarities
        ``(n, k)`` cosines.
    categories
        The labels.
    weights
        ``"uniform"``: a vote each. ``"distance"``: one over the Euclidean distance of the unit vectors. Labels with
        equally many votes are told apart by their summed cosines, then by the order of categories.

    Raises
    ------
    ValueError
        When ``weights`` is neither.
    """
    check_weights(weights)
    each = similarities.astype(np.float64)
    distances = np.sqrt(np.maximum(2 - 2 * each, 0))
    weight = np.ones_like(each) if weights == "uniform" else 1 / np.maximum(distances, _LEAST_DISTANCE)
    votes = _sums(codes, weight, len(categories))
    votes /= votes.sum(axis=1, keepdims=True)
    cosines = _sums(codes, each, len(categories))
    best = votes.max(axis=1, keepdims=True)
    winners = np.where(votes >= best * (1 - 1e-9), cosines, -np.inf).argmax(axis=1)
    return Votes(
        labels=np.array(categories, dtype=object)[winners],
        confidence=np.take_along_axis(votes, winners[:, None], axis=1)[:, 0].astype(np.float32),
        probabilities=votes.astype(np.float32),
        categories=categories,
    )


def check_weights(weights: str) -> None:
    """Raise for a way to weigh votes that does not exist."""
    if weights not in ("uniform", "distance"):
        raise ValueError(f"weights must be 'uniform' or 'distance', not {weights!r}.")


def _sums(codes: NDArray[np.integer], values: NDArray[np.float64], n_categories: int) -> NDArray[np.float64]:
    """Sum values by category within each row."""
    n = len(codes)
    flat = (np.arange(n)[:, None] * n_categories + codes).ravel()
    return np.bincount(flat, weights=values.ravel(), minlength=n * n_categories).reshape(n, n_categories)
