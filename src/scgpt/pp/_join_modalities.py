"""Features and values of several modalities to train on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData
    from mudata import MuData


def join_modalities(
    data: MuData | Sequence[AnnData | MuData] | Mapping[str, AnnData | MuData],
    *,
    modalities: Mapping[str, str] | None = None,
    layers: Mapping[str, str] | None = None,
    batch_key: str | None = None,
    n_top_genes: int = 1200,
    n_top_peaks: int = 4000,
    peaks: Literal["accessible", "variable"] = "accessible",
    values: Mapping[str, str] | None = None,
    gene_key: str | None = None,
    gene_mapping: Mapping[str, str] | pd.Series | str | Path | None = None,
) -> MuData:
    """Choose features of genes, peaks and proteins and make of their counts what a model is to read.

    :func:`scgpt.tl.integrate` does this by itself; call it to train a :class:`scgpt.model.MultiSCGPT` by hand.

    Parameters
    ----------
    data
        One data set, or several of the same or other features: in a list, or by name. An AnnData is one of RNA.
    modalities
        Which of ``.mod`` is ``"rna"``, ``"atac"`` and ``"protein"``; by default those with usual names. Of several data
        sets one may lack some. Activities of genes that were computed from peaks can stand as ``"atac"``.
    layers
        Layer of each kind with counts; ``.X`` by default.
    batch_key
        Column with the experimental batch, of ``.obs`` or of modalities. None where all cells of a data set are one.
    n_top_genes
        How many genes to take, those that vary most within batches (:func:`scanpy.pp.highly_variable_genes`).
    n_top_peaks
        How many peaks to take.
    peaks
        ``"accessible"``: those open in most cells. ``"variable"``: those that vary most, as genes do.
    values
        What to make of the counts of each kind. Of proteins ``"background"`` (the default: the centred log-ratio of the
        cell above the batch's median of the protein, 0 where it is below), ``"clr"`` (:func:`muon.prot.pp.clr`, over
        cells) or ``"counts"``; of peaks ``"counts"`` (the default), ``"binary"`` or ``"tfidf"``
        (:func:`muon.atac.pp.tfidf`).
    gene_key
        Column of the genes' ``.var`` with their names; by default the index.
    gene_mapping
        From names in the data to other names, see :func:`scgpt.data.match_genes`.

    Returns
    -------
    Cells under the names ``"data set:row"``, without those that have no modality; ``.obs["cell"]`` is the name that they
    have in their data set. Each modality stands under its kind, with a table ``.varm["measured"]`` (features by batches) of
    what was measured; ``.obs["batch"]``, or ``batch_key``, is the batch. For ``MultiSCGPT.setup_mudata(joint, batch_key="batch", measured_key="measured")``.

    Raises
    ------
    KeyError
        When a modality, layer or column is not there.
    ValueError
        When a setting is unknown, a data set shares no feature of a kind with the others, or values cannot be counts.

    Examples
    --------
    >>> import anndata
    >>> import mudata
    >>> import numpy as np
    >>> import scgpt
    >>> rng = np.random.default_rng(0)
    >>> rna = anndata.AnnData(rng.poisson(1.0, (40, 30)).astype("float32"))  # counts, made up
    >>> rna.var_names = [f"GENE{i}" for i in range(30)]
    >>> protein = anndata.AnnData(rng.poisson(5.0, (40, 6)).astype("float32"))
    >>> protein.var_names = [f"CD{i}" for i in range(6)]
    >>> cite = mudata.MuData({"rna": rna, "prot": protein})
    >>> joint = scgpt.pp.join_modalities({"cite": cite, "rna_only": rna[:10].copy()}, n_top_genes=20)
    >>> joint.n_obs, {kind: modality.shape for kind, modality in joint.mod.items()}
    (50, {'rna': (50, 20), 'protein': (40, 6)})
    >>> joint.obs["batch"].value_counts().to_dict()
    {'cite': 40, 'rna_only': 10}
    """
    from scgpt.data import by_name, in_memory, own_names
    from scgpt.data import join_modalities as join

    return join(
        by_name(data),
        modalities=modalities,
        layers=layers,
        batch_key=batch_key,
        n_top_genes=n_top_genes,
        n_top_peaks=n_top_peaks,
        peaks=peaks,
        values=values,
        gene_names=lambda var: own_names(in_memory(var), gene_key, gene_mapping),
    )
