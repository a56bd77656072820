"""Axes of an embedding, whose numbers have no meaning."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_NAMES = {"umap": "UMAP", "pca": "PC", "tsne": "tSNE"}


def bare_axes(ax: Axes, key: str) -> None:
    """Name the axes after the key of an embedding, and take away their ticks."""
    name = key.removeprefix("X_")
    name = _NAMES.get(name, name)
    ax.set(xticks=[], yticks=[])
    ax.set_xlabel(f"{name}1", fontsize="small")
    ax.set_ylabel(f"{name}2", fontsize="small")
    ax.margins(0.08)
