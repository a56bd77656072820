"""What every way to keep vectors has in common: unit length, and reading them in portions."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Protocol, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

type Vectors = NDArray[np.float32]

# Rows that are read, checked and added at a time: 32 MB at 512 dimensions.
PORTION = 16_384


class Store(Protocol):
    """Unit vectors, numbered in the order in which they came."""

    file: str

    def __len__(self) -> int: ...

    @property
    def n_dims(self) -> int: ...

    @property
    def nbytes(self) -> int: ...

    def add(self, vectors: Vectors) -> None: ...

    def search(self, queries: Vectors, k: int, n_probes: int) -> tuple[NDArray[np.int64], Vectors]: ...

    def save(self, folder: Path) -> None: ...

    @classmethod
    def load(cls, folder: Path) -> Self: ...


def unit(vectors: ArrayLike, n_dims: int | None = None, first_row: int = 0) -> Vectors:
    """Return rows as float32 of length 1.

    Parameters
    ----------
    vectors
        ``(n, n_dims)`` numbers.
    n_dims
        How many columns they must have; any number by default.
    first_row
        Number of the first row in messages.

    Raises
    ------
    ValueError
        When they are not a matrix of that width, or a row has no direction: it is zero, NaN or infinite.
    """
    array = np.asarray(vectors)
    if array.ndim != 2 or not array.shape[1] or array.dtype.kind not in "fiu":
        raise ValueError(
            f"Embeddings must be a numeric matrix of cells by dimensions, not {array.dtype} of shape {array.shape}."
        )
    if n_dims is not None and array.shape[1] != n_dims:
        raise ValueError(
            f"The embeddings have {array.shape[1]} dimensions and the reference {n_dims}: embed both with one model."
        )
    # In double precision: single precision does not hold the squares of all that it holds.
    lengths = np.sqrt(np.einsum("ij,ij->i", array, array, dtype=np.float64))[:, None]
    wrong = ~(np.isfinite(lengths) & (lengths > 0))[:, 0]
    if wrong.any():
        rows = (np.flatnonzero(wrong)[:5] + first_row).tolist()
        raise ValueError(f"{int(wrong.sum())} embeddings are zero, NaN or infinite, such as rows {rows}; drop them.")
    return np.divide(array, lengths, out=np.empty(array.shape, np.float32), casting="same_kind")


def portions(n: int) -> Iterator[slice]:
    """Cut rows into portions."""
    return (slice(start, min(start + PORTION, n)) for start in range(0, n, PORTION))
