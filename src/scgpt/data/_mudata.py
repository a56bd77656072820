"""What a MuData holds: which modality is of which kind, and which cells have it."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
import scipy.sparse as sp
from anndata import AnnData
from mudata import MuData
from numpy.typing import NDArray

from ._cells import Cells
from ._multi_cells import MODALITIES

# Names that modalities usually have, in lower case.
_USUAL = {
    "rna": ("rna", "gex", "gene expression"),
    "atac": ("atac", "peaks", "peak"),
    "protein": ("protein", "proteins", "prot", "adt", "cite", "antibody capture"),
}
# Cells read at a time where all are looked through.
_CELLS_AT_ONCE = 4096


def name_modalities(mdata: MuData, modalities: Mapping[str, str] | None) -> dict[str, str]:
    """Return the modalities to read, the kind of each and its name in ``mdata.mod``.

    Parameters
    ----------
    mdata
        The data set.
    modalities
        Kinds, ``"rna"``, ``"atac"`` or ``"protein"``, and names; by default those with usual names.

    Raises
    ------
    KeyError
        When there is no such modality.
    ValueError
        When a kind is unknown, two are of one kind, or a modality holds nothing.
    """
    there = list(mdata.mod)
    if modalities is None:
        found = {kind: [name for name in there if name.lower() in usual] for kind, usual in _USUAL.items()}
        if twice := {kind: names for kind, names in found.items() if len(names) > 1}:
            raise ValueError(f"Several modalities may be of one kind, {twice}: name them by modalities=.")
        modalities = {kind: names[0] for kind, names in found.items() if names}
        if not modalities:
            raise ValueError(
                f"No modality of {there} has a usual name: say which is which, as in modalities={{'rna': {there[:1]}}}."
            )
    if unknown := [kind for kind in modalities if kind not in MODALITIES]:
        raise ValueError(
            f"modalities= names kinds {unknown}; there are {list(MODALITIES)}, each with a name in mdata.mod."
        )
    if lacking := [name for name in modalities.values() if name not in there]:
        raise KeyError(f"mdata has no modality {lacking[0]!r}; there are {there}.")
    if len(set(modalities.values())) < len(modalities):
        raise ValueError(f"One modality cannot be of two kinds: {dict(modalities)}.")
    for name in modalities.values():
        if 0 in mdata.mod[name].shape:
            cells, features = mdata.mod[name].shape
            raise ValueError(f"Modality {name!r} has {cells} cells and {features} features: leave it out.")
    return {kind: modalities[kind] for kind in MODALITIES if kind in modalities}


def rows_of_modality(mdata: MuData, name: str, layer: str | None) -> NDArray[np.int64]:
    """Return which cell of a modality each cell of the data set is, -1 where it lacks the modality.

    A cell lacks it where it is not among its cells, or where all its values are NaN.

    Raises
    ------
    KeyError
        When there is no such layer.
    ValueError
        When values are negative, infinite, or NaN for some features of a cell alone.
    """
    modality = mdata.mod[name]
    lacking = np.zeros(modality.n_obs, dtype=bool)
    cells = Cells(modality, np.arange(modality.n_vars), layer=layer)
    for start in range(0, modality.n_obs, _CELLS_AT_ONCE):
        block = np.arange(start, min(start + _CELLS_AT_ONCE, modality.n_obs))
        lacking[block] = _all_nan(cells.rows(block), name, modality, block)
    rows = np.asarray(mdata.obsmap[name]).ravel().astype(np.int64) - 1
    return np.where((rows >= 0) & ~lacking[rows], rows, -1)


def _all_nan(rows: sp.csr_matrix, name: str, modality: AnnData, block: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Return which rows are NaN throughout."""
    cell = np.repeat(np.arange(rows.shape[0]), np.diff(rows.indptr))
    nan = np.isnan(rows.data)
    lacking = np.bincount(cell[nan], minlength=rows.shape[0]) == modality.n_vars
    remedies = {
        "NaN or infinite values": "Write NaN for all features of a cell that was not measured, and 0 for what was not found",
        "negative values": "Such are scaled or background-corrected; name the layer that holds counts by layers=",
    }
    wrong = {"NaN or infinite values": ~np.isfinite(rows.data) & ~lacking[cell], "negative values": rows.data < 0}
    for what, where in wrong.items():
        if where.any():
            names = modality.obs_names[block[np.unique(cell[where])[:3]]].tolist()
            raise ValueError(f"Modality {name!r} holds {what}, in cells {names} at first. {remedies[what]}.")
    return lacking


def obs_column(mdata: MuData, key: str) -> pd.Series:
    """Return a column of ``mdata.obs``, or put together from those of the modalities, where it is not there.

    Raises
    ------
    KeyError
        When it is nowhere.
    ValueError
        When modalities disagree on a cell.
    """
    if key in mdata.obs:
        return mdata.obs[key]
    parts = {name: part.obs[key].astype(object) for name, part in mdata.mod.items() if key in part.obs}
    if not parts:
        columns = {name: list(part.obs.columns) for name, part in mdata.mod.items()}
        raise KeyError(
            f"{key!r} is a column neither of mdata.obs, {list(mdata.obs.columns)}, nor of a modality, {columns}."
        )
    if not all(names.is_unique for names in (mdata.obs_names, *(part.index for part in parts.values()))):
        raise ValueError(f"Cells of one name cannot get .obs[{key!r}] from their modalities; give each its own name.")
    column = pd.Series(np.nan, index=mdata.obs_names, dtype=object, name=key)
    for name, part in parts.items():
        given = part.reindex(mdata.obs_names)
        clash = given.notna() & column.notna() & (given != column)
        if clash.any():
            raise ValueError(
                f"Modality {name!r} has other values of .obs[{key!r}] than those before it, in {int(clash.sum())} cells, "
                f"such as {clash.index[clash].tolist()[:3]}: write the right ones into mdata.obs[{key!r}]."
            )
        column = column.where(column.notna(), given)
    return column


def check_linked(present: Mapping[str, NDArray[np.bool_]]) -> None:
    """Raise where no cell links some modalities to the others: what is learnt of one then says nothing of another.

    Parameters
    ----------
    present
        ``(n_obs,)`` which cells have a modality, for each name.

    Raises
    ------
    ValueError
        With the names.
    """
    first, *others = present
    linked, cells = {first}, present[first].copy()
    while more := [name for name in others if name not in linked and (present[name] & cells).any()]:
        for name in more:
            linked.add(name)
            cells |= present[name]
    if apart := [name for name in others if name not in linked]:
        raise ValueError(
            f"No cell has both one of {sorted(linked)} and one of {apart}: there is nothing to learn how they belong "
            "together from. Are the cells named alike (mdata[...].obs_names)?"
        )
