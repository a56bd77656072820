"""Principal components, fitted on some of the cells."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from scgpt.metrics._columns import codes_of

from ._cells import log_values, variable_genes

if TYPE_CHECKING:
    from anndata import AnnData


def principal_components(
    adata: AnnData,
    layer: str | None,
    normalize: bool,
    batch_key: str | None,
    n_top_genes: int | None,
    n_comps: int,
    mask: NDArray[np.bool_],
    seed: int,
) -> tuple[NDArray[np.float32], int]:
    """Return principal components of all cells, fitted on some, and the number of genes that they are made of."""
    from sklearn.decomposition import PCA

    values = log_values(adata, layer, normalize)
    batches = None if batch_key is None else codes_of(adata, batch_key, "batch")[mask]
    genes = variable_genes(values[mask], n_top_genes, batches)
    values = values[:, genes]
    fitted = values[mask]
    if n_comps < 1:
        raise ValueError(f"n_comps has to be at least 1, and is {n_comps}.")
    if min(fitted.shape) < 2:
        raise ValueError(f"Principal components need two cells and two genes, and there are {fitted.shape}.")
    model = PCA(min(n_comps, *(n - 1 for n in fitted.shape)), svd_solver="arpack", random_state=seed)
    model.fit(fitted)
    return model.transform(values).astype(np.float32), int(genes.sum())
