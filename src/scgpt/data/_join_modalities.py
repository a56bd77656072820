"""Several modalities, of one study or several, as one data set."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping
from typing import Literal, get_args

import numpy as np
import pandas as pd
import scipy.sparse as sp
from anndata import AnnData
from mudata import MuData

from ._arguments import check_name
from ._columns import as_text, without_missing
from ._features import FeatureChoice, accessible_peaks, all_features, variable_genes
from ._mudata import name_modalities, obs_column, rows_of_modality
from ._multi_cells import MODALITIES
from ._proteins import above_background
from ._studies import Study, join_studies

PeakChoice = Literal["accessible", "variable"]

_CHOICES: dict[PeakChoice, FeatureChoice] = {"accessible": accessible_peaks, "variable": variable_genes}
_VALUES: dict[str, tuple[str, ...]] = {
    "rna": ("counts",),
    "atac": ("counts", "binary", "tfidf"),
    "protein": ("background", "clr", "counts"),
}

GeneNames = Callable[[pd.DataFrame], Iterable[str]]


def join_modalities(
    studies: Mapping[str, AnnData | MuData],
    *,
    modalities: Mapping[str, str] | None = None,
    layers: Mapping[str, str] | None = None,
    batch_key: str | None = None,
    n_top_genes: int = 1200,
    n_top_peaks: int = 4000,
    peaks: PeakChoice = "accessible",
    values: Mapping[str, str] | None = None,
    gene_names: GeneNames = lambda var: var.index,
) -> MuData:
    """Join the modalities of studies over chosen features, with the values that a model is to read.

    Parameters
    ----------
    studies
        Data sets under their names; each may have any of the modalities, and other features than the others. An
        AnnData is one of RNA.
    modalities
        Kinds and names in ``.mod``, see :func:`name_modalities`; of several studies one may lack some.
    layers
        Layer of each kind with counts; ``.X`` by default.
    batch_key
        Column with the experimental batch. None where all cells of a study are one.
    n_top_genes
        How many genes to take, those that vary most within batches.
    n_top_peaks
        How many peaks to take.
    peaks
        Those open in most cells, or those that vary most as genes do.
    values
        What to make of the counts of each kind: of proteins ``"background"``, see :func:`above_background`, ``"clr"``
        (:func:`muon.prot.pp.clr`, over cells) or ``"counts"``; of peaks ``"counts"``, ``"binary"`` or ``"tfidf"``
        (:func:`muon.atac.pp.tfidf`).
    gene_names
        From the ``.var`` of a study's genes to names that all studies share, empty where one is to be left out.

    Returns
    -------
    Cells under the names ``"study:row"``, those left out that have no modality. ``.obs["cell"]`` is the name that they
    have in their study, ``.obs["batch"]``, or ``batch_key``, the batch. Each modality stands under its kind, with
    ``.varm["measured"]`` as :func:`join_studies` writes it.

    Raises
    ------
    KeyError
        When a modality, layer or column is not there.
    ValueError
        When a setting is unknown, a study shares no feature with others, or values cannot be counts.
    """
    for argument, given in (("modalities", modalities), ("layers", layers), ("values", values)):
        if given is not None and not isinstance(given, Mapping):
            raise TypeError(f"{argument} must be a mapping of 'rna', 'atac' and 'protein', not {given!r:.50}.")
    check_name(batch_key, "batch_key")
    values = {kind: of_kind[0] for kind, of_kind in _VALUES.items()} | dict(values or {})
    if peaks not in get_args(PeakChoice):
        raise ValueError(f"peaks must be one of {list(get_args(PeakChoice))}, not {peaks!r}.")
    for kind, choice in values.items():
        if choice not in _VALUES.get(kind, ()):
            raise ValueError(f"values={{{kind!r}: {choice!r}}} is unknown; there are {_VALUES}.")
    parts: dict[str, dict[str, Study]] = {kind: {} for kind in MODALITIES}
    rows: dict[str, list[str]] = {kind: [] for kind in MODALITIES}
    for name, data in studies.items():
        if data.obs_names.hasnans or data.var_names.hasnans:
            where = f" of study {name!r}" if name else ""
            raise ValueError(f"Cells or features{where} have no name; write one into .obs_names and .var_names.")
        mdata = data if isinstance(data, MuData) else MuData({"rna": data})
        batches = _batches(mdata, name, batch_key, several=len(studies) > 1)
        there = modalities if modalities is None or len(studies) == 1 else _there(mdata, modalities)
        for kind, of_mod in name_modalities(mdata, there).items():
            layer = (layers or {}).get(kind)
            row_of = rows_of_modality(mdata, of_mod, layer)
            present = np.flatnonzero(row_of >= 0)
            if len(present):
                part = mdata.mod[of_mod][row_of[present]]
                names = list(gene_names(part.var)) if kind == "rna" else list(part.var_names)
                parts[kind][name] = Study(part, names, batches.iloc[present], layer)
                rows[kind] += [f"{name}:{row}" for row in present]
    choices: dict[str, tuple[int, FeatureChoice]] = {
        "rna": (n_top_genes, variable_genes),
        "atac": (n_top_peaks, _CHOICES[peaks]),
        "protein": (0, all_features),
    }
    column = batch_key or "batch"
    joined = {}
    for kind, of_kind in parts.items():
        if of_kind:
            n_features, choose = choices[kind]
            part = join_studies(of_kind, n_features, batch_key=column, choose=choose)
            part.obs_names = rows[kind]
            _write_values(part, values[kind], column)
            joined[kind] = part
    with warnings.catch_warnings():
        # A gene and a protein may have one name; they are told apart by their modality.
        warnings.filterwarnings("ignore", message="var_names are not unique")
        joint = MuData(joined)
    places = (cell.rpartition(":") for cell in joint.obs_names)
    joint.obs["cell"] = [str(studies[name].obs_names[int(row)]) for name, _, row in places]
    joint.obs[column] = pd.Categorical(obs_column(joint, column))
    return joint


def _there(mdata: MuData, modalities: Mapping[str, str]) -> dict[str, str]:
    return {kind: name for kind, name in modalities.items() if name in mdata.mod}


def _batches(mdata: MuData, name: str, batch_key: str | None, *, several: bool) -> pd.Series:
    """Return the batch of each cell; those of two studies are never the same."""
    if batch_key is None:
        return pd.Series(name or "all", index=mdata.obs_names)
    try:
        batches = obs_column(mdata, batch_key)
    except KeyError:
        if several:  # a study is a batch itself
            return pd.Series(name, index=mdata.obs_names)
        raise
    names = as_text(without_missing(batches, batch_key, "batch"), batch_key)
    return f"{name}:" + names if name else names


def _write_values(part: AnnData, values: str, batch_key: str) -> None:
    """Replace the counts of a modality by what is made of them."""
    # muon is imported where it is used: that takes seconds.
    if values == "background":
        part.X = above_background(part.X, part.obs[batch_key].cat.codes.to_numpy())
    elif values == "clr":
        from muon.prot.pp import clr

        part.X = sp.csc_matrix(part.X)  # as it wants it
        clr(part)
    elif values == "tfidf":
        from muon.atac.pp import tfidf

        tfidf(part)
    elif values == "binary":
        from muon.atac.pp import binarize

        binarize(part)
