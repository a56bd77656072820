"""Names beside points, that do not lie on one another."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.text import Annotation
    from matplotlib.transforms import Bbox

# Where a name may lie, the better places first: direction and alignment.
_SIDES: tuple[tuple[float, float, str, str], ...] = (
    (1, 0, "left", "center"),
    (-1, 0, "right", "center"),
    (0, 1, "center", "bottom"),
    (0, -1, "center", "top"),
    (0.7, 0.7, "left", "bottom"),
    (-0.7, 0.7, "right", "bottom"),
    (0.7, -0.7, "left", "top"),
    (-0.7, -0.7, "right", "top"),
)


def write_names(
    ax: Axes,
    places: Mapping[str, NDArray[np.float64]],
    radius: float,
    *,
    all_of_them: bool,
    clear_of: NDArray[np.float64] | None = None,
) -> list[Bbox]:
    """Write names beside points on a side that is free; those without one only if all are wanted.

    Returns what they cover, in pixels.

    Parameters
    ----------
    ax
        Axes, with all else on them.
    places
        For each name, ``(2,)`` where its point is in data coordinates.
    radius
        Of the points, in points of print.
    all_of_them
        Write names on others where no side is free.
    clear_of
        ``(n, 2)`` points in data coordinates on which no name lies that has another free side.
    """
    from matplotlib.patheffects import withStroke
    from matplotlib.transforms import Bbox

    figure = ax.get_figure(root=True)
    assert figure is not None
    figure.draw_without_rendering()  # gives the axes their size
    within = ax.get_window_extent()
    written: list[Bbox] = []
    points: list[Bbox] = []
    if clear_of is not None:
        half = radius * figure.dpi / 72
        points = [Bbox.from_extents(*(at - half), *(at + half)) for at in ax.transData.transform(clear_of)]
    for name, place in places.items():
        text = ax.annotate(
            name,
            (float(place[0]), float(place[1])),
            xytext=(0, 0),
            textcoords="offset points",
            fontsize=6,
            path_effects=[withStroke(linewidth=1.5, foreground="white")],
            zorder=5,
        )
        text.set_in_layout(False)
        best, fewest = _SIDES[0], np.inf
        for side in _SIDES:
            box = _put(text, side, radius)
            inside = within.x0 <= box.x0 and box.x1 <= within.x1 and within.y0 <= box.y0 and box.y1 <= within.y1
            if inside and not box.count_overlaps(written) and (covered := box.count_overlaps(points)) < fewest:
                best, fewest = side, covered
            if fewest == 0:
                break
        if fewest == np.inf and not all_of_them:
            text.remove()
            continue
        written.append(_put(text, best, radius))
    return written


def _put(text: Annotation, side: tuple[float, float, str, str], radius: float) -> Bbox:
    """Move a name to one side of its place, and return what it covers, in pixels."""
    x, y, horizontal, vertical = side
    text.set(
        position=((radius + 0.5) * x, (radius + 0.5) * y), horizontalalignment=horizontal, verticalalignment=vertical
    )
    return text.get_window_extent()
