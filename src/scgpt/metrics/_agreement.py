"""How far clusters and labels agree, from their contingency table, whose counts may be weights."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Table = NDArray[np.float64]


def normalized_mutual_information(table: Table) -> float:
    """Return the mutual information over the arithmetic mean of both entropies, as scikit-learn does."""
    joint = table / table.sum()
    entropies = _entropy(joint.sum(0)), _entropy(joint.sum(1))
    if sum(entropies) == 0:
        return 1.0
    mutual = sum(entropies) - _entropy(joint)
    return float(np.clip(2 * mutual / sum(entropies), 0, 1))


def adjusted_rand_index(table: Table) -> float:
    """Return the Rand index adjusted for chance, as scikit-learn does."""

    def pairs(counts: NDArray[np.float64]) -> float:
        return float((counts * (counts - 1)).sum() / 2)

    both, clusters, labels = pairs(table), pairs(table.sum(0)), pairs(table.sum(1))
    expected = clusters * labels / pairs(table.sum(keepdims=True))
    largest = (clusters + labels) / 2
    return 1.0 if largest == expected else (both - expected) / (largest - expected)


def _entropy(shares: NDArray[np.float64]) -> float:
    shares = shares[shares > 0]
    return float(-(shares * np.log(shares)).sum())
