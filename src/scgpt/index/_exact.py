"""Vectors kept as they are and compared with every query: for references that are small."""

from __future__ import annotations

from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from ._vectors import Vectors

# Similarities that are held at a time: 64 MB.
_CELLS_OF_TABLE = 16_000_000


class ExactStore:
    """Exact search.

    Parameters
    ----------
    vectors
        ``(n, n_dims)`` float32 of length 1.
    """

    file = "vectors.npy"

    def __init__(self, vectors: Vectors):
        self.vectors = vectors

    def __len__(self) -> int:
        return len(self.vectors)

    @property
    def n_dims(self) -> int:
        """Width of the vectors."""
        return self.vectors.shape[1]

    @property
    def nbytes(self) -> int:
        """Size of the vectors in bytes."""
        return self.vectors.nbytes

    def add(self, vectors: Vectors) -> None:
        """Append vectors."""
        self.vectors = np.concatenate([self.vectors, vectors])

    def search(self, queries: Vectors, k: int, n_probes: int) -> tuple[NDArray[np.int64], Vectors]:
        """Return rows and cosines of the nearest vectors, nearest first; of equals the first."""
        rows = np.empty((len(queries), k), np.int64)
        cosines = np.empty((len(queries), k), np.float32)
        step = max(1, _CELLS_OF_TABLE // len(self))
        for start in range(0, len(queries), step):
            part = slice(start, start + step)
            table = queries[part] @ self.vectors.T
            near = np.argpartition(table, len(self) - k, axis=1)[:, len(self) - k :]
            near.sort(axis=1)
            _take_first_of_equals(table, near)
            values = np.take_along_axis(table, near, axis=1)
            order = np.argsort(-values, axis=1, kind="stable")
            rows[part] = np.take_along_axis(near, order, axis=1)
            cosines[part] = np.take_along_axis(values, order, axis=1)
        return rows, np.clip(cosines, -1, 1, out=cosines)

    def save(self, folder: Path) -> None:
        """Write the vectors into a folder."""
        np.save(folder / self.file, self.vectors, allow_pickle=False)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Map the vectors in a folder into memory."""
        return cls(np.load(folder / cls.file, mmap_mode="r", allow_pickle=False))


def _take_first_of_equals(table: Vectors, near: NDArray[np.int64]) -> None:
    """Put the first of those in, where more than ``k`` are as near as the last of the ``k`` nearest."""
    farthest = np.take_along_axis(table, near, axis=1).min(axis=1, keepdims=True)
    k = near.shape[1]
    for query in np.flatnonzero((table >= farthest).sum(axis=1) > k):
        nearer = np.flatnonzero(table[query] > farthest[query])
        equal = np.flatnonzero(table[query] == farthest[query])
        near[query] = np.sort(np.concatenate([nearer, equal[: k - len(nearer)]]))
