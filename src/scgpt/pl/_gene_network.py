"""Which genes the model takes for alike."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from scgpt._messages import listed

from ._finish import finish
from ._gene_edges import GeneEdges
from ._gene_shades import PROGRAM, gene_column, genes_named, shades_of_genes
from ._legend import color_bar, columns_that_fit, legend_above, legend_height
from ._names_beside import write_names
from ._shades import Shades

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap
    from matplotlib.typing import ColorType

# Inches: a column of a page, and how wide the network may become.
_WIDTH, _WIDEST = 3.4, 5.4
# Genes whose names can be read, in all and in a column of a page.
_MOST, _IN_COLUMN = 150, 50
# Square points of a gene.
_AREA = 26


def gene_network(
    adata: AnnData,
    *,
    genes: Iterable[str] | None = None,
    program: str | None = None,
    around: str | Iterable[str] | None = None,
    key: str = "scgpt_similarity",
    changes: bool = False,
    color: str | None = None,
    label: bool | str | Iterable[str] = True,
    palette: str | Sequence[ColorType] | Mapping[str, ColorType] | None = None,
    cmap: str | Colormap = "viridis",
    ax: Axes | None = None,
    show: bool | None = None,
    save: str | Path | None = None,
) -> Axes | None:
    """Draw genes and their similarities as a network :cite:p:`Cui2024`.

    The wider and darker an edge, the higher the cosine of the two genes' embeddings. Genes lie where the algorithm of
    Fruchterman and Reingold puts them, which is always the same place; a gene without an edge is drawn as well.

    Parameters
    ----------
    adata
        Cells that :func:`scgpt.tl.gene_similarity` was called on.
    genes
        Genes to draw.
    program
        Draw the genes of this program of :func:`scgpt.tl.gene_programs` instead.
    around
        Draw these genes and their neighbours instead; they are rimmed. By default all genes with an edge are drawn.
    key
        Key of ``.varp`` with the similarities, and of ``.uns`` with their changes.
    changes
        Show by colours and dashes which edges were gained and lost against the model that the verb compared with. By
        default the genes of these edges are drawn.
    color
        Column of ``.var`` to colour genes by; numbers have a colour bar. By default the programs, where there are some and
        no ``changes``, whose colours stand for edges.
    label
        Write the names of genes where there is room for them, or none; or those of the genes named here, whether there is
        room or not.
    palette
        Colours of categories: by their names, in their order, or the name of a colour map.
    cmap
        Colours of numbers.
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
        When the verb was not called, or there is no such gene, program or column.
    ValueError
        When genes are chosen in two ways, or more than 150 are, or none.

    Examples
    --------
    >>> import scanpy as sc
    >>> import scgpt
    >>> adata = sc.datasets.pbmc68k_reduced()[:50].raw.to_adata()
    >>> scgpt.tl.gene_similarity(adata, "mini", genes="all", n_neighbors=5)
    >>> ax = scgpt.pl.gene_network(adata, around="CD79A", show=False)
    """
    import matplotlib.pyplot as plt

    edges = GeneEdges.of(adata, key, changes)
    chosen, middle = _chosen(adata, edges, genes, program, around, changes)
    if color is None and PROGRAM in adata.var and not changes:
        color = PROGRAM
    shades, title = shades_of_genes(adata, chosen, color, palette, cmap)
    if changes and color is None:
        shades = Shades.one(len(chosen), "0.35")
    rimmed = np.isin(chosen, middle)
    edges = edges.among(chosen)
    places = edges.places(len(chosen))
    to_write = _to_write(adata, label, chosen, rimmed, edges)
    handles = [*shades.handles, *edges.handles()]

    # As its square root, for it is an area that the names share.
    width = min(_WIDEST, _WIDTH * max(1, len(chosen) / _IN_COLUMN) ** 0.5)
    n_columns = columns_that_fit(handles, width)
    if ax is None:
        height = width - 0.2 + legend_height(len(handles), n_columns)
        _, ax = plt.subplots(figsize=(width, height), layout="constrained")
    edges.draw(ax, places)
    ax.scatter(
        places[:, 0],
        places[:, 1],
        _AREA,
        shades.rgba,
        edgecolors=np.where(rimmed, "black", "white").tolist(),
        linewidths=np.where(rimmed, 1.2, 0.5).tolist(),
        zorder=3,
    )
    ax.set(xticks=[], yticks=[])
    ax.margins(0.1)
    ax.spines[:].set_visible(False)
    if shades.scale is not None:
        color_bar(ax, shades.scale, title)
    if handles:
        legend_above(ax, handles, title if shades.handles else "", n_columns, handle_length=2 if changes else 1)
    names = {str(adata.var_names[chosen[i]]): places[i] for i in to_write}
    write_names(ax, names, _AREA**0.5 / 2, all_of_them=not isinstance(label, bool), clear_of=places)
    return finish(ax, show, save)


def _chosen(
    adata: AnnData,
    edges: GeneEdges,
    genes: Iterable[str] | None,
    program: str | None,
    around: str | Iterable[str] | None,
    changes: bool,
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return the genes to draw, and those of them that others are drawn around."""
    middle = np.array([], dtype=np.intp)
    if sum(way is not None for way in (genes, program, around)) > 1:
        raise ValueError("genes=, program= and around= choose genes each in its own way: pass one of them.")
    if genes is not None:
        chosen = genes_named(adata, genes, "genes")
    elif program is not None:
        chosen = _genes_of(adata, program)
    elif around is not None:
        middle = genes_named(adata, around, "around")
        chosen = np.concatenate([middle, edges.neighbours(middle)])
    else:
        chosen = np.unique((edges.of_kind("gained", "lost") if changes else edges).ends)
    if not len(chosen):
        what = (
            "genes= names no gene"
            if genes is not None
            else "No gene has an edge" + " that was gained or lost" * changes
        )
        raise ValueError(f"{what}: there is nothing to draw.")
    if len(chosen) > _MOST:
        raise ValueError(
            f"{len(chosen)} genes are too many to draw with their names; choose up to {_MOST} by genes=, those of a "
            "program by program=, or one and its neighbours by around=."
        )
    return chosen, middle


def _genes_of(adata: AnnData, program: str) -> NDArray[np.intp]:
    """Return the genes of a program."""
    programs = gene_column(adata, PROGRAM).astype("category")
    if program not in programs.cat.categories:
        raise KeyError(f"There is no program {program!r}; there are {listed(programs.cat.categories)}.")
    return np.flatnonzero(programs == program)


def _to_write(
    adata: AnnData,
    label: bool | str | Iterable[str],
    chosen: NDArray[np.intp],
    rimmed: NDArray[np.bool_],
    edges: GeneEdges,
) -> NDArray[np.intp]:
    """Return the genes to name, those first that have the best claim to a free place."""
    if label is False:
        return np.array([], dtype=np.intp)
    order = np.lexsort([-edges.strengths(len(chosen)), ~rimmed])
    if label is True:
        return order
    wanted = genes_named(adata, label, "label")
    if lacking := [adata.var_names[i] for i in wanted if i not in chosen]:
        raise KeyError(f"label= names {listed(lacking)}, not among the genes drawn.")
    return order[np.isin(chosen[order], wanted)]
