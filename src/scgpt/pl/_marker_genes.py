"""Which group of cells each gene is a marker of."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData


def marker_genes(
    adata: AnnData, genes: NDArray[np.intp], groupby: str, n_genes: int, layer: str | None = None
) -> pd.Series:
    """Return for each of some genes the group that it is a marker of, missing where it is of none.

    Markers are those that :func:`scanpy.tl.rank_genes_groups` puts first, without the time that compiling it takes.

    Raises
    ------
    KeyError
        When there is no such column or layer.
    ValueError
        When there are fewer than two groups of two cells.
    """
    import pandas as pd

    from scgpt.data._scale import scale_of
    from scgpt.metrics._moments import LogValues
    from scgpt.metrics._significance import welch_t
    from scgpt.metrics.baselines._cells import log_normalized

    if groupby not in adata.obs:
        raise KeyError(f"There is no column {groupby!r} in .obs; there are {list(adata.obs.columns)}.")
    column = pd.Series(adata.obs[groupby]).astype("category")
    codes = np.asarray(column.cat.codes)
    groups = np.flatnonzero(np.bincount(codes[codes >= 0], minlength=len(column.cat.categories)) > 1)
    if len(groups) < 2:
        raise ValueError(f".obs[{groupby!r}] has {len(groups)} groups of two cells or more; markers need two of them.")
    scale = scale_of(adata, layer)
    values = LogValues.of(adata, layer, genes)
    if scale == "counts":
        values = replace(values, matrix=log_normalized(values.matrix.astype(np.float32)))
    elif scale == "normalised":
        values = replace(values, matrix=np.log1p(values.matrix))
    inside = values.moments([np.flatnonzero(codes == group) for group in groups])
    outside = values.moments([np.flatnonzero(np.isin(codes, groups) & (codes != group)) for group in groups])
    t = welch_t(inside, outside)
    first = (-t).argsort(1, kind="stable").argsort(1) < n_genes
    score = np.where(first & (t > 0), t, 0)
    own = np.where(score.max(0) > 0, groups[score.argmax(0)], -1)
    return pd.Series(pd.Categorical.from_codes(own, column.cat.categories), name=groupby)
