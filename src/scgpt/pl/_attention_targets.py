"""The genes that attend most to a regulator."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ._colors import BLUE, VERMILLION, with_own
from ._finish import finish
from ._legend import dot, legend_above
from ._named_rows import name_rows

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.axes import Axes
    from matplotlib.typing import ColorType

    from scgpt.get._attention import AttentionMode


def attention_targets(
    adata: AnnData,
    regulator: str,
    *,
    group: str | None = None,
    mode: AttentionMode | None = None,
    n_targets: int = 20,
    min_cells: int = 10,
    key: str = "scgpt_attention",
    palette: Mapping[str, ColorType] | None = None,
    ax: Axes | None = None,
    show: bool | None = None,
    save: str | Path | None = None,
) -> Axes | None:
    """Draw the genes that attend most to a regulator, the first on top :cite:p:`Cui2024`.

    Lines lead to them from the score that chance gives, or of a difference from 0; colours tell the two sides.

    Parameters
    ----------
    adata
        Cells that :func:`scgpt.tl.attention_network` was called on.
    regulator
        Gene whose targets to draw: any whose attention was read.
    group
        As in :func:`scgpt.get.attention_targets`, as the four that follow.
    mode
        See there.
    n_targets
        See there.
    min_cells
        See there.
    key
        See there.
    palette
        Colours for ``"higher"`` scores and ``"lower"`` ones than these.
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
        As :func:`scgpt.get.attention_targets`.
    ValueError
        As there; when no gene has a score, or ``palette`` makes no sense.

    Examples
    --------
    >>> import scanpy as sc
    >>> import scgpt
    >>> adata = sc.datasets.pbmc68k_reduced()[:50].raw.to_adata()
    >>> genes = ["CD74", "HLA-DRA", "LYZ", "CST3", "NKG7"]
    >>> scgpt.tl.attention_network(adata, "mini", genes=genes, progress_bar=False)
    >>> ax = scgpt.pl.attention_targets(adata, "CD74", show=False)
    """
    import matplotlib.pyplot as plt

    from scgpt.get import attention_targets

    colors = with_own({"higher": VERMILLION, "lower": BLUE}, palette)
    table = attention_targets(
        adata, regulator, group=group, mode=mode, n_targets=n_targets, min_cells=min_cells, key=key
    )
    if table.empty:
        raise ValueError(f"No gene is in enough cells beside {regulator!r}: there is nothing to draw.")
    group, mode = str(table["group"].iloc[0]), table["mode"].iloc[0]
    values = table["score"].to_numpy(dtype=np.float64)
    names = table["target"].astype(str).to_list()
    by_chance = 0.0 if mode == "difference" else 0.5  # of mean ranks
    signs = ["lower" if value < by_chance else "higher" for value in values]

    y = range(len(names))
    if ax is None:
        _, ax = plt.subplots(figsize=(3.4, 0.145 * len(names) + 1.0), layout="constrained")
    shades = [colors[sign] for sign in signs]
    ax.hlines(y, by_chance, values, colors=shades, linewidth=1.5, zorder=2)
    ax.scatter(values, y, s=22, c=shades, zorder=3)
    ax.axvline(by_chance, color="0.3", linewidth=0.8, zorder=1)
    ax.grid(axis="x", color="0.9", linewidth=0.6, zorder=0)
    label = "attention score, perturbed − control" if mode == "difference" else "attention score (0.5 by chance)"
    name_rows(ax, names, label, fontsize="x-small")
    title = ", ".join(dict.fromkeys([regulator, "control" if mode == "control" else group]))
    if mode == "difference":
        meanings = {"higher": "higher when perturbed", "lower": "lower"}
        handles = [dot(colors[sign], text) for sign, text in meanings.items() if sign in signs]
        legend_above(ax, handles, title, 2)
    else:
        ax.set_title(title, loc="left", fontsize="small", fontweight="bold")
    return finish(ax, show, save)
