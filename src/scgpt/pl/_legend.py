"""Legends that leave a plot its width."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.lines import Line2D
    from matplotlib.typing import ColorType


def legend_above(ax: Axes, handles: Sequence[Artist], title: str, n_columns: int) -> None:
    """Put a legend above the axes, its title at the place of theirs."""
    ax.legend(
        handles=list(handles),
        title=title or None,
        ncols=n_columns,
        loc="lower left",
        bbox_to_anchor=(0, 1),
        alignment="left",
        frameon=False,
        fontsize="x-small",
        title_fontproperties={"size": "small", "weight": "bold"},
        borderpad=0.2,
        borderaxespad=0.2,
        handlelength=1,
        handletextpad=0.4,
        columnspacing=0.7,
        labelspacing=0.3,
    )


def dot(color: ColorType, label: str, size: float = 5) -> Line2D:
    """Return what stands for points in a legend."""
    from matplotlib.lines import Line2D

    return Line2D([], [], color=color, marker="o", markersize=size, markeredgewidth=0, linestyle="none", label=label)
