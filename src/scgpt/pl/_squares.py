"""A table as coloured squares."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap
    from matplotlib.image import AxesImage


def draw_squares(
    ax: Axes,
    table: NDArray[np.float64],
    rows: Sequence[str],
    columns: Sequence[str],
    colors: Colormap,
    limits: tuple[float, float],
    fontsize: str = "small",
) -> AxesImage:
    """Draw a table with the names of its rows and columns, white lines between the squares."""
    low, high = limits
    image = ax.imshow(table, cmap=colors, vmin=low, vmax=high, aspect="auto")
    ax.set_xticks(range(len(columns)), columns, rotation=90, fontsize=fontsize)
    ax.set_yticks(range(len(rows)), rows, fontsize=fontsize)
    ax.set_xticks(np.arange(len(columns) - 1) + 0.5, minor=True)
    ax.set_yticks(np.arange(len(rows) - 1) + 0.5, minor=True)
    ax.grid(which="minor", color="white", linewidth=1)
    ax.grid(visible=False, which="major")
    ax.tick_params(which="both", length=0)
    ax.spines[:].set_visible(False)
    return image


def fit_names(ax: Axes, least: float = 0) -> tuple[float, float]:
    """Make the names smaller where they lie on one another, or squares are less wide than some points.

    They stay as large as can be read. Returns how wide and high a square is, in points.
    """
    figure = ax.get_figure(root=True)
    assert figure is not None
    labels = [*ax.get_xticklabels(), *ax.get_yticklabels()]
    n_columns, n_rows = len(ax.get_xticks()), len(ax.get_yticks())
    own = float(labels[0].get_fontsize())
    for size in (own, *(smaller for smaller in (6.5, 6, 5.5, 5) if smaller < own)):
        for label in labels:
            label.set_fontsize(size)
        figure.draw_without_rendering()  # gives the axes their size
        box = ax.get_window_extent()
        width, height = (72 / figure.dpi * length / n for length, n in ((box.width, n_columns), (box.height, n_rows)))
        if min(width, height) >= 1.2 * size and width >= least:
            break
    return width, height
