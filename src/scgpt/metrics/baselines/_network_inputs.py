"""What networks are inferred from: genes by name, and their values in cells."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from scgpt.metrics._messages import listed
from scgpt.metrics._perturbation_inputs import check_unique_genes

from ._cells import log_values

if TYPE_CHECKING:
    from anndata import AnnData

    from ._cells import Matrix


def gene_columns(adata: AnnData, names: Iterable[str] | None, what: str) -> NDArray[np.intp]:
    """Return the columns of genes, each once, in the order in which they are named; of all for None."""
    import pandas as pd

    check_unique_genes(adata, "given")
    if names is None:
        return np.arange(adata.n_vars)
    if isinstance(names, str):
        raise TypeError(f"{what} has to be several names, and is {names!r}: put it into a list.")
    wanted = list(dict.fromkeys(names))
    if not wanted:
        raise ValueError(f"{what} holds no name.")
    columns = adata.var_names.get_indexer(pd.Index(wanted))
    if absent := [name for name, column in zip(wanted, columns, strict=True) if column < 0]:
        raise KeyError(
            f"{len(absent)} of {len(wanted)} {what} are not in .var_names: {listed(absent)}. Leave them out, as by "
            f"`adata.var_names.intersection({what})`."
        )
    return columns


def cell_values(adata: AnnData, layer: str | None, normalize: bool) -> Matrix:
    """Return log-normalised values of all genes."""
    if adata.n_obs < 2:
        raise ValueError(f"Two or more cells are needed to see genes vary, and there are {adata.n_obs}.")
    return log_values(adata, layer, normalize)
