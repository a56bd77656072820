"""Colours that can be read."""

from __future__ import annotations


def text_color(background: tuple[float, float, float, float]) -> str:
    """Return white or black, whichever is read on a colour."""
    red, green, blue, _ = background
    return "white" if 0.3 * red + 0.59 * green + 0.11 * blue < 0.5 else "black"
