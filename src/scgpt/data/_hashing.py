"""Random numbers that are a function of what they are for.

A generator's stream depends on how often it was asked; a hash of (seed, cell, gene) does not. That makes masks and
ties the same in any order of cells, batch size and number of workers, and after a restart.
"""

from __future__ import annotations

import zlib

import numba
import numpy as np
from numpy.typing import NDArray

_GAMMA = np.uint64(0x9E3779B97F4A7C15)
_M1, _M2 = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
_S30, _S27, _S31, _S11 = np.uint64(30), np.uint64(27), np.uint64(31), np.uint64(11)
_UNIT = 2.0**-53


@numba.njit(inline="always")
def mix(x):
    """Scramble a uint64 (the finaliser of splitmix64, Steele et al. 2014)."""
    x = np.uint64(x) + _GAMMA
    x = (x ^ (x >> _S30)) * _M1
    x = (x ^ (x >> _S27)) * _M2
    return x ^ (x >> _S31)


@numba.njit(inline="always")
def uniform(key, cell, gene):
    """A float64 in [0, 1) for a key, a cell and a gene."""
    bits = mix(mix(np.uint64(key) ^ mix(np.uint64(cell))) ^ np.uint64(gene))
    return (bits >> _S11) * _UNIT


@numba.njit(cache=True)
def _mix_all(ids):
    out = np.empty(len(ids), np.uint64)
    for i in range(len(ids)):
        out[i] = mix(ids[i])
    return out


@numba.njit(parallel=True, cache=True)
def _uniform_all(key, cells, genes):
    out = np.empty(len(cells))
    for i in numba.prange(len(cells)):
        out[i] = uniform(key, cells[i], genes[i])
    return out


def hash_ids(ids: NDArray[np.int64]) -> NDArray[np.uint64]:
    """Return a fixed, evenly spread uint64 for each id."""
    return _mix_all(np.ascontiguousarray(ids, dtype=np.int64))


def uniform_of(key: int, cells: NDArray[np.int64], genes: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return a number in [0, 1) for each pair of a cell and a gene."""
    return _uniform_all(np.uint64(key), cells, genes)


def derive_key(seed: int, purpose: str, *parts: int) -> int:
    """Combine a seed, a purpose, and whole numbers of at least 0 (epoch, step, ...) into one 64-bit key."""
    entropy = (seed, zlib.crc32(purpose.encode()), *parts)
    return int(np.random.SeedSequence(entropy).generate_state(1, np.uint64)[0])
