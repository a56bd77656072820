"""What every baseline reads: the matrix, the cells to learn from, and the genes that vary."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from scgpt.metrics._matrix import Matrix, in_memory

if TYPE_CHECKING:
    from anndata import AnnData

Cells = NDArray[np.bool_] | Iterable[str]
"""Some of the cells: a mask over all, or names."""


def matrix_of(adata: AnnData, layer: str | None) -> Matrix:
    """Return a float32 copy of a layer, or of ``.X``, in memory.

    Raises
    ------
    ValueError
        When values are NaN or infinite.
    """
    matrix = in_memory(adata, layer).astype(np.float32, copy=True)
    if not np.isfinite(_values_in(matrix)).all():
        raise ValueError("There are NaN or infinite values in the cells.")
    return matrix


def counts_of(adata: AnnData, layer: str | None, remedy: str) -> Matrix:
    """Return a copy of a layer or ``.X`` that has to hold counts."""
    matrix = matrix_of(adata, layer)
    values = _values_in(matrix)
    if (values < 0).any() or not np.array_equal(values, np.rint(values)):
        where = "`.X`" if layer is None else f"Layer {layer!r}"
        raise ValueError(f"{where} does not hold counts: {remedy}.")
    return matrix


def _values_in(matrix: Matrix) -> NDArray[np.float32]:
    return np.asarray(matrix if isinstance(matrix, np.ndarray) else matrix.data)


def log_normalized(counts: Matrix) -> Matrix:
    """Return ``log(1 + counts)`` after the counts of each cell have been scaled to 10,000.

    As :func:`scanpy.pp.normalize_total` and :func:`scanpy.pp.log1p`, without the seconds that compiling them takes.
    """
    totals = np.asarray(counts.sum(axis=1, dtype=np.float64)).ravel()
    factors = np.divide(1e4, totals, out=np.zeros_like(totals), where=totals > 0).astype(np.float32)
    if isinstance(counts, np.ndarray):
        return np.log1p(counts * factors[:, None])
    out = counts.copy()
    out.data = np.log1p(out.data * np.repeat(factors, np.diff(out.indptr)))
    return out


def log_values(adata: AnnData, layer: str | None, normalize: bool) -> Matrix:
    """Return log-normalised values: of a layer or ``.X`` that holds counts, or that holds them already."""
    if not normalize:
        return matrix_of(adata, layer)
    remedy = "pass the layer that does, or normalize=False if it is log-normalised"
    return log_normalized(counts_of(adata, layer, remedy))


def training_cells(adata: AnnData, train: Cells | None) -> NDArray[np.bool_]:
    """Return a mask of the cells to learn from: all by default."""
    import pandas as pd

    if train is None:
        return np.ones(adata.n_obs, dtype=np.bool_)
    names = pd.Series(train if hasattr(train, "__len__") else list(train))
    if pd.api.types.is_bool_dtype(names):
        mask = names.to_numpy(dtype=np.bool_)
        if len(mask) != adata.n_obs:
            raise ValueError(f"train has {len(mask)} entries for {adata.n_obs} cells.")
    else:
        if unknown := int((~names.isin(adata.obs_names)).sum()):
            raise KeyError(f"{unknown} of {len(names)} names in train are not among the names of the cells.")
        mask = adata.obs_names.isin(names)
    if not mask.any():
        raise ValueError("train holds no cell.")
    return mask


def variable_genes(
    log_values: Matrix, n_top_genes: int | None, batches: NDArray[np.intp] | None = None
) -> NDArray[np.bool_]:
    """Return a mask of the most variable genes, by scanpy's default flavour; all of them for None.

    Given batches, genes are ranked within each and those that vary in most batches are taken.
    """
    import anndata as ad
    import pandas as pd
    import scanpy as sc

    if n_top_genes is not None and n_top_genes < 1:
        raise ValueError(f"n_top_genes has to be at least 1, or None for all genes, and is {n_top_genes}.")
    if n_top_genes is None or n_top_genes >= log_values.shape[1]:
        return np.ones(log_values.shape[1], dtype=np.bool_)
    data = ad.AnnData(log_values)
    if batches is not None:
        data.obs["batch"] = pd.Categorical(batches)
    table = sc.pp.highly_variable_genes(
        data, n_top_genes=n_top_genes, batch_key=None if batches is None else "batch", inplace=False
    )
    return table["highly_variable"].to_numpy(dtype=np.bool_)
