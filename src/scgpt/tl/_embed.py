"""Cell embeddings."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from anndata import AnnData
    from numpy.typing import NDArray

    from scgpt.model import SCGPT, Precision

    from ._embed_blocks import BlockEmbedder


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
    store: str | Path | None = None,
    lazy: bool = False,
    copy: bool = False,
) -> AnnData | None:
    r"""Embed cells with a pretrained or trained scGPT model :cite:p:`Cui2024`.

    A cell's embedding depends on the cell alone, not on the other cells, their number and order, or the order of the
    genes. Counts and log-normalised values give the same embedding, because values are binned within each cell.

    A matrix on dask is embedded by the workers of the dask cluster that is in use (where a ``distributed.Client`` is
    open), chunk by chunk of its rows, and by this process where there is none. Each worker gets the model once and uses
    its GPU if it has one. What a lost worker had not handed over is computed by the others.

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
        ``"float32"``, ``"bfloat16"``, or ``"auto"``: bfloat16 on GPUs and CPUs that compute in it, else float32.
    progress_bar
        Show progress.
    key_added
        Key of ``.obsm`` and ``.uns["scgpt"]``.
    store
        Folder of a zarr array to write the embedding to, such as ``"embedding.zarr"``, shard by shard of rows: the
        chunks of the matrix where workers write, else 4,096 cells. Memory does not grow with cells. The same call after a crash
        computes the shards that are missing. Workers of a cluster write to it, too, so all of them have to see the folder.
    lazy
        For a matrix on dask: compute nothing until the embedding is asked for.
    copy
        Return a copy, loaded into memory if it was on disk, instead of writing to ``adata``.

    Returns
    -------
    None, or the copy. Sets:

    ``adata.obsm[key_added]``
        ``(n_obs, d_model)`` float32, of length 1 each; with ``store`` or ``lazy`` a dask array.
    ``adata.uns["scgpt"][key_added]``
        Provenance: parameters, package version, checkpoint and its hash, the hash of the model in use, matched and
        unmatched genes, and the store if there is one.

    Raises
    ------
    ValueError
        When no gene matches; when values are negative (scaled data), NaN or infinite, with ``lazy`` only once they are
        computed; when ``lazy`` is asked for without dask; when the store is of another model, settings or cells.
    KeyError
        When a layer or column is not there.
    FileNotFoundError
        When the checkpoint is not there; when a worker does not see the store.
    FileExistsError
        When the store is a folder of something else.
    OSError
        When the disk of the store is full or cannot be written to; the shards that are written stay.
    ImportError
        When a store is asked for and dask is not installed.

    Examples
    --------
    >>> import scanpy as sc
    >>> import scgpt
    >>> adata = sc.datasets.pbmc68k_reduced()[:50].raw.to_adata()  # log-normalised values
    >>> scgpt.tl.embed(adata, "mini", progress_bar=False)  # or "whole-human", which is downloaded once
    >>> adata.obsm["X_scGPT"].shape
    (50, 64)
    >>> sc.pp.neighbors(adata, use_rep="X_scGPT")

    More cells than memory holds; where a ``distributed.Client`` is open, on all cores or machines of its cluster:

    >>> from anndata.experimental import read_lazy
    >>> adata.write_h5ad("atlas.h5ad")
    >>> atlas = read_lazy("atlas.h5ad")
    >>> scgpt.tl.embed(atlas, "mini", store="embedding.zarr", key_added="embedding", progress_bar=False)
    >>> atlas.obsm["embedding"].shape
    (50, 64)
    """
    from dataclasses import replace

    from scgpt.data import check_anndata, dask_matrix, path_of
    from scgpt.model import SCGPT, resolve_precision

    from ._arguments import target
    from ._embed_blocks import BlockEmbedder
    from ._provenance import fingerprint, genes_of, record

    check_anndata(adata)
    if lazy and store is not None:
        raise ValueError("lazy=True computes nothing, and store=... writes the result: leave out one of the two.")
    adata = target(adata, copy, key_added)
    if not isinstance(model, SCGPT):
        model = SCGPT.from_pretrained(model)
    match = model.match(adata, gene_key=gene_key, gene_mapping=gene_mapping)
    cells = model.cells_to_embed(adata, match, layer=layer)
    if max_length is not None:
        replace(model.tokenizer, max_length=max_length)  # raises at once, not where a block is computed
    embedder = BlockEmbedder(
        model,
        cells,
        model.tokenizer.max_length if max_length is None else max_length,
        resolve_precision(model.device, precision),
    )
    settings: dict[str, Any] = {
        "model_sha256": fingerprint(model),
        "layer": model.layer_of(layer),
        "max_length": embedder.max_length,
        "precision": embedder.precision,
    }
    matrix = dask_matrix(adata, None if settings["layer"] == "X" else settings["layer"])
    if lazy:
        adata.obsm[key_added] = _lazy(matrix, embedder)
    elif store is not None:
        path, adata.obsm[key_added] = _stored(adata, matrix, embedder, path_of(store, "store"), settings, progress_bar)
        settings["store"] = str(path)
    else:
        adata.obsm[key_added] = _in_memory(matrix, embedder, progress_bar)
    record(
        adata,
        key_added,
        function="scgpt.tl.embed",
        report=model.load_report,
        **settings,
        **genes_of(match),
    )
    return adata if copy else None


def _lazy(matrix: Any, embedder: BlockEmbedder) -> Any:
    from ._embed_blocks import lazy_embedding

    if matrix is None:
        raise ValueError(
            "lazy=True needs a matrix on dask, such as anndata.experimental.read_lazy(file) gives; to keep the embedding "
            "of other data out of memory, pass store='embedding.zarr'."
        )
    return lazy_embedding(matrix, embedder)


def _in_memory(matrix: Any, embedder: BlockEmbedder, progress_bar: bool) -> NDArray[np.float32]:
    import numpy as np

    from ._embed_blocks import active_client, gathered_embedding

    client = None if matrix is None else active_client()
    if client is None:
        return embedder.here(np.arange(len(embedder.cells)), progress_bar=progress_bar)
    return gathered_embedding(client, matrix, embedder, progress_bar=progress_bar)


def _stored(
    adata: AnnData,
    matrix: Any,
    embedder: BlockEmbedder,
    store: str | Path,
    settings: Mapping[str, Any],
    progress_bar: bool,
) -> tuple[Path, Any]:
    from ._embed_blocks import active_client
    from ._embedding_store import SHARD_ROWS, EmbeddingStore, ShardWriter, job_of, write_by_workers

    client = None if matrix is None else active_client()
    shards = EmbeddingStore.open(
        store,
        job_of(adata, embedder.cells, **settings),
        (adata.n_obs, embedder.width),
        SHARD_ROWS if client is None else max(matrix.chunks[0]),
    )
    if client is None:
        missing = shards.missing()
        rows, writer = shards.rows_of(missing), ShardWriter(shards, missing)
        embedder.here(rows, progress_bar=progress_bar, out=writer)
    else:
        write_by_workers(client, matrix, embedder, shards, progress_bar=progress_bar)
    return shards.path, shards.finish()
