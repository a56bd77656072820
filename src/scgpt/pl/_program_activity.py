"""Which gene programs are active where."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from scgpt._messages import listed

from ._category_colors import MISSING
from ._finish import finish
from ._legend import color_bar, legend_above
from ._squares import draw_squares, fit_names
from ._written import written, written_table

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap
    from scipy.cluster.hierarchy import ClusterNode

_CALL = "gene_programs(adata, model)"
# Inches: a column of a page, a square, and a letter of a name.
_WIDTH, _SQUARE, _LETTER = 3.4, 0.16, 0.056
# Genes that a program is labelled by.
_GENES = 3


def program_activity(
    adata: AnnData,
    *,
    groupby: str | None = None,
    programs: str | Iterable[str] | None = None,
    n_programs: int = 20,
    standard_scale: Literal["program"] | None = None,
    cluster: bool = True,
    cmap: str | Colormap | None = None,
    ax: Axes | None = None,
    show: bool | None = None,
    save: str | Path | None = None,
) -> Axes | None:
    """Draw how active gene programs are in groups of cells, such as types.

    A row is a program, with the genes nearest its centre, and a column a group. Rows and columns are ordered by average
    linkage of the programs' standardised activities, so that like ones lie together and blocks along the diagonal.

    Parameters
    ----------
    adata
        Cells that :func:`scgpt.tl.gene_programs` was called on.
    groupby
        Column of ``.obs`` with the groups, to average the scores of their cells. By default what was stored for the
        groups named to the verb.
    programs
        Programs to draw, instead of those that vary most.
    n_programs
        Most programs to draw: those whose activity varies most between groups.
    standard_scale
        With ``"program"`` each row runs from 0, its lowest activity, to 1, its highest, as in :func:`scanpy.pl.matrixplot`.
    cluster
        False for the programs' own order or that of ``programs``, and the groups' own.
    cmap
        Colours; by default a scale of two colours about 0 where values have both signs, else one of one.
    ax
        Axes to draw on; a new figure of fitting size by default.
    show
        Show the figure; by default as scanpy's settings say.
    save
        File to save the figure to.

    Returns
    -------
    The axes, unless the figure is shown.

    Raises
    ------
    KeyError
        When the verb was not called, or there is no such column, program or stored activity.
    ValueError
        When there is nothing to draw, or ``n_programs`` or ``standard_scale`` make no sense.

    Examples
    --------
    >>> import scanpy as sc
    >>> import scgpt
    >>> adata = sc.datasets.pbmc68k_reduced()[::5].raw.to_adata()
    >>> scgpt.tl.gene_programs(adata, "mini", genes="all", groupby="bulk_labels", n_runs=1, progress_bar=False)
    >>> ax = scgpt.pl.program_activity(adata, n_programs=10, show=False)
    >>> ax = scgpt.pl.program_activity(adata, groupby="phase", standard_scale="program", show=False)
    """
    import matplotlib as mpl
    import matplotlib.pyplot as plt
    from matplotlib.patches import Patch

    if standard_scale not in (None, "program"):
        raise ValueError(f"standard_scale has to be 'program' or None, and is {standard_scale!r}.")
    if n_programs < 1:
        raise ValueError(f"n_programs has to be 1 or more, and is {n_programs}.")
    table = _chosen(_activity(adata, groupby), programs, n_programs)
    values = table.to_numpy(dtype=np.float64, copy=True)
    if standard_scale == "program":
        values -= np.nanmin(values, 1, keepdims=True)
        highest = np.nanmax(values, 1, keepdims=True)
        values /= np.where(highest > 0, highest, 1)
    rows, columns = _in_blocks(values) if cluster else map(np.arange, values.shape)
    values = values[np.ix_(rows, columns)]
    labels = _labels(adata, table.index[rows].to_list())
    groups = [str(name) for name in table.columns[columns]]

    if ax is None:
        width = _LETTER * max(map(len, labels)) + _SQUARE * len(groups) + 0.1
        height = _LETTER * max(map(len, groups)) + _SQUARE * len(labels) + 0.6
        _, ax = plt.subplots(figsize=(max(_WIDTH, width), height), layout="constrained")
    limits = float(np.nanmin(values)), float(np.nanmax(values))
    both_signs = limits[0] < 0 < limits[1]
    if both_signs:  # the middle of the colours is 0
        limits = -max(map(abs, limits)), max(map(abs, limits))
    if cmap is None:
        cmap = "RdBu_r" if both_signs else "Blues"
    colors = mpl.colormaps[cmap] if isinstance(cmap, str) else cmap
    missing = colors.with_extremes(bad=MISSING)
    image = draw_squares(ax, values, labels, groups, missing, limits, fontsize="x-small")
    color_bar(ax, image, "activity" if standard_scale is None else "activity, share of range", where="bottom")
    if np.isnan(values).any():
        legend_above(ax, [Patch(color=MISSING, label="missing")], "", 1)
    fit_names(ax)
    return finish(ax, show, save)


def _activity(adata: AnnData, groupby: str | None) -> pd.DataFrame:
    """Return mean scores, programs by groups."""
    from scgpt.data import column_of

    if groupby is None:
        found = written(adata.uns, "scgpt_programs", ".uns", _CALL)
        if "activity" not in found:
            raise KeyError(
                "There is no 'activity' in .uns['scgpt_programs']: name a column of .obs with groups of cells by groupby=."
            )
        return written_table(found, "activity", ".uns['scgpt_programs']", _CALL, []).T
    groups = column_of(adata.obs, groupby, "groupby")
    scores = written_table(adata.obsm, "scgpt_program_scores", ".obsm", _CALL, [])
    return scores.groupby(groups, observed=True).mean().T


def _chosen(table: pd.DataFrame, programs: str | Iterable[str] | None, n_programs: int) -> pd.DataFrame:
    """Return the rows to draw."""
    table = table.set_axis(table.index.astype(str))
    if programs is not None:
        names = list(dict.fromkeys([programs] if isinstance(programs, str) else map(str, programs)))
        if lacking := [name for name in names if name not in table.index]:
            raise KeyError(f"programs= names {listed(lacking)}; there are {listed(list(table.index))}.")
        table = table.loc[names]
    else:
        variance = table.var(axis=1, ddof=0).fillna(-1).to_numpy()
        table = table.iloc[np.sort(np.argsort(-variance, kind="stable")[:n_programs])]
    table = table.dropna(axis="index", how="all").dropna(axis="columns", how="all")
    if table.empty:
        raise ValueError("No program has a score in any group: there is nothing to draw.")
    return table


def _labels(adata: AnnData, programs: list[str]) -> list[str]:
    """Return programs with their first genes."""
    found = written(adata.uns, "scgpt_programs", ".uns", _CALL)
    table = written_table(found, "table", ".uns['scgpt_programs']", _CALL, ["genes"])
    genes = dict(zip(table.index.astype(str), table["genes"].astype(str), strict=True))
    return [f"{name}  {', '.join(genes.get(name, '').split(', ')[:_GENES])}".rstrip() for name in programs]


def _in_blocks(values: NDArray[np.float64]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Order rows and columns so that like ones lie together, and blocks of high values along the diagonal."""
    from scipy.cluster.hierarchy import leaves_list, linkage, to_tree

    centred = np.nan_to_num(values - np.nanmean(values, 1, keepdims=True))
    spread = centred.std(1, keepdims=True)
    like = centred / np.where(spread > 0, spread, 1)
    rows, columns = map(np.arange, like.shape)
    if len(columns) > 1:
        columns = leaves_list(linkage(like.T, "average", optimal_ordering=True)).astype(np.intp)
    if len(rows) > 1:
        high = like.clip(0)[:, columns]
        places = high @ np.arange(len(columns)) / np.maximum(high.sum(1), 1e-12)
        rows = np.array(_leaves(to_tree(linkage(like, "average")), places))
    return rows, columns


def _leaves(node: ClusterNode, places: NDArray[np.float64]) -> list[int]:
    """Return the leaves of a tree, of two branches that first which lies further left."""
    if node.is_leaf():
        return [node.id]
    branches = [_leaves(branch, places) for branch in (node.left, node.right)]
    first, second = sorted(branches, key=lambda leaves: places[leaves].mean())
    return first + second
