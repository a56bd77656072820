from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

GENES = [f"G{i}" for i in range(40)]


def counts(n_cells: int, n_genes: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.poisson(rng.gamma(0.6, 2, (n_cells, n_genes))).astype(np.float32)


@pytest.fixture
def write(tmp_path) -> Callable[..., Path]:
    """Write an h5ad file of made-up counts; ``cells`` changes the matrix on its way."""

    def write(
        name: str,
        n_cells: int = 30,
        *,
        genes: Sequence[str] = GENES,
        seed: int = 0,
        matrix: np.ndarray | None = None,
        as_stored: Callable = sp.csr_matrix,
    ) -> Path:
        matrix = counts(n_cells, len(genes), seed) if matrix is None else matrix
        adata = anndata.AnnData(
            as_stored(matrix),
            obs=pd.DataFrame(index=[f"cell{i}" for i in range(len(matrix))]),
            var=pd.DataFrame(index=list(genes)),
        )
        path = tmp_path / name
        adata.write_zarr(path) if path.suffix == ".zarr" else adata.write_h5ad(path)
        return path

    return write


@pytest.fixture
def files(write) -> list[Path]:
    """Three files of different genes, 120 cells together."""
    return [
        write("a.h5ad", 50, genes=GENES[:30], seed=1),
        write("b.h5ad", 40, genes=GENES[::-1], seed=2),
        write("c.h5ad", 30, genes=GENES[10:], seed=3),
    ]
