"""The end of every plot: save it, show it, or hand it back."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def finish(ax: Axes, show: bool | None, save: str | Path | None) -> Axes | None:
    """Save the figure to a file, show it, by default as scanpy's settings say, and return the axes if it is not shown."""
    import matplotlib.pyplot as plt

    if save is not None:
        figure = ax.get_figure(root=True)
        assert figure is not None
        figure.savefig(save, bbox_inches="tight")
    if show is None:
        import scanpy as sc

        show = sc.settings.autoshow
    if not show:
        return ax
    plt.show()
    return None
