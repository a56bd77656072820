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
