"""Expression matrices of any kind, and batches of tokens."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import anndata
import numpy as np
import pandas as pd
import scipy.sparse as sp
import torch
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from scgpt.data import GeneVocab, TokenBatch

VOCAB = GeneVocab.from_genes(f"G{i}" for i in range(24))
STRANGERS = [f"X{i}" for i in range(4)]

DTYPES = [np.dtype(kind) for kind in ("bool", "i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "f2", "f4", "f8")]


def as_csr(dense: NDArray[Any], kind: type = sp.csr_matrix) -> Any:
    """Return CSR of the type of ``dense``, which scipy makes of no float16."""
    cells, genes = np.nonzero(dense)
    indptr = np.searchsorted(cells, np.arange(len(dense) + 1))
    return kind((dense[cells, genes], genes, indptr), shape=dense.shape)


def as_csc(dense: NDArray[Any]) -> sp.csc_matrix:
    csr = as_csr(dense.T)
    return sp.csc_matrix((csr.data, csr.indices, csr.indptr), shape=dense.shape)


def disordered(dense: NDArray[Any]) -> sp.csr_matrix:
    """Return CSR with the columns of each row backwards and a zero written out where there is one."""
    rows = [[*np.flatnonzero(row)[::-1], *np.flatnonzero(row == 0)[:1]] for row in dense]
    indices = np.array([column for row in rows for column in row], np.int32)
    cells = np.repeat(np.arange(len(rows)), [len(row) for row in rows])
    indptr = np.cumsum([0, *map(len, rows)])
    return sp.csr_matrix((dense[cells, indices], indices, indptr), shape=dense.shape)


FORMS: dict[str, Callable[[NDArray[Any]], Any]] = {
    "dense": np.ascontiguousarray,
    "dense, Fortran order": np.asfortranarray,
    "CSR": as_csr,
    "CSR array": lambda dense: as_csr(dense, sp.csr_array),
    "CSR, disordered": disordered,
    "CSC": as_csc,
}


@dataclass(frozen=True)
class Expression:
    """Cells by genes as they are given, and what they are: ``dense`` in float32."""

    genes: list[str]
    dense: NDArray[np.float32]
    given: Any

    @property
    def known(self) -> NDArray[np.bool_]:
        return np.array([gene in VOCAB for gene in self.genes])

    def adata(self, matrix: Any = None) -> anndata.AnnData:
        return to_adata(self.given if matrix is None else matrix, self.genes)

    def __repr__(self) -> str:
        return f"Expression({self.genes}, {self.dense.tolist()}, {type(self.given).__name__} of {self.given.dtype})"


def to_adata(matrix: Any, genes: list[str]) -> anndata.AnnData:
    obs = pd.DataFrame(index=[f"cell{i}" for i in range(matrix.shape[0])])
    return anndata.AnnData(matrix, obs=obs, var=pd.DataFrame(index=genes))


def values_of(dtype: np.dtype) -> st.SearchStrategy:
    """Expression above 0: small counts, and all that a type holds and float32 does, too."""
    if dtype.kind == "b":
        return st.just(True)
    if dtype.kind == "f":
        real = st.floats(2.0**-14, 2.0**15, width=min(8 * dtype.itemsize, 32))
        return st.one_of(st.integers(1, 5).map(float), real)
    return st.one_of(st.integers(1, 5), st.integers(1, min(int(np.iinfo(dtype).max), 2**24)))


@st.composite
def expressions(draw: st.DrawFn, max_cells: int = 6) -> Expression:
    """Cells by known and unknown genes in any order, at least one known, in any form and type."""
    known = draw(st.lists(st.sampled_from(VOCAB.genes), unique=True, min_size=1))
    unknown = draw(st.lists(st.sampled_from(STRANGERS), unique=True))
    genes = draw(st.permutations([*known, *unknown]))
    dtype, form = draw(st.sampled_from(DTYPES)), draw(st.sampled_from(sorted(FORMS)))
    shape = (draw(st.integers(1, max_cells)), len(genes))
    expressed = draw(arrays(bool, shape))
    values = draw(arrays(dtype, shape, elements=values_of(dtype)))
    exact = np.where(expressed, values, np.zeros((), dtype))
    return Expression(genes, exact.astype(np.float32), FORMS[form](exact))


@st.composite
def token_batches(draw: st.DrawFn, max_cells: int = 6, max_genes: int = 12) -> TokenBatch:
    """Cells of any number of genes, ``<cls>`` first, with any of the optional fields."""
    n_genes = draw(st.lists(st.integers(0, max_genes), min_size=1, max_size=max_cells))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    n_cells, lengths = len(n_genes), np.array(n_genes) + 1
    n_tokens = int(lengths.sum())
    genes = np.concatenate([[VOCAB.cls_id, *rng.permutation(len(VOCAB.genes))[:n]] for n in n_genes])
    cells = rng.permutation(1000)[:n_cells]
    fields: dict[str, NDArray[Any]] = {
        "condition_ids": rng.integers(0, 3, (n_tokens, 2)),
        "modality_ids": np.where(genes == VOCAB.cls_id, 0, rng.integers(1, 4, n_tokens)),
        "unknown": rng.random(n_tokens) < 0.3,
        "targets": rng.random(n_tokens).astype(np.float32),
        "predict": rng.random(n_tokens) < 0.3,
        "batch_labels": rng.integers(0, 3, n_cells),
        "labels": rng.integers(0, 3, n_cells),
        "measured": np.arange(5),
        "levels": rng.random((n_cells, 5)).astype(np.float32),
        "measured_modality_ids": rng.integers(1, 3, 5),
    }
    chosen = draw(st.sets(st.sampled_from(sorted(fields))))
    return TokenBatch(
        gene_ids=torch.from_numpy(genes.astype(np.int64)),
        values=torch.from_numpy(rng.integers(0, 51, n_tokens).astype(np.float32)),
        offsets=torch.from_numpy(np.append(0, lengths.cumsum())),
        cell_index=torch.from_numpy(cells),
        **{name: torch.from_numpy(fields[name]) for name in chosen},
    )
