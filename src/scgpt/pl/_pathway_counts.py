"""How many pathways gene programs find."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ._colors import BLUE, ORANGE, with_own
from ._finish import finish
from ._legend import legend_above
from ._written import written, written_table

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.axes import Axes
    from matplotlib.typing import ColorType

_CALL = "compare_pathways(adata, model, gmt)"
_LABELS = {"model": "model", "coexpression": "co-expression", "shared": "in both"}
_STYLES: dict[str, dict[str, Any]] = {
    "model": {"marker": "o", "linestyle": "-"},
    "coexpression": {"marker": "s", "linestyle": "-"},
    "shared": {"marker": "", "linestyle": "--"},
}


def pathway_counts(
    adata: AnnData,
    *,
    key: str = "scgpt_pathways",
    palette: Mapping[str, ColorType] | None = None,
    ax: Axes | None = None,
    show: bool | None = None,
    save: str | Path | None = None,
) -> Axes | None:
    """Draw in how many gene sets the programs of the model and those of co-expression are enriched :cite:p:`Cui2024`.

    The dashed line is the number of sets that both find.

    Parameters
    ----------
    adata
        Cells that :func:`scgpt.tl.compare_pathways` was called on.
    key
        Key of ``.uns`` with the numbers.
    palette
        Colours for ``"model"``, ``"coexpression"`` and ``"shared"``.
    ax
        Axes to draw on; a new figure by default.
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
        When the verb was not called.
    ValueError
        When there is nothing to draw, or ``palette`` makes no sense.

    Examples
    --------
    >>> import scanpy as sc
    >>> import scgpt
    >>> adata = sc.datasets.pbmc68k_reduced()[::10].raw.to_adata()
    >>> sets = {"cytotoxicity": ["NKG7", "GNLY", "GZMA", "GZMB", "GZMH", "PRF1", "CST7", "CTSW"]}  # or a GMT file
    >>> scgpt.tl.compare_pathways(adata, "mini", sets, resolutions=[1, 5], genes="all", progress_bar=False)
    >>> ax = scgpt.pl.pathway_counts(adata, show=False)
    """
    import matplotlib.pyplot as plt
    from matplotlib.ticker import MaxNLocator, NullLocator

    colors = with_own({"model": BLUE, "coexpression": ORANGE, "shared": "0.35"}, palette)
    found = written(adata.uns, key, ".uns", _CALL)
    table = written_table(found, "counts", f".uns[{key!r}]", _CALL, ["resolution", *_LABELS])
    table = table.sort_values("resolution", kind="stable")
    resolutions = table["resolution"].to_numpy(dtype=np.float64)

    if ax is None:
        _, ax = plt.subplots(figsize=(3.4, 2.6), layout="constrained")
    lines = [
        ax.plot(
            resolutions,
            table[column].to_numpy(dtype=np.float64),
            color=colors[column],
            label=label,
            linewidth=1.5,
            markersize=5,
            **_STYLES[column],
        )[0]
        for column, label in _LABELS.items()
    ]
    ax.set_xscale("log")
    # As many of the resolutions as can be read, instead of powers of ten.
    apart = (resolutions[-1] / resolutions[0]) ** 0.09
    ticks = [resolutions[0]]
    for resolution in resolutions[1:]:
        if resolution >= apart * ticks[-1]:
            ticks.append(resolution)
    ax.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    ax.xaxis.set_minor_locator(NullLocator())
    ax.yaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
    ax.set_ylim(bottom=0)
    ax.set_xlabel("resolution of programs", fontsize="small")
    ax.set_ylabel("enriched gene sets", fontsize="small")
    ax.tick_params(labelsize="small")
    ax.spines[["top", "right"]].set_visible(False)
    legend_above(ax, lines, "", len(lines), handle_length=2)
    return finish(ax, show, save)
