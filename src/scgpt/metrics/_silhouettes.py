"""Silhouette widths of cells, for labels and for batches within labels, from one pass over all distances."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_TILE = 1024


def silhouettes(
    embedding: NDArray[np.float64], labels: NDArray[np.intp], batches: NDArray[np.intp] | None = None
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the silhouette of each cell's label, and of its batch among the cells of its label.

    As :func:`sklearn.metrics.silhouette_samples` (Euclidean) on all cells, and on the cells of each label. The second
    is NaN for labels where it is undefined: of a single batch, or with no two cells of one batch.

    Parameters
    ----------
    embedding
        ``(n_obs, n_dims)``.
    labels
        ``(n_obs,)`` codes ``0 .. n_labels - 1``, each with a cell.
    batches
        ``(n_obs,)`` codes of batches; without them the second result is NaN throughout.
    """
    n_batches = 1 if batches is None else int(batches.max()) + 1
    pairs = labels if batches is None else labels * n_batches + batches
    present, groups, sizes = np.unique(pairs, return_inverse=True, return_counts=True)
    label_of_group = present // n_batches
    sums = summed_distances(embedding, groups)

    # np.unique sorts, so the groups of a label stand together.
    starts = np.flatnonzero(np.diff(label_of_group, prepend=-1))
    of_label = _silhouette(np.add.reduceat(sums, starts, axis=1), labels, np.add.reduceat(sizes, starts))

    of_batch = np.full(len(labels), np.nan)
    for label, (start, stop) in enumerate(zip(starts, np.append(starts[1:], len(present)), strict=True)):
        cells = np.flatnonzero(labels == label)
        if 1 < stop - start < len(cells):
            of_batch[cells] = _silhouette(sums[cells, start:stop], groups[cells] - start, sizes[start:stop])
    return of_label, of_batch


def summed_distances(embedding: NDArray[np.float64], groups: NDArray[np.intp]) -> NDArray[np.float64]:
    """Return ``(n_obs, n_groups)`` sums of each cell's Euclidean distances to the cells of each group."""
    order = np.argsort(groups, kind="stable")
    groups = groups[order]
    x_ND = (embedding - embedding.mean(0))[order]  # centred: less is lost in the differences of squares
    n = len(x_ND)
    squares, ones = np.square(x_ND).sum(1), np.ones(n)
    left = np.column_stack([x_ND, squares, ones])
    right = np.column_stack([-2 * x_ND, ones, squares])
    sums = np.zeros((n, int(groups[-1]) + 1))
    # Tiles stay in the processor's cache, and each serves its own rows and, mirrored, its columns.
    tiles = [slice(start, min(start + _TILE, n)) for start in range(0, n, _TILE)]
    firsts = [np.flatnonzero(np.diff(groups[tile], prepend=-1)) for tile in tiles]
    for i, rows in enumerate(tiles):
        for j, columns in enumerate(tiles[: i + 1]):
            distances = left[rows] @ right[columns].T
            np.maximum(distances, 0, out=distances)
            np.sqrt(distances, out=distances)
            if i == j:
                np.fill_diagonal(distances, 0)
            else:
                sums[columns, groups[rows][firsts[i]]] += np.add.reduceat(distances, firsts[i], axis=0).T
            sums[rows, groups[columns][firsts[j]]] += np.add.reduceat(distances, firsts[j], axis=1)
    out = np.empty_like(sums)
    out[order] = sums
    return out


def _silhouette(sums: NDArray[np.float64], own: NDArray[np.intp], sizes: NDArray[np.intp]) -> NDArray[np.float64]:
    """Return silhouettes from summed distances to each group, 0 where a cell is alone in its own."""
    rows = np.arange(len(sums))
    alone = sizes[own] == 1
    within = sums[rows, own] / np.where(alone, 1, sizes[own] - 1)
    means = sums / sizes
    means[rows, own] = np.inf
    between = means.min(1)
    largest = np.maximum(within, between)
    return np.where(alone | (largest == 0), 0.0, (between - within) / np.where(largest == 0, 1, largest))
