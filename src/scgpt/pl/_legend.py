"""Legends that leave a plot its width."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.cm import ScalarMappable
    from matplotlib.lines import Line2D
    from matplotlib.typing import ColorType

# Inches: of a legend a row, a handle and a letter.
_ROW, _HANDLE, _LETTER = 0.13, 0.28, 0.06


def columns_that_fit(handles: Sequence[Artist], width: float) -> int:
    """Return how many columns of a legend fit into some inches."""
    longest = max((len(str(handle.get_label())) for handle in handles), default=0)
    return max(1, int(width / (_HANDLE + _LETTER * longest)))


def legend_height(n_handles: int, n_columns: int) -> float:
    """Return the inches that a legend with its title takes."""
    return _ROW * (2 + -(-n_handles // n_columns))


def legend_above(
    ax: Axes, handles: Sequence[Artist], title: str, n_columns: int, *, handle_length: float = 1, x: float = 0
) -> None:
    """Put a legend above the axes, its title at the place of theirs, ``x`` from their left."""
    ax.legend(
        handles=list(handles),
        title=title or None,
        ncols=n_columns,
        loc="lower left",
        bbox_to_anchor=(x, 1),
        alignment="left",
        frameon=False,
        fontsize="x-small",
        title_fontproperties={"size": "small", "weight": "bold"},
        borderpad=0.2,
        borderaxespad=0.2,
        handlelength=handle_length,
        handletextpad=0.4,
        columnspacing=0.7,
        labelspacing=0.3,
    )


def dot(color: ColorType, label: str, size: float = 5) -> Line2D:
    """Return what stands for points in a legend."""
    from matplotlib.lines import Line2D

    return Line2D([], [], color=color, marker="o", markersize=size, markeredgewidth=0, linestyle="none", label=label)


def color_bar(
    ax: Axes, scale: ScalarMappable, label: str, *, where: Literal["right", "bottom"] = "right", shrink: float = 0.8
) -> None:
    """Explain the colours of numbers beside or below the axes."""
    figure = ax.get_figure(root=True)
    assert figure is not None
    thick = {"aspect": 20} if where == "right" else {"aspect": 25, "pad": 0.02}
    bar = figure.colorbar(scale, ax=ax, location=where, shrink=shrink, **thick)
    bar.set_label(label, fontsize="small")
    bar.ax.tick_params(labelsize="small")
