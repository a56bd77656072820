"""Where perturbations lie among one another."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from scgpt._messages import listed

from ._embedding_axes import bare_axes
from ._finish import finish
from ._legend import color_bar, columns_that_fit, dot, legend_above, legend_height
from ._names_beside import write_names
from ._shades import Shades

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap
    from matplotlib.typing import ColorType

# Inches: a column of a page.
_WIDTH = 3.4
# How often the area of a pair goes into that of a single perturbation.
_LARGER = 4
# Points that names keep clear of.
_FEW = 500
_WAYS = {
    "dominant_gene": "write it by scgpt.tl.dominant_genes(space), after sc.pp.neighbors(space) and sc.tl.leiden(space)",
    "leiden": "write it by sc.tl.leiden(space), after sc.pp.neighbors(space)",
}


def perturbation_space(
    space: AnnData,
    *,
    color: str | None = "dominant_gene",
    basis: str = "X_umap",
    label: bool | str | Iterable[str] = True,
    size: float | None = None,
    perturbation_key: str = "perturbation",
    control: str = "control",
    sep: str = "+",
    palette: str | Sequence[ColorType] | Mapping[str, ColorType] | None = None,
    cmap: str | Colormap = "viridis",
    ax: Axes | None = None,
    show: bool | None = None,
    save: str | Path | None = None,
) -> Axes | None:
    """Draw predicted perturbations in an embedding :cite:p:`Cui2024`.

    Single perturbations are large points with their names, where there is room for them, and combinations small ones.

    Parameters
    ----------
    space
        What :func:`scgpt.tl.perturb` returned, with an embedding.
    color
        Column of ``.obs`` to colour by, such as ``"dominant_gene"``, ``"leiden"`` or ``"trained_on"``; numbers have a
        colour bar. None for one colour.
    basis
        Embedding in ``.obsm``, whose first two columns are drawn; ``"umap"`` is ``"X_umap"``, too.
    label
        Write the names of single perturbations, or none; or those of the perturbations named here, whether there is
        room or not. Of cells of one perturbation the name stands at their median.
    size
        Area of small points in square points, as in :func:`scanpy.pl.embedding`; large ones have four times of it.
    perturbation_key
        Column of ``.obs`` with the perturbations.
    control
        Label of control cells.
    sep
        Between the genes of one perturbation.
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
        When the embedding, a column, or a perturbation to label is not there.
    ValueError
        When there is nothing to draw; when the embedding has one dimension only, or missing values; when there are more
        categories than colours.

    Examples
    --------
    >>> import scanpy as sc
    >>> import scgpt
    >>> adata = sc.datasets.pbmc68k_reduced()[:60].raw.to_adata()
    >>> adata.obs["perturbation"] = ["control", "CD79A", "NKG7", "LYZ"] * 15  # made up
    >>> names = ["CD79A", "NKG7", "LYZ", "CD79A+NKG7", "CD79A+LYZ", "NKG7+LYZ"]
    >>> space = scgpt.metrics.baselines.additive(adata, names)  # or scgpt.tl.perturb(..., pairs=True)
    >>> sc.pp.pca(space, layer="delta", n_comps=2)  # of many perturbations sc.pp.neighbors and sc.tl.umap, too
    >>> space.obs["leiden"] = ["0", "1", "2", "0", "0", "1"]  # or sc.tl.leiden(space)
    >>> scgpt.tl.dominant_genes(space)
    >>> ax = scgpt.pl.perturbation_space(space, basis="X_pca", show=False)
    """
    import matplotlib.pyplot as plt
    import pandas as pd

    from scgpt.metrics import perturbed_by

    key = _embedding_of(space, basis)
    places = _places(space, key)
    for column in filter(None, (perturbation_key, color)):
        if column not in space.obs:
            way = _WAYS.get(column, f"there are {list(space.obs.columns)}")
            raise KeyError(f"There is no column {column!r} in .obs: {way}.")
    given = pd.Series(space.obs[perturbation_key])
    if missing := int(given.isna().sum()):
        raise ValueError(f"{missing} rows have no name in .obs[{perturbation_key!r}]; leave them out.")
    given = given.astype(str)
    perturbed = given.map({name: perturbed_by(name, control=control, sep=sep) for name in given.unique()})
    single = (perturbed.map(len) == 1).to_numpy()
    to_write = _to_write(label, perturbed, control, sep)
    small = float(np.clip(3000 / space.n_obs, 3, 9)) if size is None else size
    shades = (
        Shades.one(space.n_obs)
        if color is None
        else Shades.of(pd.Series(space.obs[color]), ".obs", palette, cmap, space.uns)
    )
    handles = [*shades.handles]
    if single.any() and not single.all():
        handles += [dot("0.4", "single", (_LARGER * small) ** 0.5), dot("0.4", "combined", small**0.5)]

    n_columns = columns_that_fit(handles, _WIDTH - 0.3)  # the axes have a name at their left
    if ax is None:
        _, ax = plt.subplots(
            figsize=(_WIDTH, _WIDTH - 0.3 + legend_height(len(handles), n_columns)), layout="constrained"
        )
    for rows, area, edge in ((~single, small, "none"), (single, _LARGER * small, "white")):  # the large ones lie above
        ax.scatter(places[rows, 0], places[rows, 1], area, shades.rgba[rows], edgecolors=edge, linewidths=0.5)
    bare_axes(ax, key)
    if shades.scale is not None:
        color_bar(ax, shades.scale, str(color))
    if handles:
        legend_above(ax, handles, str(color) if shades.handles else "", n_columns)
    middles = {name: np.median(places[rows], 0) for name, rows in to_write.items()}
    # Of thousands of points no place is free.
    clear_of = places if len(places) <= _FEW else None
    write_names(ax, middles, (_LARGER * small) ** 0.5 / 2, all_of_them=label is not True, clear_of=clear_of)
    return finish(ax, show, save)


def _embedding_of(space: AnnData, basis: str) -> str:
    """Return the key of an embedding."""
    if not space.n_obs:
        raise ValueError("There is no perturbation to draw.")
    key = next((name for name in (basis, f"X_{basis}") if name in space.obsm), None)
    if key is None:
        raise KeyError(
            f"There is no embedding {basis!r} in .obsm, which has {list(space.obsm)}. Make one by "
            "sc.pp.pca(space, layer='delta'), sc.pp.neighbors(space) and sc.tl.umap(space)."
        )
    return key


def _places(space: AnnData, key: str) -> NDArray[np.float64]:
    """Return where perturbations lie, ``(n, 2)``."""
    places = np.asarray(space.obsm[key], dtype=np.float64)
    if places.ndim != 2 or places.shape[1] < 2:
        raise ValueError(f".obsm[{key!r}] has shape {places.shape}; there have to be two dimensions to draw.")
    if bad := int((~np.isfinite(places[:, :2]).all(1)).sum()):
        raise ValueError(f"{bad} of {len(places)} rows have no place in .obsm[{key!r}]; leave them out.")
    return places[:, :2]


def _to_write(
    label: bool | str | Iterable[str], perturbed: pd.Series, control: str, sep: str
) -> dict[str, NDArray[np.intp]]:
    """Return the names to write, with the rows of each."""
    from scgpt.metrics import perturbed_by

    if label is False:
        return {}
    rows: dict[tuple[str, ...], list[int]] = {}
    for i, genes in enumerate(perturbed):
        rows.setdefault(genes, []).append(i)
    if label is True:
        return {genes[0]: np.array(own) for genes, own in rows.items() if len(genes) == 1}
    names = [label] if isinstance(label, str) else [str(name) for name in label]
    wanted = {name: perturbed_by(name, control=control, sep=sep) for name in names}
    if lacking := [name for name, genes in wanted.items() if genes not in rows]:
        raise KeyError(f"label= names {listed(lacking)}, not among the perturbations.")
    return {name: np.array(rows[genes]) for name, genes in wanted.items()}
