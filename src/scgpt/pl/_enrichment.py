"""Gene sets that lists of genes are enriched in."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from scgpt._messages import listed

from ._finish import finish
from ._legend import color_bar, dot, legend_above
from ._set_names import set_name, shortened
from ._written import written_table

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap

# Inches: a column of a page, of the plot and of the legend, a row, and a letter.
_WIDTH, _COLUMN, _LEGEND, _ROW, _LETTER = 3.4, 0.17, 0.8, 0.16, 0.054
# Square points of the largest dot, and letters of the longest name.
_AREA, _LONGEST = 70, 36


def enrichment(
    adata: AnnData,
    *,
    lists: str | Iterable[str] | None = None,
    n_sets: int = 3,
    max_pvalue: float = 0.05,
    key: str = "scgpt_enrichment",
    cmap: str | Colormap = "viridis_r",
    ax: Axes | None = None,
    show: bool | None = None,
    save: str | Path | None = None,
) -> Axes | None:
    """Draw which gene sets programs, or targets of regulators, are enriched in.

    A row is a gene set and a column a list of genes. A dot's area is the number of genes in both, and its colour tells the
    adjusted p-value; where it is higher than ``max_pvalue``, there is no dot.

    Parameters
    ----------
    adata
        Cells that :func:`scgpt.tl.enrich` was called on.
    lists
        Programs or regulators to draw, in this order; by default all that are enriched in some set.
    n_sets
        Gene sets to draw of each list: those with its lowest adjusted p-values.
    max_pvalue
        Highest adjusted p-value.
    key
        Key of ``.uns`` with the table.
    cmap
        Colours of p-values.
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
        When the verb was not called, or a list is not in its table.
    ValueError
        When no set is enriched, or ``n_sets`` or ``max_pvalue`` make no sense.

    Examples
    --------
    >>> import scanpy as sc
    >>> import scgpt
    >>> adata = sc.datasets.pbmc68k_reduced()[:50].raw.to_adata()
    >>> sets = {"MHC class II": ["CD74", "HLA-DRA", "HLA-DRB1", "HLA-DPA1", "HLA-DPB1"]}  # or the path of a GMT file
    >>> scgpt.tl.enrich(adata, sets, lists={"mine": ["HLA-DRA", "HLA-DRB1", "HLA-DPA1", "LYZ", "NKG7"]})
    >>> ax = scgpt.pl.enrichment(adata, show=False)
    """
    import matplotlib.pyplot as plt

    if n_sets < 1:
        raise ValueError(f"n_sets has to be 1 or more, and is {n_sets}.")
    if not 0 < max_pvalue <= 1:
        raise ValueError(f"max_pvalue has to be above 0 and at most 1, and is {max_pvalue}.")
    table = written_table(
        adata.uns, key, ".uns", "enrich(adata, gmt)", ["list", "gene_set", "overlap", "pvalue", "adjusted_pvalue"]
    )
    table = table.astype({"list": str, "gene_set": str})
    names = _names(table, lists)
    found = table[table["list"].isin(names) & (table["adjusted_pvalue"] <= max_pvalue)]
    if found.empty:
        raise ValueError(
            f"No gene set has an adjusted p-value of {max_pvalue} or less in {listed(names)}: raise max_pvalue=."
        )
    if lists is None:
        names = [name for name in names if name in set(found["list"])]
    ranked = found.sort_values(["adjusted_pvalue", "pvalue", "gene_set"], kind="stable")
    # List by list, so that the dots of each stand together.
    sets = list(dict.fromkeys(own for name in names for own in ranked.loc[ranked["list"] == name, "gene_set"][:n_sets]))
    drawn = found[found["gene_set"].isin(sets)]
    collection, labels = _labels(sets)

    if ax is None:
        width = _LETTER * max(map(len, labels)) + _COLUMN * len(names) + _LEGEND
        height = _LETTER * max(map(len, names)) + _ROW * len(sets) + 0.8
        _, ax = plt.subplots(figsize=(max(_WIDTH, width), max(height, 1.8)), layout="constrained")
    overlap = drawn["overlap"].to_numpy(dtype=np.float64)
    areas = _AREA * overlap / overlap.max()
    places = {name: x for x, name in enumerate(names)}, {name: y for y, name in enumerate(sets)}
    # A p-value too small for a float is 0, which has no logarithm.
    significance = -np.log10(drawn["adjusted_pvalue"].to_numpy(dtype=np.float64).clip(1e-300))
    lowest = -np.log10(max_pvalue)
    dots = ax.scatter(
        drawn["list"].map(places[0]),
        drawn["gene_set"].map(places[1]),
        areas,
        significance,
        cmap=cmap,
        vmin=lowest,
        vmax=max(significance.max(), lowest + 1e-9),
        edgecolors="0.4",
        linewidths=0.4,
        zorder=2,
    )
    ax.set_xticks(range(len(names)), names, rotation=90, fontsize="x-small")
    ax.set_yticks(range(len(sets)), labels, fontsize="x-small")
    ax.set(xlim=(-0.6, len(names) - 0.4), ylim=(len(sets) - 0.4, -0.6))
    ax.set_ylabel(collection, fontsize="small")
    ax.grid(color="0.92", linewidth=0.6, zorder=0)
    ax.set_axisbelow(True)
    ax.tick_params(length=0)
    ax.spines[:].set_edgecolor("0.8")
    color_bar(ax, dots, "−log$_{10}$ adjusted p")
    sizes = np.unique(np.linspace(overlap.min(), overlap.max(), 3).round())
    handles = [dot("0.5", f"{size:.0f}", (_AREA * size / overlap.max()) ** 0.5) for size in sizes]
    legend_above(ax, handles, "genes in both", len(handles))
    return finish(ax, show, save)


def _names(table: pd.DataFrame, lists: str | Iterable[str] | None) -> list[str]:
    """Return the lists to draw."""
    there = list(dict.fromkeys(table["list"]))
    if lists is None:
        return there
    names = list(dict.fromkeys([lists] if isinstance(lists, str) else map(str, lists)))
    if lacking := [name for name in names if name not in there]:
        raise KeyError(f"lists= names {listed(lacking)}; there are {listed(there)}.")
    return names


def _labels(sets: list[str]) -> tuple[str, list[str]]:
    """Return the collection that all sets are of, if they are of one, and what to call them."""
    names = [set_name(name) for name in sets]
    collections = {collection for collection, _ in names}
    if len(collections) == 1:
        return collections.pop(), [shortened(name, _LONGEST) for _, name in names]
    return "", [shortened(f"{collection}: {name}".removeprefix(": "), _LONGEST) for collection, name in names]
