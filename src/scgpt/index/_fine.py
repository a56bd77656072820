"""What coding at a byte a dimension lost, in four bits more: read for a few candidates of each query alone."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ._vectors import Vectors

type FineCodes = NDArray[np.uint8]
"""``(n, ceil(n_dims / 2))``: two dimensions in a byte, the even one in its lower half."""

_LEVELS = 16
# Candidates whose errors are decoded at a time: 64 MB at 512 dimensions.
_CANDIDATES_AT_ONCE = 32_768


def steps_of(index: Any) -> Vectors:
    """Return the width of a code's step in each dimension, ``(n_dims,)``."""
    import faiss

    return faiss.vector_to_array(index.sq.trained)[index.d :] / 255


def encode(index: Any, vectors: Vectors) -> FineCodes:
    """Code by how much the index's codes are beside the vectors, which is half a step at most."""
    errors = vectors - index.sa_decode(index.sa_encode(vectors))
    levels = np.floor((errors / np.maximum(steps_of(index), 1e-30) + 0.5) * _LEVELS)
    codes = np.clip(levels, 0, _LEVELS - 1).astype(np.uint8)
    if codes.shape[1] % 2:
        codes = np.pad(codes, ((0, 0), (0, 1)))
    return codes[:, ::2] | codes[:, 1::2] << 4


def decode(codes: FineCodes, steps: Vectors) -> Vectors:
    """Return the errors, ``(..., n_dims)``."""
    levels = np.stack([codes & 15, codes >> 4], axis=-1).reshape(*codes.shape[:-1], -1)[..., : len(steps)]
    shares = (levels.astype(np.float32) + np.float32(0.5)) / np.float32(_LEVELS) - np.float32(0.5)
    return shares * steps


def rerank(
    codes: FineCodes, steps: Vectors, queries: Vectors, rows: NDArray[np.int64], cosines: Vectors, k: int
) -> tuple[NDArray[np.int64], Vectors]:
    """Correct the cosines of candidates, ``(n, m)``, and return the ``k`` best of each query, nearest first."""
    cosines = cosines.copy()
    at_once = max(1, _CANDIDATES_AT_ONCE // rows.shape[1])
    for start in range(0, len(rows), at_once):
        part = slice(start, start + at_once)
        errors = decode(codes[np.maximum(rows[part], 0)], steps)
        cosines[part] += np.matmul(errors, queries[part, :, None])[..., 0]
    cosines[rows < 0] = -np.inf  # no candidate
    best = np.argsort(-cosines, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(rows, best, axis=1), np.take_along_axis(cosines, best, axis=1)
