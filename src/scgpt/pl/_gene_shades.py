"""Colours of genes, and places of genes by name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import cycle, islice
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from scgpt._messages import listed

from ._shades import Shades

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData
    from matplotlib.colors import Colormap
    from matplotlib.typing import ColorType

PROGRAM = "scgpt_program"


def shades_of_genes(
    adata: AnnData,
    genes: NDArray[np.intp],
    color: str | None,
    palette: str | Sequence[ColorType] | Mapping[str, ColorType] | None,
    cmap: str | Colormap,
) -> tuple[Shades, str]:
    """Return colours of genes by a column of ``.var``, one for all without, and what the column is called."""
    from scanpy.plotting.palettes import default_102

    if color is None:
        return Shades.one(len(genes)), ""
    column = gene_column(adata, color).iloc[genes]
    if color == PROGRAM:
        if palette is None and column.nunique() > len(default_102):
            # Their names tell them apart, and colours need not: those of few genes share theirs.
            palette = list(islice(cycle(default_102), column.nunique()))
        return Shades.of(column, ".var", palette, cmap, adata.uns, missing="none"), "program"
    return Shades.of(column, ".var", palette, cmap, adata.uns), color


def gene_column(adata: AnnData, name: str) -> pd.Series:
    """Return a column of ``.var``.

    Raises
    ------
    KeyError
        When it is not there.
    """
    import pandas as pd

    if name not in adata.var:
        way = "call scgpt.tl.gene_programs(adata, model) first" if name == PROGRAM else f"there are {list(adata.var)}"
        raise KeyError(f"There is no column {name!r} in .var: {way}.")
    return pd.Series(adata.var[name])


def genes_named(adata: AnnData, names: str | Iterable[str], argument: str) -> NDArray[np.intp]:
    """Return the places of genes in ``.var_names``, each once.

    Raises
    ------
    KeyError
        When one is not there.
    """
    place = {name: i for i, name in enumerate(adata.var_names)}
    wanted = list(dict.fromkeys([names] if isinstance(names, str) else names))
    if lacking := [name for name in wanted if name not in place]:
        raise KeyError(f"{argument}= names {listed(lacking)}, not in .var_names.")
    return np.array([place[name] for name in wanted], dtype=np.intp)
