"""Random numbers that are a function of what they are for.

A generator's stream depends on how often it was asked; a hash of (seed, cell, gene) does not. That makes masks and
ties the same in any order of cells, batch size and number of workers, and after a restart.
"""

from __future__ import annotations

import zlib

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from ._kernels import mix_all, profiles, uniform_all


def hash_ids(ids: NDArray[np.int64]) -> NDArray[np.uint64]:
    """Return a fixed, evenly spread uint64 for each id."""
    return mix_all(np.ascontiguousarray(ids, dtype=np.int64))


def uniform_of(key: int, cells: NDArray[np.int64], genes: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return a number in [0, 1) for each pair of a cell and a gene."""
    return uniform_all(np.uint64(key), cells, genes)


def profiles_of(rows: sp.csr_matrix) -> NDArray[np.uint64]:
    """Return a hash of each cell, equal where cells express the same genes in the same order of expression.

    Parameters
    ----------
    rows
        ``(n_cells, n_genes)`` float32 without stored zeros.
    """
    return profiles(rows.indptr.astype(np.int64), rows.indices.astype(np.int32), rows.data)


def check_seed(seed: int) -> None:
    """Raise for what is no seed.

    Raises
    ------
    ValueError
        When it is no whole number of at least 0 that 64 bits hold.
    """
    if not isinstance(seed, int | np.integer) or not 0 <= seed < 2**64:
        raise ValueError(f"seed must be a whole number of at least 0, of 64 bits at most, not {seed!r:.50}.")


def derive_key(seed: int, purpose: str, *parts: int) -> int:
    """Combine a seed, a purpose, and whole numbers of at least 0 (epoch, step, ...) into one 64-bit key."""
    check_seed(seed)
    # Their count is part of it: SeedSequence takes (2,) and (2, 0) for the same.
    entropy = (seed, zlib.crc32(purpose.encode()), len(parts), *parts)
    return int(np.random.SeedSequence(entropy).generate_state(1, np.uint64)[0])
