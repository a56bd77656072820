"""Where genes lie among one another for the model."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from scgpt._messages import listed

from ._embedding_axes import bare_axes
from ._finish import finish
from ._gene_shades import PROGRAM, gene_column, genes_named, shades_of_genes
from ._legend import color_bar, columns_that_fit, legend_above, legend_height
from ._marker_genes import marker_genes
from ._names_beside import write_names
from ._shades import Shades
from ._written import written

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap
    from matplotlib.transforms import Bbox
    from matplotlib.typing import ColorType

# Inches: a column of a page.
_WIDTH = 3.4


def gene_embedding(
    adata: AnnData,
    *,
    color: str | None = None,
    groupby: str | None = None,
    basis: str = "scgpt_gene",
    n_genes: int = 50,
    layer: str | None = None,
    label: str | Iterable[str] = (),
    size: float | None = None,
    palette: str | Sequence[ColorType] | Mapping[str, ColorType] | None = None,
    cmap: str | Colormap = "viridis",
    ax: Axes | None = None,
    show: bool | None = None,
    save: str | Path | None = None,
) -> Axes | None:
    """Draw the embeddings of genes in two dimensions :cite:p:`Cui2024`.

    Genes of more dimensions are drawn by UMAP of their nearest neighbours by cosine, with a fixed seed. Genes that the
    model does not know are left out.

    Parameters
    ----------
    adata
        Cells whose genes have embeddings, as :func:`scgpt.tl.gene_programs` writes them.
    color
        Column of ``.var`` to colour by; numbers have a colour bar. By default the programs, where there are some, whose
        names stand among their genes where there is room for them.
    groupby
        Column of ``.obs`` with groups of cells, such as types, to colour genes by instead: each marker by the group it
        is a marker of, and other genes grey.
    basis
        Key of ``.varm`` with the embeddings. One of two dimensions is drawn as it is.
    n_genes
        Most markers of a group: the genes drawn that :func:`scanpy.tl.rank_genes_groups` puts first. One of several groups
        is of that where its score is highest.
    layer
        Layer with the values that markers are sought in; ``.X`` by default. Counts are normalised and log-transformed for it.
    label
        Genes whose names to write; they are rimmed.
    size
        Area of a point in square points, as in :func:`scanpy.pl.embedding`.
    palette
        Colours of categories: by their names, in their order, or the name of a colour map. By default those that scanpy
        left in ``.uns``; else up to nine that all people tell apart, and scanpy's where there are more.
    cmap
        Colours of numbers.
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
        When there is no such embedding, column, layer or gene.
    ValueError
        When too few genes have an embedding; when there are two columns to colour by, fewer than two groups of two cells, or
        more categories than colours; when ``n_genes`` makes no sense.

    Examples
    --------
    >>> import scanpy as sc
    >>> import scgpt
    >>> adata = sc.datasets.pbmc68k_reduced()[::5].raw.to_adata()
    >>> scgpt.tl.gene_programs(adata, "mini", genes="all", n_runs=1, progress_bar=False)
    >>> ax = scgpt.pl.gene_embedding(adata, groupby="bulk_labels", label=["CD79A", "NKG7"], show=False)
    """
    import matplotlib.pyplot as plt

    if color is not None and groupby is not None:
        raise ValueError("color= and groupby= both name a column to colour by: pass one of them.")
    if n_genes < 1:
        raise ValueError(f"n_genes has to be 1 or more, and is {n_genes}.")
    genes, values = _embedded(adata, basis)
    wanted = genes_named(adata, label, "label")
    if lacking := [adata.var_names[i] for i in wanted if i not in genes]:
        raise KeyError(f"label= names {listed(lacking)}, without an embedding in .varm[{basis!r}].")
    if groupby is not None:
        column = marker_genes(adata, genes, groupby, n_genes, layer)
        shades, title = Shades.of(column, ".obs", palette, cmap, adata.uns, missing="other"), groupby
    else:
        if color is None and PROGRAM in adata.var:
            color = PROGRAM
        shades, title = shades_of_genes(adata, genes, color, palette, cmap)
    places = values if values.shape[1] == 2 else _umap(values)
    handles = shades.handles
    if title == "program":  # there may be more of them than colours that one tells apart
        handles = [handle for handle in handles if handle.get_label() == "none"]

    area = float(np.clip(4000 / len(genes), 3, 12)) if size is None else size
    n_columns = columns_that_fit(handles, _WIDTH - 0.3)  # the axes have a name at their left
    if ax is None:
        height = _WIDTH - 0.3 + legend_height(len(handles), n_columns)
        _, ax = plt.subplots(figsize=(_WIDTH, height), layout="constrained")
    rimmed = np.isin(genes, wanted)
    for rows, rim in ((~shades.known & ~rimmed, "none"), (shades.known & ~rimmed, "none"), (rimmed, "black")):
        if rows.any():
            ax.scatter(places[rows, 0], places[rows, 1], area, shades.rgba[rows], edgecolors=rim, linewidths=0.8)
    bare_axes(ax, basis if values.shape[1] == 2 else "X_umap")
    if shades.scale is not None:
        color_bar(ax, shades.scale, title)
    if handles:
        legend_above(ax, handles, title, n_columns)
    place = dict(zip(genes.tolist(), places, strict=True))
    names = {str(adata.var_names[i]): place[i] for i in wanted}
    covered = write_names(ax, names, area**0.5 / 2, all_of_them=True)
    if title == "program":
        _name_programs(ax, gene_column(adata, PROGRAM).iloc[genes], places, covered)
    return finish(ax, show, save)


def _name_programs(ax: Axes, column: pd.Series, places: NDArray[np.float64], covered: list[Bbox]) -> None:
    """Write programs in the middle of their genes, where no name is of a gene or of a larger program."""
    from matplotlib.patheffects import withStroke

    written = [*covered]
    for name in column.astype("category").cat.remove_unused_categories().cat.categories:  # the largest first
        x, y = np.median(places[(column == name).to_numpy()], 0)
        style: dict[str, Any] = {"ha": "center", "va": "center", "fontsize": 6.5, "fontweight": "bold", "zorder": 4}
        text = ax.text(x, y, str(name), path_effects=[withStroke(linewidth=1.8, foreground="white")], **style)
        box = text.get_window_extent()
        if box.count_overlaps(written):
            text.remove()
        else:
            written.append(box)


def _embedded(adata: AnnData, basis: str) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """Return the genes with an embedding, and these."""
    values = np.asarray(written(adata.varm, basis, ".varm", "gene_programs(adata, model)"), dtype=np.float64)
    if values.ndim != 2 or values.shape[1] < 2:
        raise ValueError(f".varm[{basis!r}] has shape {values.shape}; there have to be two dimensions to draw.")
    genes = np.flatnonzero(np.isfinite(values).all(1))
    if len(genes) < 3:
        raise ValueError(f"{len(genes)} of {len(values)} genes have an embedding in .varm[{basis!r}]: too few to draw.")
    return genes, values[genes]


def _umap(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return where UMAP puts genes."""
    import scanpy as sc
    from anndata import AnnData

    genes = AnnData(values.astype(np.float32))
    n_neighbors = min(15, len(values) - 1)
    # Exact neighbours, for there are thousands of genes at most; and no compiling of approximate ones.
    sc.pp.neighbors(genes, n_neighbors, use_rep="X", metric="cosine", transformer="sklearn", random_state=0)
    sc.tl.umap(genes, random_state=0)
    return np.asarray(genes.obsm["X_umap"], dtype=np.float64)
