"""Which group of cells each gene is a marker of."""

from __future__ import annotations

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

    Markers are those that :func:`scanpy.tl.rank_genes_groups` puts first, by its t-test.

    Raises
    ------
    KeyError
        When there is no such column or layer.
    ValueError
        When there are fewer than two groups of two cells.
    """
    import pandas as pd
    import scanpy as sc
    from anndata import AnnData

    from scgpt.data import column_of, expression_of

    column = column_of(adata.obs, groupby, "groupby").astype("category")
    sizes = column.value_counts()
    groups = [name for name in column.cat.categories if sizes[name] > 1]
    if len(groups) < 2:
        raise ValueError(f".obs[{groupby!r}] has {len(groups)} groups of two cells or more; markers need two of them.")
    codes = column.cat.set_categories(groups).cat.codes.to_numpy()
    values = expression_of(adata, layer, target_sum=1e4)[:, genes][codes >= 0]
    # By numbers: names of groups and genes may be anything, and those of genes given twice.
    cells = AnnData(
        values,
        obs=pd.DataFrame({"group": pd.Categorical(codes[codes >= 0].astype(str))}, index=_numbers(values.shape[0])),
    )
    cells.var_names = _numbers(values.shape[1])
    sc.tl.rank_genes_groups(cells, "group", method="t-test", n_genes=min(n_genes, cells.n_vars))
    found = cells.uns["rank_genes_groups"]
    score, own = np.zeros(len(genes)), np.full(len(genes), -1)
    for code, group in enumerate(groups):
        places = found["names"][str(code)].astype(int)
        scores = found["scores"][str(code)]
        higher = scores > score[places]
        score[places[higher]] = scores[higher]
        own[places[higher]] = column.cat.categories.get_loc(group)
    return pd.Series(pd.Categorical.from_codes(own, column.cat.categories), name=groupby)


def _numbers(n: int) -> list[str]:
    return [str(i) for i in range(n)]
