"""A colour for each category."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from scgpt._messages import listed

from ._colors import MUTED, SAFE

if TYPE_CHECKING:
    from matplotlib.typing import ColorType

MISSING = "lightgray"


def category_colors(
    names: Sequence[str],
    palette: str | Sequence[ColorType] | Mapping[str, ColorType] | None,
    known: Sequence[ColorType] | None = None,
) -> list[ColorType]:
    """Return colours of categories.

    Parameters
    ----------
    names
        Categories.
    palette
        Colours by name or in their order, or the name of a colour map. By default those ``known`` or else, of up to nine,
        such that all people tell apart; of more, scanpy's.
    known
        Colours that they had elsewhere.

    Raises
    ------
    ValueError
        When there are not enough colours.
    """
    n = len(names)
    if palette is None:
        if known is not None:
            return list(known)
        palette = next((own for own in (SAFE, MUTED, *_scanpys()) if len(own) >= n), None)
        if palette is None:
            raise ValueError(f"{n} categories cannot be told by colour: name another column, or pass palette=.")
    if isinstance(palette, str):
        import matplotlib as mpl

        if palette not in mpl.colormaps:
            raise ValueError(f"palette={palette!r} is no colour map of matplotlib's.")
        chosen = mpl.colormaps[palette]
        # Of qualitative maps the first, of continuous ones such as lie apart.
        steps = np.arange(n) if chosen.N < 256 else np.linspace(0, 1, max(n, 2))[:n]
        if chosen.N < n:
            raise ValueError(
                f"palette={palette!r} has {chosen.N} colours for {n} categories: name another, or pass colours."
            )
        return [tuple(map(float, own)) for own in chosen(steps)]  # type: ignore[misc]
    if isinstance(palette, Mapping):
        if lacking := [name for name in names if name not in palette]:
            raise ValueError(f"palette= has no colour for {listed(lacking)}.")
        return [palette[name] for name in names]
    if len(palette) < n:
        raise ValueError(f"palette= has {len(palette)} colours for {n} categories, {listed(names)}: pass more.")
    return list(palette[:n])


def _scanpys() -> list[list[str]]:
    from scanpy.plotting import palettes

    return [palettes.default_20, palettes.default_28, palettes.default_102]
