"""Integration scores as a table of circles and bars."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ._colors import text_color
from ._finish import finish

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap

_GROUPS = {
    "Biology": ("NMI", "ARI", "ASW_label"),
    "Batches": ("ASW_batch", "graph_connectivity"),
    "Averages": ("AvgBIO", "AvgBATCH", "Overall"),
}
_BENCHMARKER = "scib-metrics: "
_BARS = {*_GROUPS["Averages"], *(_BENCHMARKER + name for name in ("Bio conservation", "Batch correction", "Total"))}
_NAMES_WIDTH, _BAR_WIDTH = 2.5, 0.85


def integration_scores(
    table: pd.DataFrame,
    *,
    sort_by: str | None = None,
    cmap: str | Colormap = "Blues",
    ax: Axes | None = None,
    show: bool | None = None,
    save: str | Path | None = None,
) -> Axes | None:
    """Draw the scores of embeddings as a table, the best on top.

    Metrics are circles and averages are bars; colours and lengths run from 0 to 1. Where the averages come with
    95 % intervals, an orange line at the foot of the bar shows them, and they are written in it. Columns without any value are left out.

    Parameters
    ----------
    table
        What :func:`scgpt.metrics.integration_scores` returns.
    sort_by
        Column to sort the rows by; ``Overall`` by default, ``AvgBIO`` where that is NaN.
    cmap
        Colours from 0 to 1.
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
        When there is no column to sort by.
    ValueError
        When the table has no column of :func:`scgpt.metrics.integration_scores`.

    Examples
    --------
    >>> import scanpy as sc
    >>> import scgpt
    >>> adata = sc.datasets.pbmc68k_reduced()[::5].copy()
    >>> table = scgpt.metrics.integration_scores(
    ...     adata, "phase", "bulk_labels", ["X_pca", "X_umap"], resolutions=[0.5, 1.0]
    ... )
    >>> ax = scgpt.pl.integration_scores(table, show=False)
    """
    import matplotlib as mpl
    import matplotlib.pyplot as plt

    table = table.dropna(axis="columns", how="all")
    groups = _columns_of(table)
    if sort_by is None:
        sort_by = next((name for name in ("Overall", "AvgBIO") if name in table), groups[0][1][0])
    if sort_by not in table:
        raise KeyError(f"There is no column {sort_by!r} to sort by; there are {list(table)}.")
    table = table.sort_values(sort_by, ascending=False, kind="stable")
    n_columns = sum(len(columns) for _, columns in groups)

    if ax is None:
        _, ax = plt.subplots(figsize=(0.8 * (n_columns + _NAMES_WIDTH), 0.5 * (len(table) + 2.5)))
    colors = mpl.colormaps[cmap] if isinstance(cmap, str) else cmap
    for y, name in enumerate(table.index):
        ax.text(-_NAMES_WIDTH, y, str(name), ha="left", va="center", weight="bold")
        ax.axhline(y + 0.5, color="0.85", linewidth=0.8)
    x = 0
    for title, columns in groups:
        ax.text(x + (len(columns) - 1) / 2, -1.75, title, ha="center", va="center", weight="bold")
        ax.plot([x - 0.4, x + len(columns) - 0.6], [-1.4, -1.4], color="black", linewidth=1)
        for column in columns:
            heading = column.removeprefix(_BENCHMARKER).replace("_", " ").replace(" ", "\n", 1)
            ax.text(x, -0.95, heading, ha="center", va="center", fontsize="small")
            draw = _bars if column in _BARS else _circles
            draw(ax, table, column, x, colors)
            x += 1
    ax.axhline(-0.5, color="black", linewidth=1)
    ax.set(xlim=(-_NAMES_WIDTH - 0.1, n_columns - 0.4), ylim=(len(table) - 0.4, -2.1))
    ax.set_axis_off()

    return finish(ax, show, save)


def _columns_of(table: pd.DataFrame) -> list[tuple[str, list[str]]]:
    """Return groups of columns to draw, with their titles."""
    groups = [(title, [name for name in names if name in table]) for title, names in _GROUPS.items()]
    groups.append(("scib-metrics", [name for name in map(str, table) if name.startswith(_BENCHMARKER)]))
    groups = [(title, names) for title, names in groups if names]
    if not groups:
        raise ValueError("The table has no column of scgpt.metrics.integration_scores.")
    return groups


def _circles(ax: Axes, table: pd.DataFrame, column: str, x: int, colors: Colormap) -> None:
    values = table[column].to_numpy(dtype=float)
    ax.scatter([x] * len(values), range(len(values)), s=650, c=values, cmap=colors, vmin=0, vmax=1, edgecolors="0.7")
    for y, value in enumerate(values):
        _number(ax, x, y, value, colors, ha="center")


def _bars(ax: Axes, table: pd.DataFrame, column: str, x: int, colors: Colormap) -> None:
    left = x - _BAR_WIDTH / 2
    values = table[column].to_numpy(dtype=float)
    ax.barh(range(len(values)), _BAR_WIDTH * values, left=left, height=0.65, color=colors(values))
    if f"{column}_low" not in table:
        for y, value in enumerate(values):
            _number(ax, left + 0.04, y, value, colors, ha="left")
        return
    low, high = (table[f"{column}_{end}"].to_numpy(dtype=float) for end in ("low", "high"))
    heights = [y + 0.3 for y in range(len(values))]
    ax.hlines(heights, left + _BAR_WIDTH * low, left + _BAR_WIDTH * high, color="tab:orange", linewidth=2.5)
    for y, value in enumerate(values):
        _number(ax, left + 0.04, y - 0.12, value, colors, ha="left")
        _number(ax, left + 0.04, y + 0.18, value, colors, ha="left", text=f"{low[y]:.2f} – {high[y]:.2f}")


def _number(ax: Axes, x: float, y: float, value: float, colors: Colormap, ha: str, text: str | None = None) -> None:
    """Write a number, or the text that goes with it, in a colour that is read on the number's own."""
    if value != value:  # NaN
        return
    ax.text(
        x,
        y,
        text or f"{value:.2f}",
        ha=ha,
        va="center",
        fontsize="xx-small" if text else "small",
        color=text_color(colors(value)),
    )
