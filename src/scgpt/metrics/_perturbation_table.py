"""The scores of each perturbation, from what was observed and what was predicted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ._nearness import centroid_accuracies, discrimination
from ._profiles import Profiles, correlation
from ._significance import welch_t

_N_EXPRESSED = 1000
COUNTS = ("n_cells", "n_significant")
"""Columns that are no scores."""


@dataclass(frozen=True)
class Centroids:
    """Observed mean profiles that a prediction may lie near.

    Parameters
    ----------
    mean
        ``(n_centroids, n_genes)``.
    own
        ``(n,)``, which of them is that of each perturbation.
    """

    mean: NDArray[np.float64]
    own: NDArray[np.intp]


def score_table(
    observed: Profiles, predicted: Profiles, centroids: Centroids, targets: list[NDArray[np.intp]], n_top: int
) -> Mapping[str, NDArray[np.float64]]:
    """Score predictions, as :func:`~scgpt.metrics.perturbation_scores` tells.

    Parameters
    ----------
    observed
        Perturbations.
    predicted
        The same ones.
    centroids
        Of the observed ones, and of others that were observed.
    targets
        Columns of the genes that each perturbation perturbs.
    n_top
        Number of genes that differ most.

    Returns
    -------
    For each score ``(n,)`` values, NaN where it is undefined.
    """
    change, guess = observed.changes, predicted.changes
    from_centre, guess_from_centre = observed.changes_from_centre, predicted.changes_from_centre
    top, kept = _top_genes(observed, n_top)
    expressed = np.argsort(-observed.control.mean[0], kind="stable")[:_N_EXPRESSED]
    error = guess - change
    distance = predicted.cells.mean[:, expressed] - observed.cells.mean[:, expressed]
    near = discrimination(guess, change, targets)
    numbers = observed.significant.sum(1)
    right = ((np.sign(change) == np.sign(guess)) & observed.significant).sum(1)
    return {
        "n_cells": observed.cells.n_cells,
        "n_significant": np.where(observed.testable, numbers, np.nan),
        "pearson": _correlations(observed.cells.mean, predicted.cells.mean),
        "pearson_delta": _correlations(change, guess),
        f"pearson_delta_top{n_top}": _correlations(change, guess, top),
        f"pearson_delta_top{n_top}_nondropout": _correlations(change, guess, kept),
        "pearson_centroid_delta": _correlations(from_centre, guess_from_centre),
        f"pearson_centroid_delta_top{n_top}": _correlations(from_centre, guess_from_centre, kept),
        "mse_delta": np.square(error).mean(1),
        "mae_delta": np.abs(error).mean(1),
        f"l2_top{_N_EXPRESSED}": np.linalg.norm(distance, axis=1),
        "centroid_accuracy": centroid_accuracies(predicted.cells.mean, centroids.mean, centroids.own),
        **{f"discrimination_{name}": values for name, values in near.items()},
        "direction_match": _share(right, numbers),
        "delta_overlap_at_N": _share(_common_changes(change, guess, numbers), numbers),
        "overlap_at_N": np.where(
            predicted.testable, _share(_common_significant(observed, predicted, numbers), numbers), np.nan
        ),
    }


def _top_genes(observed: Profiles, n_top: int) -> tuple[list[NDArray[np.intp]], list[NDArray[np.intp]]]:
    """Return the genes that differ most, and those among them that are no dropout; none where they cannot be told."""
    t = np.abs(welch_t(observed.cells, observed.control))
    # Expressed under a perturbation, or neither there nor in control.
    no_dropout = (observed.cells.mean != 0) | (observed.control.mean == 0)
    top, kept = [], []
    for row, keep, testable in zip(t, no_dropout, observed.testable, strict=True):
        ranked = np.argsort(-row, kind="stable") if testable else np.array([], dtype=np.intp)
        top.append(ranked[:n_top])
        kept.append(ranked[keep[ranked]][:n_top])
    return top, kept


def _correlations(
    first: NDArray[np.float64], second: NDArray[np.float64], genes: list[NDArray[np.intp]] | None = None
) -> NDArray[np.float64]:
    rows = range(len(first))
    if genes is None:
        return np.array([correlation(first[i], second[i]) for i in rows])
    return np.array([correlation(first[i, genes[i]], second[i, genes[i]]) for i in rows])


def _common_changes(
    change: NDArray[np.float64], guess: NDArray[np.float64], numbers: NDArray[np.int_]
) -> NDArray[np.int_]:
    """Return how many of the largest changes are the same; of no change none are the largest."""
    largest = [(_largest(row, n), _largest(other, n)) for row, other, n in zip(change, guess, numbers, strict=True)]
    common = [len(np.intersect1d(*pair)) if other.any() else 0 for pair, other in zip(largest, guess, strict=True)]
    return np.array(common)


def _common_significant(observed: Profiles, predicted: Profiles, numbers: NDArray[np.int_]) -> NDArray[np.int_]:
    """Return how many significant genes are among as many predicted ones, by the fold change that cell-eval takes."""
    with np.errstate(all="ignore"):
        folds = np.log2(np.expm1(predicted.cells.mean) / np.expm1(predicted.control.mean))
    folds = np.where(predicted.significant, np.nan_to_num(folds, nan=0.0, posinf=np.inf, neginf=-np.inf), 0)
    found = [
        _largest(row, min(n, among.sum())) for row, n, among in zip(folds, numbers, predicted.significant, strict=True)
    ]
    return np.array([of[genes].sum() for of, genes in zip(observed.significant, found, strict=True)])


def _largest(values: NDArray[np.float64], n: int) -> NDArray[np.intp]:
    """Return where the largest absolute values are, the first ones of equal ones."""
    return np.argsort(-np.abs(values), kind="stable")[:n]


def _share(part: NDArray[np.int_], whole: NDArray[np.int_]) -> NDArray[np.float64]:
    return np.divide(part, whole, out=np.full(len(whole), np.nan), where=whole > 0)
