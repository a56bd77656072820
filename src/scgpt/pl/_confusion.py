"""Which types are taken for which."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from ._colors import text_color
from ._finish import finish
from ._legend import color_bar
from ._squares import draw_squares, fit_names

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap

# Inches: a square that holds a number of two decimals, and a letter of a type's name.
_SQUARE, _LETTER = 0.27, 0.06
# Points of its digits, and those that it takes of these.
_DIGITS, _NUMBER_WIDTH = 6.5, 2.4


def confusion(
    adata: AnnData,
    label_key: str,
    prediction_key: str = "scgpt_label",
    *,
    normalize: Literal["true", "predicted"] | None = "true",
    cmap: str | Colormap = "Blues",
    ax: Axes | None = None,
    show: bool | None = None,
    save: str | Path | None = None,
) -> Axes | None:
    """Draw how many cells of each true type were called what.

    A row is a true type and a column a predicted one, in the order of the categories; what is predicted and true of no cell,
    as a label for unknown cells, comes last. Numbers are written where there is room for them, and a colour bar stands in
    their place where there is none; what rounds to zero is left empty.

    Parameters
    ----------
    adata
        Cells with their true and predicted types.
    label_key
        Column of ``.obs`` with the true types.
    prediction_key
        Column of ``.obs`` with the predicted types.
    normalize
        Show shares of each true type, whose diagonal is the recall; or of each predicted one, whose diagonal is the
        precision; or with None numbers of cells.
    cmap
        Colours from 0 to 1, or to the largest number of cells.
    ax
        Axes to draw on; a new figure of fitting size by default.
    show
        Show the figure; by default as scanpy's settings say.
    save
        File to save the figure to.

    Returns
    -------
    The axes, unless the figure is shown.

    Raises
    ------
    KeyError
        When a column is not there.
    ValueError
        When a label or prediction is missing.

    Examples
    --------
    >>> import scanpy as sc
    >>> import scgpt
    >>> adata = sc.datasets.pbmc68k_reduced()
    >>> scgpt.metrics.baselines.majority_class(adata, "bulk_labels", key_added="called")  # or scgpt.tl.annotate
    >>> ax = scgpt.pl.confusion(adata, "bulk_labels", "called", show=False)
    """
    import matplotlib as mpl
    import matplotlib.pyplot as plt

    from scgpt.metrics._predictions import Predictions

    if normalize not in ("true", "predicted", None):
        raise ValueError(f"normalize has to be 'true', 'predicted' or None, and is {normalize!r}.")
    cells = Predictions.of(adata, label_key, prediction_key, unknown_label=None)
    table = cells.table()
    if normalize is not None:
        totals = table.sum(1 if normalize == "true" else 0, keepdims=True)
        table = np.divide(table, totals, out=np.zeros_like(table), where=totals > 0)
    n_rows, n_columns = table.shape

    if ax is None:
        names = _LETTER * max(map(len, cells.names)) + 0.4
        size = max(_SQUARE * n_columns, 1.2) + names, max(_SQUARE * n_rows, 1.2) + names
        _, ax = plt.subplots(figsize=size, layout="constrained")
    colors = mpl.colormaps[cmap] if isinstance(cmap, str) else cmap
    largest = table.max() if normalize is None else 1
    image = draw_squares(ax, table, cells.types, cells.names, colors, (0, largest), fontsize="x-small")
    ax.set_xlabel("predicted", fontsize="small")
    ax.set_ylabel("true", fontsize="small")

    number_width = _NUMBER_WIDTH * (len(f"{largest:.0f}") if normalize is None else 4) / 4
    width, height = fit_names(ax, least=5 * number_width)
    points = min(_DIGITS, width / number_width, height / 1.2)
    if points < 5:  # none can be read
        color_bar(ax, image, "cells" if normalize is None else f"share of {normalize} type")
        fit_names(ax)
        return finish(ax, show, save)
    for y, row in enumerate(table):
        for x, value in enumerate(row):
            text = f"{value:.0f}" if normalize is None else f"{value:.2f}"
            if float(text) > 0:
                color = text_color(colors(value / largest))
                ax.text(x, y, text, ha="center", va="center", fontsize=points, color=color)
    return finish(ax, show, save)
