"""Colours of points by a column, and what explains them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ._category_colors import MISSING, category_colors
from ._colors import BLUE
from ._legend import dot

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Colormap
    from matplotlib.lines import Line2D
    from matplotlib.typing import ColorType


@dataclass(frozen=True)
class Shades:
    """Colours of points, and what explains them."""

    rgba: NDArray[np.float64]
    """``(n, 4)``."""
    known: NDArray[np.bool_]
    """``(n,)``, of points with a value."""
    handles: list[Line2D]
    """Of categories."""
    scale: ScalarMappable | None
    """Of numbers."""

    @classmethod
    def one(cls, n: int, color: ColorType = BLUE) -> Shades:
        """Return one colour for all."""
        from matplotlib.colors import to_rgba_array

        return cls(to_rgba_array([color] * n), np.ones(n, dtype=np.bool_), [], None)

    @classmethod
    def of(
        cls,
        column: pd.Series,
        where: str,
        palette: str | Sequence[ColorType] | Mapping[str, ColorType] | None,
        cmap: str | Colormap,
        uns: Mapping[str, Any],
        missing: str = "missing",
    ) -> Shades:
        """Return colours of a column.

        Parameters
        ----------
        column
            A value for each point.
        where
            Table that it is a column of, for messages.
        palette
            Colours of categories, as in :func:`category_colors`.
        cmap
            Colours of numbers.
        uns
            Where scanpy may have left colours of the column.
        missing
            What points without a value are called.

        Raises
        ------
        ValueError
            When there is no number to colour by, or a colour too few.
        """
        import matplotlib as mpl
        import pandas as pd
        from matplotlib.cm import ScalarMappable
        from matplotlib.colors import Normalize, to_rgba_array

        if pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_bool_dtype(column):
            values = column.to_numpy(dtype=np.float64, na_value=np.nan)
            if not (finite := np.isfinite(values)).any():
                raise ValueError(f"{where}[{column.name!r}] has no finite value to colour by.")
            colors = mpl.colormaps[cmap] if isinstance(cmap, str) else cmap
            scale = ScalarMappable(Normalize(values[finite].min(), values[finite].max()), colors)
            rgba = to_rgba_array([MISSING] * len(values))
            rgba[finite] = scale.to_rgba(values[finite])
            return cls(rgba, finite, [dot(MISSING, missing)] * (not finite.all()), scale)
        found = column.astype("category").cat.remove_unused_categories()
        names = [str(name) for name in found.cat.categories]
        own = category_colors(names, palette, _left_by_scanpy(uns, column))
        known = found.notna().to_numpy()
        handles = [dot(shade, name) for shade, name in zip(own, names, strict=True)]
        handles += [dot(MISSING, missing)] * (not known.all())
        return cls(to_rgba_array([*own, MISSING])[np.asarray(found.cat.codes)], known, handles, None)


def _left_by_scanpy(uns: Mapping[str, Any], column: pd.Series) -> Sequence[str] | None:
    """Return the colours of the categories in use that scanpy left, where they are of these categories."""
    left = uns.get(f"{column.name}_colors")
    if left is None or column.dtype != "category" or len(left) != len(column.cat.categories):
        return None
    used = set(column.dropna())
    return [str(own) for own, name in zip(left, column.cat.categories, strict=True) if name in used]
