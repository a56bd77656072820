"""Where perturbations lie among one another."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from scgpt._messages import listed

from ._category_colors import MISSING, category_colors
from ._colors import BLUE
from ._finish import finish
from ._legend import dot, legend_above
from ._names_beside import write_names

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData
    from matplotlib.axes import Axes
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Colormap
    from matplotlib.lines import Line2D
    from matplotlib.typing import ColorType

# Inches: a column of a page, and of its legend a row, a handle and a letter.
_WIDTH, _ROW, _HANDLE, _LETTER = 3.4, 0.13, 0.28, 0.06
# How often the area of a pair goes into that of a single perturbation.
_LARGER = 4
_AXES = {"umap": "UMAP", "pca": "PC", "tsne": "tSNE"}
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
        left in ``.uns``; else up to seven that all people tell apart, and scanpy's where there are more.
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
    >>> space = scgpt.tl.perturb(adata, genes, model=model, pairs=True)  # doctest: +SKIP
    >>> sc.pp.pca(space, layer="delta")  # doctest: +SKIP
    >>> sc.pp.neighbors(space), sc.tl.umap(space), sc.tl.leiden(space)  # doctest: +SKIP
    >>> scgpt.tl.dominant_genes(space)  # doctest: +SKIP
    >>> scgpt.pl.perturbation_space(space)  # doctest: +SKIP
    """
    import matplotlib.pyplot as plt
    import pandas as pd

    from scgpt.metrics import perturbed_by

    places, axis = _places(space, basis)
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
    shades = _Shades.of(space, color, palette, cmap)
    handles = [*shades.handles]
    if single.any() and not single.all():
        handles += [dot("0.4", "single", (_LARGER * small) ** 0.5), dot("0.4", "combined", small**0.5)]

    longest = max((len(str(handle.get_label())) for handle in handles), default=0)
    n_columns = max(1, int((_WIDTH - 0.3) / (_HANDLE + _LETTER * longest)))  # the axes have a name at their left
    if ax is None:
        height = _WIDTH - 0.3 + _ROW * (2 + -(-len(handles) // n_columns))
        _, ax = plt.subplots(figsize=(_WIDTH, height), layout="constrained")
    for rows, area, edge in ((~single, small, "none"), (single, _LARGER * small, "white")):  # the large ones lie above
        ax.scatter(places[rows, 0], places[rows, 1], area, shades.rgba[rows], edgecolors=edge, linewidths=0.5)
    ax.set(xticks=[], yticks=[])
    ax.set_xlabel(f"{axis}1", fontsize="small")
    ax.set_ylabel(f"{axis}2", fontsize="small")
    ax.margins(0.08)
    if shades.scale is not None:
        figure = ax.get_figure(root=True)
        assert figure is not None
        bar = figure.colorbar(shades.scale, ax=ax, shrink=0.8)
        bar.set_label(str(color), fontsize="small")
        bar.ax.tick_params(labelsize="small")
    if handles:
        legend_above(ax, handles, str(color) if shades.handles else "", n_columns)
    middles = {name: np.median(places[rows], 0) for name, rows in to_write.items()}
    write_names(ax, middles, (_LARGER * small) ** 0.5 / 2, all_of_them=label is not True)
    return finish(ax, show, save)


@dataclass(frozen=True)
class _Shades:
    """Colours of perturbations, and what explains them."""

    rgba: NDArray[np.float64]
    """``(n, 4)``."""
    handles: list[Line2D]
    """Of categories."""
    scale: ScalarMappable | None
    """Of numbers."""

    @classmethod
    def of(
        cls,
        space: AnnData,
        color: str | None,
        palette: str | Sequence[ColorType] | Mapping[str, ColorType] | None,
        cmap: str | Colormap,
    ) -> _Shades:
        import matplotlib as mpl
        import pandas as pd
        from matplotlib.cm import ScalarMappable
        from matplotlib.colors import Normalize, to_rgba_array

        if color is None:
            return cls(to_rgba_array([BLUE] * space.n_obs), [], None)
        column = pd.Series(space.obs[color])
        if pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_bool_dtype(column):
            values = column.to_numpy(dtype=np.float64, na_value=np.nan)
            if not (finite := np.isfinite(values)).any():
                raise ValueError(f".obs[{color!r}] has no finite value to colour by.")
            colors = mpl.colormaps[cmap] if isinstance(cmap, str) else cmap
            scale = ScalarMappable(Normalize(values[finite].min(), values[finite].max()), colors)
            rgba = to_rgba_array([MISSING] * len(values))
            rgba[finite] = scale.to_rgba(values[finite])
            return cls(rgba, [dot(MISSING, "missing")] * (not finite.all()), scale)
        found = column.astype("category").cat.remove_unused_categories()
        names = [str(name) for name in found.cat.categories]
        own = category_colors(names, palette, _left_by_scanpy(space, column))
        handles = [dot(shade, name) for shade, name in zip(own, names, strict=True)]
        handles += [dot(MISSING, "missing")] * bool(found.isna().any())
        return cls(to_rgba_array([*own, MISSING])[np.asarray(found.cat.codes)], handles, None)


def _places(space: AnnData, basis: str) -> tuple[NDArray[np.float64], str]:
    """Return where perturbations lie, ``(n, 2)``, and what the axes are called."""
    if not space.n_obs:
        raise ValueError("There is no perturbation to draw.")
    key = next((name for name in (basis, f"X_{basis}") if name in space.obsm), None)
    if key is None:
        raise KeyError(
            f"There is no embedding {basis!r} in .obsm, which has {list(space.obsm)}. Make one by "
            "sc.pp.pca(space, layer='delta'), sc.pp.neighbors(space) and sc.tl.umap(space)."
        )
    places = np.asarray(space.obsm[key], dtype=np.float64)
    if places.ndim != 2 or places.shape[1] < 2:
        raise ValueError(f".obsm[{key!r}] has shape {places.shape}; there have to be two dimensions to draw.")
    if bad := int((~np.isfinite(places[:, :2]).all(1)).sum()):
        raise ValueError(f"{bad} of {len(places)} rows have no place in .obsm[{key!r}]; leave them out.")
    name = key.removeprefix("X_")
    return places[:, :2], _AXES.get(name, name)


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


def _left_by_scanpy(space: AnnData, column: pd.Series) -> Sequence[str] | None:
    """Return the colours of the categories in use that scanpy left, where they are of these categories."""
    left = space.uns.get(f"{column.name}_colors")
    if left is None or column.dtype != "category" or len(left) != len(column.cat.categories):
        return None
    used = set(column.dropna())
    return [str(own) for own, name in zip(left, column.cat.categories, strict=True) if name in used]
