"""Columns of ``.obs`` as codes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from anndata import AnnData


def codes_of(adata: AnnData, key: str, what: str) -> NDArray[np.intp]:
    """Return a column as codes ``0 ..`` in the order of appearance; ``what`` it holds goes into messages."""
    import pandas as pd

    if key not in adata.obs:
        raise KeyError(f"There is no column {key!r} in .obs for the {what} of each cell.")
    codes, _ = pd.factorize(pd.Series(adata.obs[key]))
    if missing := int((codes < 0).sum()):
        raise ValueError(f"{missing} of {len(codes)} cells have no {what} in .obs[{key!r}]; leave them out.")
    return codes
