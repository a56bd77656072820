"""How long a recipe trains."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def epochs_of(recipe: Mapping[str, Any], n_cells: float) -> int:
    """Return the passes over some cells that a recipe makes.

    Parameters
    ----------
    recipe
        With ``max_epochs``; or with ``cells_seen``, which fewer cells take more epochs to see, and the fewest and most
        ``epochs``.
    n_cells
        Cells to train on.
    """
    if "max_epochs" in recipe:
        return recipe["max_epochs"]
    fewest, most = recipe["epochs"]
    return min(max(round(recipe["cells_seen"] / max(n_cells, 1)), fewest), most)
