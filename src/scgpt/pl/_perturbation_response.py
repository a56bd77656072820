"""What a perturbation does to genes, observed and predicted."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from scgpt._messages import listed, warn_user

from ._colors import SKY, VERMILLION, with_own
from ._finish import finish
from ._legend import legend_above

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.typing import ColorType

    from scgpt.metrics._moments import LogValues

# Inches: a column of a page, and what a gene takes of it.
_WIDTH, _GENE, _BESIDE = 3.5, 0.145, 0.6
_DARK = "0.25"


def perturbation_response(
    observed: AnnData,
    predicted: AnnData,
    perturbation: str,
    *,
    perturbation_key: str = "perturbation",
    control: str = "control",
    sep: str = "+",
    n_genes: int = 20,
    genes: str | Iterable[str] | None = None,
    rank_by: Literal["t", "change"] = "t",
    layer: str | None = None,
    kind: Literal["box", "violin"] = "box",
    palette: Mapping[str, ColorType] | None = None,
    ax: Axes | None = None,
    show: bool | None = None,
    save: str | Path | None = None,
) -> Axes | None:
    """Draw how the genes that a perturbation changes most do so in observed cells, and how it was predicted :cite:p:`Cui2024`.

    A change is a difference to the mean of the observed control cells, of which the dashed line at 0 is none; that of the
    prediction is to the same mean, as in :func:`scgpt.metrics.perturbation_scores`. A box spans the quartiles of cells with
    a line at the median, and its whiskers reach the last cell within 1.5 times its height; cells beyond are not drawn. The
    circle is the mean of the observed cells, which the diamond, the predicted mean, would lie on. Where cells were
    predicted, they have boxes of their own. Names of perturbed genes are bold.

    Parameters
    ----------
    observed
        Control cells and cells under the perturbation.
    predicted
        What :func:`scgpt.tl.perturb` or a baseline predicted: means or cells, log-normalised in ``.X``.
    perturbation
        Its name; the order of genes in it has no meaning.
    perturbation_key
        Column of ``.obs`` with the perturbations; of the predictions ``"perturbation"`` where they do not have it.
    control
        Label of control cells.
    sep
        Between the genes of one perturbation.
    n_genes
        Number of genes to draw, of those that are in both.
    genes
        Genes to draw instead, in this order.
    rank_by
        Genes come in the order of the absolute value of Welch's ``"t"`` of the observed cells against control, as in
        :func:`scanpy.tl.rank_genes_groups`, or of the mean ``"change"``, also where there are too few cells for a test.
    layer
        Layer of ``observed`` with log-normalised values; ``.X`` by default.
    kind
        Draw boxes, or violins, whose width is the density of cells.
    palette
        Colours for ``"observed"`` and ``"predicted"``.
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
        When a column or layer is not there, or the perturbation or a gene is not in one of the two.
    ValueError
        When the perturbation is control; when there is no control cell, no gene in both or none to draw; when values are
        missing; when ``rank_by``, ``kind`` or ``palette`` make no sense.

    Warns
    -----
    UserWarning
        When ``observed`` seems to hold counts.

    Examples
    --------
    >>> import scanpy as sc
    >>> import scgpt
    >>> adata = sc.datasets.pbmc68k_reduced()[:60].raw.to_adata()
    >>> adata.obs["perturbation"] = ["control", "CD79A", "NKG7"] * 20  # made up
    >>> predicted = scgpt.metrics.baselines.mean_of_perturbations(adata, ["CD79A"])  # or scgpt.tl.perturb
    >>> ax = scgpt.pl.perturbation_response(adata, predicted, "CD79A", n_genes=10, show=False)
    """
    import matplotlib.pyplot as plt
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    from scgpt.metrics import perturbed_by

    if rank_by not in ("t", "change"):
        raise ValueError(f"rank_by has to be 't' or 'change', and is {rank_by!r}.")
    if kind not in ("box", "violin"):
        raise ValueError(f"kind has to be 'box' or 'violin', and is {kind!r}.")
    if n_genes < 1:
        raise ValueError(f"n_genes has to be 1 or more, and is {n_genes}.")
    colors = with_own({"observed": SKY, "predicted": VERMILLION}, palette)
    both = _Expression.of(observed, predicted, perturbation, perturbation_key, control, sep, layer)
    columns = both.ranked(rank_by)[:n_genes] if genes is None else both.named(genes, observed, predicted)
    seen, guessed = both.changes(columns)
    x = np.arange(len(columns), dtype=np.float64)
    several = len(guessed) > 1

    if ax is None:
        _, ax = plt.subplots(figsize=(max(_WIDTH, _GENE * len(x) + _BESIDE), 3), layout="constrained")
    ax.axhline(0, color="0.4", linestyle="--", linewidth=0.8, zorder=0)
    apart, width = (0.21, 0.36) if several else (0.0, 0.66)
    _spread(ax, seen, x - apart, width, kind, colors["observed"])
    if several:
        _spread(ax, guessed, x + apart, width, kind, colors["predicted"])
    style: dict[str, Any] = {"linestyle": "none", "markeredgecolor": "black", "markeredgewidth": 0.6, "zorder": 4}
    circle = style | {"marker": "o", "markersize": 3.5, "markerfacecolor": "white"}
    diamond = style | {"marker": "D", "markersize": 3.8, "markerfacecolor": colors["predicted"]}
    ax.plot(x - apart, seen.mean(0), **circle)
    ax.plot(x + apart, guessed.mean(0), **diamond)

    names = both.genes[columns]
    ax.set_xticks(x, names, rotation=90, fontsize="x-small")
    perturbed = perturbed_by(perturbation, control=control, sep=sep)
    for text, name in zip(ax.get_xticklabels(), names, strict=True):
        text.set_fontweight("bold" if name in perturbed else "normal")
    ax.set(xlim=(-0.6, len(x) - 0.4))
    ax.set_ylabel("change from mean of control", fontsize="small")
    ax.tick_params(axis="y", labelsize="small")
    ax.tick_params(axis="x", length=2)
    ax.spines[["top", "right"]].set_visible(False)
    handles: list[Artist] = [
        Patch(facecolor=colors["observed"], edgecolor=_DARK, label=_counted("observed", len(seen))),
        Line2D([], [], label="their mean", **circle),
        Line2D([], [], label="their mean" if several else "predicted mean", **diamond),
    ]
    if several:
        handles.insert(
            2, Patch(facecolor=colors["predicted"], edgecolor=_DARK, label=_counted("predicted", len(guessed)))
        )
    legend_above(ax, handles, perturbation, 2 if several else 3)
    return finish(ax, show, save)


@dataclass(frozen=True)
class _Expression:
    """Of the genes that are both observed and predicted, under one perturbation and in control."""

    genes: pd.Index
    observed: LogValues
    rows: NDArray[np.intp]
    """Of the observed cells, those under the perturbation."""
    control_rows: NDArray[np.intp]
    predicted: LogValues
    """Under the perturbation."""

    @classmethod
    def of(
        cls,
        observed: AnnData,
        predicted: AnnData,
        perturbation: str,
        perturbation_key: str,
        control: str,
        sep: str,
        layer: str | None,
    ) -> _Expression:
        from scgpt.metrics._moments import LogValues
        from scgpt.metrics._perturbation_inputs import check_unique_genes
        from scgpt.metrics._perturbations import PERTURBATION_KEY, PerturbationGroups, canonical_name

        name = canonical_name(perturbation, control, sep)
        if name == control:
            raise ValueError(f"{perturbation!r} is control, which changes nothing: name a perturbation.")
        key = perturbation_key if perturbation_key in predicted.obs else PERTURBATION_KEY
        for adata, column, what in ((observed, perturbation_key, "observed"), (predicted, key, "predicted")):
            check_unique_genes(adata, what)
            if column not in adata.obs:
                raise KeyError(
                    f"There is no column {column!r} in .obs of what is {what}, which has {list(adata.obs.columns)}: name "
                    "that of the perturbations by perturbation_key=."
                )
        seen = PerturbationGroups.of(observed, perturbation_key, control, sep)
        if name not in seen.rows:
            raise KeyError(f"No observed cell is under {name!r}; there are cells under {listed(seen.names)}.")
        guessed = PerturbationGroups.of(predicted, key, control, sep, needs_control=False)
        if name not in guessed.rows:
            raise KeyError(
                f"{name!r} is not among the predictions, which are of {listed(guessed.names)}: pass it to "
                "scgpt.tl.perturb, too."
            )
        columns = np.flatnonzero(observed.var_names.isin(predicted.var_names))
        genes = observed.var_names[columns]
        if not len(genes):
            raise ValueError(
                f"No gene is both observed and predicted: .var_names are {listed(observed.var_names, 3)}, and "
                f"{listed(predicted.var_names, 3)}."
            )
        rows, control_rows = seen.rows[name], seen.control_rows
        read = np.sort(np.concatenate([rows, control_rows]))  # no others, which may be many
        values = LogValues.of(observed[read], layer, columns)
        if values.look_like_counts:
            where = "`.X`" if layer is None else f"Layer {layer!r}"
            warn_user(f"{where} of the observed cells seems to hold counts; predictions are log-normalised values.")
        places = predicted.var_names.get_indexer(genes)
        guesses = LogValues.of(predicted[guessed.rows[name]], None, places)
        for found, what in ((values, "observed"), (guesses, "predicted")):
            matrix = found.matrix
            if not np.isfinite(matrix if isinstance(matrix, np.ndarray) else matrix.data).all():
                raise ValueError(f"There are NaN or infinite values in what is {what} of {name} or of control.")
        return cls(genes, values, np.searchsorted(read, rows), np.searchsorted(read, control_rows), guesses)

    def ranked(self, rank_by: Literal["t", "change"]) -> NDArray[np.intp]:
        """Return genes, those first that differ most between observed cells and control."""
        from scgpt.metrics._significance import welch_t

        cells, control = (self.observed.moments([rows]) for rows in (self.rows, self.control_rows))
        testable = min(len(self.rows), len(self.control_rows)) > 1
        score = welch_t(cells, control) if rank_by == "t" and testable else cells.mean - control.mean
        return np.argsort(-np.abs(score[0]), kind="stable")

    def named(self, genes: str | Iterable[str], observed: AnnData, predicted: AnnData) -> NDArray[np.intp]:
        """Return genes that the user names."""
        names = list(dict.fromkeys([genes] if isinstance(genes, str) else genes))
        if not names:
            raise ValueError("genes= names no gene; leave it out to draw those that differ most.")
        for adata, what in ((observed, "observed"), (predicted, "predicted")):
            if lacking := [name for name in names if name not in adata.var_names]:
                raise KeyError(f"genes= names {listed(lacking)}, not in .var_names of what is {what}.")
        return self.genes.get_indexer(names)  # type: ignore[arg-type]

    def changes(self, columns: NDArray[np.intp]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return observed and predicted changes of some genes from the mean of control, a row for each cell."""
        control = _dense(self.observed, self.control_rows, columns).mean(0)
        all_rows = np.arange(self.predicted.matrix.shape[0])
        return (
            _dense(self.observed, self.rows, columns) - control,
            _dense(self.predicted, all_rows, columns) - control,
        )


def _dense(values: LogValues, rows: NDArray[np.intp], columns: NDArray[np.intp]) -> NDArray[np.float64]:
    chosen = values.cells(rows)[:, columns]
    return np.asarray(chosen if isinstance(chosen, np.ndarray) else chosen.toarray(), dtype=np.float64)


def _spread(
    ax: Axes,
    values: NDArray[np.float64],
    positions: NDArray[np.float64],
    width: float,
    kind: Literal["box", "violin"],
    color: ColorType,
) -> None:
    """Draw how cells, rows, are spread in each gene."""
    if kind == "violin":
        parts = ax.violinplot(values, positions, widths=width, showextrema=False)
        for body in parts["bodies"]:  # type: ignore[attr-defined]
            body.set(facecolor=color, edgecolor=_DARK, linewidth=0.6, alpha=1)
        return
    thin = {"color": _DARK, "linewidth": 0.7}
    ax.boxplot(
        values,
        positions=positions,
        widths=width,
        showfliers=False,
        patch_artist=True,
        manage_ticks=False,
        boxprops={"facecolor": color, "edgecolor": _DARK, "linewidth": 0.7},
        medianprops=thin,
        whiskerprops=thin,
        capprops=thin,
    )


def _counted(what: str, n: int) -> str:
    return f"{n:,} {what} cell{'s' if n > 1 else ''}"
