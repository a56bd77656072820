"""What an expression matrix must be, and what to do if it is not."""

from __future__ import annotations

import numpy as np
from anndata import AnnData
from numpy.typing import NDArray

from ._kernels import NEGATIVE, NOT_FINITE


def raise_for_values(flags: NDArray[np.uint8], cell_index: NDArray[np.int64]) -> None:
    """Raise for values that cannot be expression.

    Parameters
    ----------
    flags
        ``(n_cells,)`` bits :data:`NOT_FINITE` and :data:`NEGATIVE` of each cell.
    cell_index
        ``(n_cells,)`` rows of the cells in the data set, for the message.

    Raises
    ------
    ValueError
        When a flag is set.
    """
    for bit, text in (
        (NOT_FINITE, "holds NaN or infinite values. Replace or drop them, or name another layer by layer=..."),
        (
            NEGATIVE,
            "holds negative values, as scaled data (scanpy.pp.scale) and residuals do. scGPT reads counts or "
            "log-normalised values: name the layer that holds them by layer=..., or use adata.raw.to_adata().",
        ),
    ):
        cells = cell_index[(flags & bit) > 0]
        if len(cells):
            raise ValueError(f"The expression matrix {text} First such cells: rows {cells[:5].tolist()}.")


def check_anndata(adata: object) -> None:
    """Raise for what is not an AnnData.

    Raises
    ------
    TypeError
        With the way to an AnnData, where there is one.
    """
    if isinstance(adata, AnnData):
        return
    kind = type(adata).__name__
    ways = {
        "str": "read the file with anndata.read_h5ad(...)",
        "PosixPath": "read the file with anndata.read_h5ad(...)",
        "Raw": "pass adata.raw.to_adata()",
        "MuData": "pass one modality, such as mdata['rna']",
    }
    raise TypeError(f"Expected an AnnData, not {kind}" + (f": {ways[kind]}." if kind in ways else "."))
