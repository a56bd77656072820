"""Whether predictions are right as often as their confidence says."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ._colors import BLUE, with_own
from ._finish import finish

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.axes import Axes
    from matplotlib.typing import ColorType


def confidence(
    adata: AnnData,
    label_key: str,
    prediction_key: str = "scgpt_label",
    confidence_key: str | None = None,
    *,
    probabilities: str | None = None,
    unknown_label: str | None = None,
    n_bins: int = 15,
    palette: Mapping[str, ColorType] | None = None,
    ax: Axes | None = None,
    show: bool | None = None,
    save: str | Path | None = None,
) -> Axes | None:
    """Draw a reliability diagram: the accuracy of predictions against their confidence :cite:p:`Guo2017`.

    Cells are put into bins of equal width by their confidence, and each bin with a cell is a point at its mean confidence
    and its accuracy. On the dashed line the two are the same; below it, predictions are more confident than right. Above
    stands a histogram of the confidence in the same bins. The expected calibration error that is written on
    top is that of :func:`scgpt.metrics.annotation_scores`.

    Parameters
    ----------
    adata
        Cells with their true and predicted types.
    label_key
        Column of ``.obs`` with the true types.
    prediction_key
        Column of ``.obs`` with the predicted types.
    confidence_key
        As in :func:`scgpt.metrics.annotation_scores`.
    probabilities
        As in :func:`scgpt.metrics.annotation_scores`.
    unknown_label
        Predicted label of cells that were not answered; they are left out.
    n_bins
        Number of bins.
    palette
        Colours for the ``"bins"`` and the ``"diagonal"``.
    ax
        Axes to draw on; the histogram is put on their top edge. A new figure by default.
    show
        Show the figure; by default as scanpy's settings say.
    save
        File to save the figure to.

    Returns
    -------
    The axes of the diagram, unless the figure is shown; the histogram's are the first of their ``child_axes``.

    Raises
    ------
    KeyError
        When a column or the probabilities are not there.
    ValueError
        When there is no confidence, or it is not one; when no cell was answered, or ``palette`` makes no sense.

    Examples
    --------
    >>> import numpy as np
    >>> import scanpy as sc
    >>> import scgpt
    >>> adata = sc.datasets.pbmc68k_reduced().raw.to_adata()
    >>> train = np.arange(adata.n_obs) % 2 == 0
    >>> scgpt.metrics.baselines.knn_pca(adata, "bulk_labels", normalize=False, train=train)  # or scgpt.tl.annotate
    >>> ax = scgpt.pl.confidence(adata[~train], "bulk_labels", "knn_pca", show=False)
    """
    import matplotlib.pyplot as plt

    from scgpt.metrics._calibration import CalibrationBins
    from scgpt.metrics._predictions import Predictions, confidence_of

    colors = with_own({"bins": BLUE, "diagonal": "0.5"}, palette)
    cells = Predictions.of(adata, label_key, prediction_key, unknown_label)
    values = confidence_of(adata, cells, prediction_key, confidence_key, probabilities)
    if values is None:
        raise ValueError(f"No confidence stands beside .obs[{prediction_key!r}]: pass confidence_key or probabilities.")
    if not cells.answered.any():
        raise ValueError(f"All cells are {unknown_label!r} in .obs[{prediction_key!r}]: there is nothing to draw.")
    bins = CalibrationBins.of(values[cells.answered], cells.right[cells.answered], n_bins)
    filled = bins.cells > 0

    if ax is None:
        _, ax = plt.subplots(figsize=(3.3, 3.9), layout="constrained")
    ax.plot([0, 1], [0, 1], color=colors["diagonal"], linestyle="--", linewidth=1)
    means = bins.confidence[filled] / bins.cells[filled]
    ax.plot(means, bins.right[filled] / bins.cells[filled], color=colors["bins"], marker="o", markersize=5)
    ax.set(xlim=(-0.03, 1.03), ylim=(-0.03, 1.03), xticks=np.arange(6) / 5)
    ax.set_xlabel("confidence", fontsize="small")
    ax.set_ylabel("accuracy", fontsize="small")
    ax.tick_params(labelsize="small")

    above = ax.inset_axes((0, 1.04, 1, 0.22), sharex=ax)
    edges = np.linspace(0, 1, n_bins + 1)
    shares = bins.cells / bins.cells.sum()
    above.bar(edges[:-1], shares, 1 / n_bins, align="edge", color=colors["bins"], edgecolor="white", linewidth=0.5)
    above.tick_params(labelbottom=False, labelsize="small")
    above.set_ylabel("share\nof cells", fontsize="small")
    above.set_title(f"ECE {bins.expected_error:.3f}", loc="left", fontsize="small", fontweight="bold")
    above.spines[["top", "right"]].set_visible(False)
    return finish(ax, show, save)
