"""Expression matrices in odd formats, of odd types, and with values that cannot be expression."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import dask.array as da
import numpy as np
import scipy.sparse as sp

Change = Callable[[np.random.Generator, sp.csr_matrix], Any]


def _with_value(value: float) -> Change:
    def change(rng: np.random.Generator, matrix: sp.csr_matrix) -> sp.csr_matrix:
        matrix.data[rng.integers(matrix.nnz)] = value
        return matrix

    return change


def _halved(rng: np.random.Generator, matrix: sp.csr_matrix) -> sp.csr_matrix:
    """Every value in two entries, the second one's column as far as the first one's."""
    indptr = matrix.indptr * 2
    return sp.csr_matrix((np.repeat(matrix.data / 2, 2), np.repeat(matrix.indices, 2), indptr), shape=matrix.shape)


def _unsorted(rng: np.random.Generator, matrix: sp.csr_matrix) -> sp.csr_matrix:
    rows = [rng.permutation(np.arange(*matrix.indptr[i : i + 2])) for i in range(matrix.shape[0])]
    order = np.concatenate(rows)
    return sp.csr_matrix((matrix.data[order], matrix.indices[order], matrix.indptr), shape=matrix.shape)


def _explicit_zeros(rng: np.random.Generator, matrix: sp.csr_matrix) -> sp.csr_matrix:
    dense = matrix.toarray()
    row, column = np.indices(dense.shape).reshape(2, -1)
    return sp.csr_matrix((dense.ravel(), column, np.arange(0, dense.size + 1, dense.shape[1])), shape=dense.shape)


def _broken(name: str, at: int, value: int) -> Change:
    def change(rng: np.random.Generator, matrix: sp.csr_matrix) -> sp.csr_matrix:
        getattr(matrix, name)[at] = value
        return matrix

    return change


def _columns_broken(rng: np.random.Generator, matrix: sp.csr_matrix) -> sp.csc_matrix:
    matrix = matrix.tocsc()
    matrix.indices[rng.integers(matrix.nnz)] = 10**6
    return matrix


def _read_only(rng: np.random.Generator, matrix: sp.csr_matrix) -> sp.csr_matrix:
    for array in (matrix.data, matrix.indices, matrix.indptr):
        array.flags.writeable = False
    return matrix


def _dense(dtype: Any, order: str = "C") -> Change:
    return lambda rng, matrix: np.asarray(matrix.toarray(), dtype=dtype, order=order)


def _chunked(rng: np.random.Generator, matrix: sp.csr_matrix) -> da.Array:
    dense = matrix if rng.random() < 0.5 else matrix.toarray()
    return da.from_array(dense, chunks=(int(rng.integers(1, 30)), matrix.shape[1]))


# The same values, written in another way.
SAME: dict[str, Change] = {
    **{f"sparse {kind}": lambda rng, m, kind=kind: m.asformat(kind) for kind in ("csc", "coo", "lil", "dok", "dia", "bsr")},
    "csr array": lambda rng, m: sp.csr_array(m),
    "csc array": lambda rng, m: sp.csc_array(m),
    "values in halves": _halved,
    "unsorted columns": _unsorted,
    "explicit zeros": _explicit_zeros,
    "read-only": _read_only,
    "read-only dense": lambda rng, m: np.broadcast_to(m.toarray(), m.shape),
    "dask": _chunked,
    "Fortran order": _dense(np.float32, "F"),
    "matrix": lambda rng, m: np.matrix(m.toarray()),
    "masked array": lambda rng, m: np.ma.masked_array(m.toarray()),
    **{f"dense {dtype}": _dense(dtype) for dtype in ("f2", "f8", ">f4", "g", "i1", "u8", "i8", "O")},
    **{f"sparse {dtype}": lambda rng, m, dtype=dtype: m.astype(dtype) for dtype in ("f8", "i2", "u1", "i8", "g")},
    "64-bit columns": lambda rng, m: sp.csr_matrix((m.data, m.indices.astype("i8"), m.indptr.astype("i8")), m.shape),
}  # fmt: skip

# Other values, which are expression or are not.
OTHER: dict[str, Change] = {
    **{f"value {value}": _with_value(value) for value in (np.nan, np.inf, -np.inf, -1.0, -1e-30, 1e38, 1e-45)},
    "dense NaN": lambda rng, m: np.where(rng.random(m.shape) < 0.1, np.nan, m.toarray()),
    "scaled": lambda rng, m: m.toarray() - m.toarray().mean(0),
    "bool": lambda rng, m: m.astype(bool),
    "dense bool": _dense(bool),
    "complex": lambda rng, m: m.astype(complex),
    "dense complex": _dense(complex),
    "text": lambda rng, m: m.toarray().astype("U8"),
    "objects": lambda rng, m: np.where(rng.random(m.shape) < 0.1, None, m.toarray().astype(object)),
    "words": lambda rng, m: np.full(m.shape, "a", object),
    "dates": lambda rng, m: m.toarray().astype("i8").astype("M8[s]"),
    "zeros": lambda rng, m: sp.csr_matrix(m.shape, dtype=np.float32),
    "dense zeros": lambda rng, m: np.zeros(m.shape, np.float32),
    "empty cells": lambda rng, m: sp.csr_matrix(m.multiply((rng.random((m.shape[0], 1)) < 0.5).astype("f4"))),
    "one huge column": lambda rng, m: sp.csr_matrix(m.toarray() * np.where(np.arange(m.shape[1]) == 3, 1e30, 1)),
    "sums beyond float32": lambda rng, m: sp.csr_matrix(m.toarray().astype("f8") * 1e300),
    "column out of range": _broken("indices", 5, 10**6),
    "column of -1": _broken("indices", 5, -1),
    "column one too far": _broken("indices", -1, 30),
    "row that ends before it begins": _broken("indptr", 3, 10**6),
    "row that begins before all": _broken("indptr", 0, -5),
    "last row too long": _broken("indptr", -1, 10**9),
    "columns of CSC out of range": _columns_broken,
}
