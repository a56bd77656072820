"""Columns of ``.obs`` as codes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

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


def named_codes_of(
    adata: AnnData, key: str, what: str, cells: NDArray[np.bool_] | None = None
) -> tuple[NDArray[np.intp], list[str]]:
    """Return a column as codes and the names that they stand for, as text.

    Names come in the order of the categories, sorted where there are none; those that no cell has are left out. Of
    ``cells``, a mask, alone is the column read.
    """
    import pandas as pd

    if key not in adata.obs:
        raise KeyError(f"There is no column {key!r} in .obs for the {what} of each cell.")
    column = pd.Series(adata.obs[key])
    column = (column if cells is None else column[cells]).astype("category").cat.remove_unused_categories()
    codes = np.asarray(column.cat.codes, dtype=np.intp)
    if missing := int((codes < 0).sum()):
        raise ValueError(f"{missing} of {len(codes)} cells have no {what} in .obs[{key!r}]; leave them out.")
    return codes, [str(name) for name in column.cat.categories]


def columns_of(types: Iterable[Any]) -> list[str]:
    """Return types as names of columns: h5ad files take none with a slash, which "CD4+/CD25 T Reg" has."""
    return [str(name).replace("/", "|") for name in types]
