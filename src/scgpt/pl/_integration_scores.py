"""Integration scores as a table of circles and bars."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ._colors import ORANGE, text_color
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
# Inches: a circle, the longest bar, a row, and a letter of a name and of a heading.
_CIRCLE, _BAR, _ROW, _LETTER, _SMALL_LETTER = 0.26, 0.42, 0.34, 0.065, 0.047


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
    95 % intervals, an orange line on the bar shows them, and they are written above it. Columns without any value are left out.

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
    names = [str(name) for name in table.index]
    columns = [column for _, own in groups for column in own]

    # Of the table, as wide as in inches; upwards, rows are counted.
    left = _LETTER * max(map(len, names)) + 0.1
    width = left + sum(_width(column) for column in columns)
    head = (_SMALL_LETTER * max(len(_heading(column)) for column in columns) + 0.35) / _ROW
    if ax is None:
        _, ax = plt.subplots(figsize=(width, _ROW * (len(table) + head)), layout="constrained")
    ax.set(xlim=(-left, width - left), ylim=(len(table) - 0.4, -0.5 - head))
    ax.set_axis_off()
    figure = ax.get_figure(root=True)
    assert figure is not None
    figure.draw_without_rendering()  # gives the axes their size
    box = ax.get_window_extent().transformed(figure.dpi_scale_trans.inverted())
    scale = min(box.width / width, box.height / _ROW / (len(table) + head))
    sheet = _Sheet(ax, mpl.colormaps[cmap] if isinstance(cmap, str) else cmap, scale)

    for y, name in enumerate(names):
        sheet.write(-left, y, name, weight="bold")
        ax.axhline(y + 0.5, color="0.85", linewidth=0.8)
    x = 0.0
    for title, own in groups:
        total = sum(_width(column) for column in own)
        sheet.write(x, -0.35 - head, title, weight="bold", va="top")
        ax.plot([x, x + total - 0.08], [0.2 - head] * 2, color="black", linewidth=1)
        for column in own:
            middle = x + _width(column) / 2 - 0.04
            sheet.write(middle, -0.6, _heading(column), size=6, ha="center", va="bottom", rotation=90)
            draw = sheet.bars if column in _BARS else sheet.circles
            draw(table, column, middle)
            x += _width(column)
    ax.axhline(-0.5, color="black", linewidth=1)
    return finish(ax, show, save)


def _heading(column: str) -> str:
    return column.removeprefix(_BENCHMARKER).replace("_", " ")


def _width(column: str) -> float:
    return _BAR + 0.08 if column in _BARS else _CIRCLE + 0.04


def _columns_of(table: pd.DataFrame) -> list[tuple[str, list[str]]]:
    """Return groups of columns to draw, with their titles."""
    groups = [(title, [name for name in names if name in table]) for title, names in _GROUPS.items()]
    groups.append(("scib-metrics", [name for name in map(str, table) if name.startswith(_BENCHMARKER)]))
    groups = [(title, names) for title, names in groups if names]
    if not groups:
        raise ValueError("The table has no column of scgpt.metrics.integration_scores.")
    return groups


@dataclass(frozen=True)
class _Sheet:
    """What a table is drawn on."""

    ax: Axes
    colors: Colormap
    scale: float
    """Size of the axes as a share of what the table would take."""

    def write(self, x: float, y: float, text: str, *, size: float = 7, va: str = "center", **style: Any) -> None:
        """Write letters of some points, which get smaller with the axes as far as they can be read."""
        fontsize = max(5, size * min(1, self.scale))
        self.ax.text(x, y, text, fontsize=fontsize, va=va, **style)

    def circles(self, table: pd.DataFrame, column: str, x: float) -> None:
        values = table[column].to_numpy(dtype=float)
        area = (72 * _CIRCLE * self.scale) ** 2
        style: dict[str, Any] = {"cmap": self.colors, "vmin": 0, "vmax": 1, "edgecolors": "0.7", "linewidths": 0.6}
        self.ax.scatter([x] * len(values), range(len(values)), s=area, c=values, **style)
        for y, value in enumerate(values):
            if value == value:  # no NaN
                self.write(x, y, _number(value), size=6, ha="center", color=text_color(self.colors(value)))

    def bars(self, table: pd.DataFrame, column: str, x: float) -> None:
        left = x - _BAR / 2
        values = table[column].to_numpy(dtype=float)
        heights = [y + 0.3 for y in range(len(values))]
        self.ax.barh(heights, _BAR * values, left=left, height=0.2, color=self.colors(values))
        intervals = f"{column}_low" in table
        for y, value in enumerate(values):
            if value == value:
                self.write(left, y - 0.28 if intervals else y, _number(value), size=6)
        if not intervals:
            return
        low, high = (table[f"{column}_{end}"].to_numpy(dtype=float) for end in ("low", "high"))
        self.ax.hlines(heights, left + _BAR * low, left + _BAR * high, color=ORANGE, linewidth=2.5 * self.scale)
        for y in range(len(values)):
            if low[y] == low[y]:
                self.write(left, y + 0.02, f"{_number(low[y])}–{_number(high[y])}", size=5)


def _number(value: float) -> str:
    return f"{value:.2f}".replace("-0.00", "0.00")
