"""Colours that can be read, and told apart by all."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.typing import ColorType

# Of Okabe and Ito, which people with any kind of colour blindness tell apart; yellow last, for it is pale on white.
BLUE, ORANGE, GREEN, PURPLE = "#0072B2", "#E69F00", "#009E73", "#CC79A7"
VERMILLION, SKY, YELLOW = "#D55E00", "#56B4E9", "#F0E442"
SAFE = (BLUE, ORANGE, GREEN, PURPLE, VERMILLION, SKY, YELLOW)
# Tol's "muted", of more colours that are told apart, less easily.
MUTED = ("#332288", "#88CCEE", "#44AA99", "#117733", "#999933", "#DDCC77", "#CC6677", "#882255", "#AA4499")


def text_color(background: tuple[float, float, float, float]) -> str:
    """Return white or black, whichever is read on a colour."""
    red, green, blue, _ = background
    return "white" if 0.3 * red + 0.59 * green + 0.11 * blue < 0.5 else "black"


def with_own(defaults: Mapping[str, ColorType], palette: Mapping[str, ColorType] | None) -> dict[str, ColorType]:
    """Return colours by name, some of them the user's.

    Raises
    ------
    ValueError
        When the user's are of something else.
    """
    own = dict(palette or {})
    if strange := sorted(map(str, own.keys() - defaults.keys())):
        raise ValueError(f"palette= has colours for {strange}; there are {list(defaults)} to colour.")
    return dict(defaults) | own
