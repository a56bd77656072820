"""The matrix of an AnnData, wherever it keeps it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import scipy.sparse as sp
    from anndata import AnnData

type Matrix = NDArray[Any] | sp.csr_array | sp.csr_matrix


def in_memory(adata: AnnData, layer: str | None) -> Matrix:
    """Return a layer, or ``.X``, as dense or CSR; it is not copied where it is one already.

    Raises
    ------
    KeyError
        When the layer is not there.
    ValueError
        When ``.X`` is empty.
    """
    import scipy.sparse as sp

    if layer is not None and layer not in adata.layers:
        raise KeyError(
            f"There is no layer {layer!r}; there are {[key for key in list(adata.layers) if key is not None]}."
        )
    matrix: Any = adata.X if layer is None else adata.layers[layer]
    if matrix is None:
        raise ValueError("`.X` is empty; pass layer.")
    if hasattr(matrix, "to_memory"):  # on disk
        matrix = matrix.to_memory()
    if hasattr(matrix, "compute"):  # on dask
        matrix = matrix.compute()
    if not sp.issparse(matrix):
        return np.asarray(matrix)
    # scipy computes nothing in float16
    return (matrix.astype(np.float32) if matrix.dtype == np.float16 else matrix).tocsr()
