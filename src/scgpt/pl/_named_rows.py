"""Axes whose rows are names, the first on top."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def name_rows(ax: Axes, names: Sequence[str], label: str, fontsize: str = "small") -> None:
    """Write names beside the rows and a label below, and take away all lines but the lowest."""
    ax.set_axisbelow(True)
    ax.set_yticks(range(len(names)), names, fontsize=fontsize)
    ax.set(ylim=(len(names) - 0.4, -0.6))
    ax.set_xlabel(label, fontsize="small")
    ax.tick_params(axis="y", length=0)
    ax.tick_params(axis="x", labelsize="small")
    ax.spines[["top", "right", "left"]].set_visible(False)
