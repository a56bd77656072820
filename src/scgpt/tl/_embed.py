"""Cell embeddings."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData

    from scgpt.model import SCGPT, Precision


def embed(
    adata: AnnData,
    model: str | Path | SCGPT,
    *,
    layer: str | None = None,
    gene_key: str | None = None,
    gene_mapping: Mapping[str, str] | pd.Series | str | Path | None = None,
    max_length: int | None = None,
    precision: Precision = "auto",
    progress_bar: bool = True,
    key_added: str = "X_scGPT",
    copy: bool = False,
) -> AnnData | None:
    r"""Embed cells with a pretrained or trained scGPT model :cite:p:`Cui2024`.

    A cell's embedding depends on the cell alone, not on the other cells, their number and order, or the order of the
    genes. Counts and log-normalised values give the same embedding, because values are binned within each cell.

    Parameters
    ----------
    adata
        Cells by genes, in memory (sparse or dense), a view, on disk or on dask; of the last two only portions are
        loaded.
    model
        A model, the folder of a checkpoint, or a checkpoint's name such as ``"whole-human"``
        (see :func:`scgpt.hub.resolve`).
    layer
        Layer with counts or log-normalised values, ``"X"`` for ``.X``; by default the one that the model was set up
        with, and ``.X`` where it was not.
    gene_key
        Column of ``.var`` with the gene names, symbols or Ensembl ids; found by itself by default.
    gene_mapping
        From names in the data to names in the model's vocabulary, such as Ensembl ids to symbols: a mapping, a
        Series, or a CSV or TSV file of two columns.
    max_length
        Most tokens of a cell, ``<cls>`` included; by default the model's (1,200 for the authors' checkpoints).
    precision
        ``"float32"``, ``"bfloat16"``, or ``"auto"``: bfloat16 on GPUs that have it, else float32.
    progress_bar
        Show progress.
    key_added
        Key of ``.obsm`` and ``.uns["scgpt"]``.
    copy
        Return a copy, loaded into memory if it was on disk, instead of writing to ``adata``.

    Returns
    -------
    None, or the copy. Sets:

    ``adata.obsm[key_added]``
        ``(n_obs, d_model)`` float32, of length 1 each.
    ``adata.uns["scgpt"][key_added]``
        Provenance: parameters, package version, checkpoint and its hash, the hash of the model in use, matched and
        unmatched genes.

    Raises
    ------
    ValueError
        When no gene matches; when values are negative (scaled data), NaN or infinite.
    KeyError
        When a layer or column is not there.
    FileNotFoundError
        When the checkpoint is not there.

    Examples
    --------
    >>> import scanpy as sc, scgpt
    >>> scgpt.tl.embed(adata, model="whole-human")  # doctest: +SKIP
    >>> sc.pp.neighbors(adata, use_rep="X_scGPT")  # doctest: +SKIP
    """
    from scgpt.data import check_anndata
    from scgpt.model import SCGPT, resolve_precision

    from ._arguments import target
    from ._provenance import fingerprint, genes_of, record

    check_anndata(adata)
    adata = target(adata, copy)
    if not isinstance(model, SCGPT):
        model = SCGPT.from_pretrained(model)
    match = model.match(adata, gene_key=gene_key, gene_mapping=gene_mapping)
    embedding = model.get_latent_representation(
        adata,
        layer=layer,
        match=match,
        max_length=max_length,
        precision=precision,
        progress_bar=progress_bar,
    )
    adata.obsm[key_added] = embedding
    record(
        adata,
        key_added,
        function="scgpt.tl.embed",
        report=model.load_report,
        model_sha256=fingerprint(model),
        layer=model.layer_of(layer),
        max_length=model.tokenizer.max_length if max_length is None else max_length,
        precision=resolve_precision(model.device, precision),
        **genes_of(match),
    )
    return adata if copy else None
