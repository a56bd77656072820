"""What an expression matrix must be, and what to do if it is not."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from anndata import AnnData
from mudata import MuData
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
    file = "read the file with anndata.read_h5ad(...)"
    ways = {"Raw": "pass adata.raw.to_adata()", "MuData": "pass one modality, such as mdata['rna']"}
    _check_kind(adata, AnnData, {"str": file, "PosixPath": file} | ways)


def check_mudata(mdata: object) -> None:
    """Raise for what is not a MuData.

    Raises
    ------
    TypeError
        With the way to a MuData, where there is one.
    """
    file = "read the file with mudata.read(...)"
    bring = "bring modalities together by mudata.MuData({'rna': rna, 'protein': protein})"
    ways = {"AnnData": f"{bring}, or use SCGPT for one", "dict": bring}
    _check_kind(mdata, MuData, {"str": file, "PosixPath": file} | ways)


def check_name(name: object, argument: str) -> None:
    """Raise for what is no name of a column, layer or key; None is none that is asked for.

    Raises
    ------
    TypeError
        With the argument that gave it.
    """
    if name is not None and not isinstance(name, str):
        raise TypeError(f"{argument} must be text, the name of a column, layer or key, not {name!r:.50}.")


def _check_kind(data: object, kind: type, ways: Mapping[str, str]) -> None:
    if isinstance(data, kind):
        return
    given = type(data).__name__
    article = "an" if kind.__name__[0] in "AEIOU" else "a"
    raise TypeError(
        f"Expected {article} {kind.__name__}, not {given}" + (f": {ways[given]}." if given in ways else ".")
    )
