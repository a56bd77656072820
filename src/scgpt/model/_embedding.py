"""Embedding cells and genes with a model."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from anndata import AnnData
from numpy.typing import ArrayLike, NDArray
from scvi import REGISTRY_KEYS
from tqdm.auto import tqdm

from scgpt._messages import warn_user
from scgpt.data import (
    Cells,
    Conditions,
    GeneMatch,
    GeneVocab,
    MultiCells,
    TokenBatch,
    Tokenizer,
    as_text,
    in_memory,
    match_genes,
    measured_by,
    without_missing,
)
from scgpt.module import ScGPTModule
from scgpt.train import ahead

from ._conditions import conditions_of
from ._passes import Passes, Precision, T, in_precision

logger = logging.getLogger(__name__)

RowSink = Callable[[NDArray[np.float32]], object]
"""Takes rows of a result as they come."""

# Cells read from the data set at a time when embedding.
_CELLS_AT_ONCE = 2048


class EmbeddingMixin:
    """Embeddings of cells and genes, for models around an :class:`~scgpt.module.ScGPTModule`."""

    module: ScGPTModule
    tokenizer: Tokenizer
    registry: dict[str, Any]
    adata: AnnData | None
    device: torch.device
    is_trained: bool
    _check_data: Callable[[Any], None]

    @property
    def vocab(self) -> GeneVocab:
        """The genes that the model knows."""
        return self.tokenizer.vocab

    def get_latent_representation(
        self,
        adata: AnnData | None = None,
        *,
        indices: ArrayLike | None = None,
        layer: str | None = None,
        gene_key: str | None = None,
        gene_mapping: Mapping[str, str] | pd.Series | str | Path | None = None,
        match: GeneMatch | None = None,
        max_length: int | None = None,
        precision: Precision = "auto",
        normalize: bool = True,
        progress_bar: bool = True,
    ) -> NDArray[np.float32]:
        """Embed cells.

        A cell's embedding depends on the cell alone: neither on the other cells, their number and order, nor on the
        order of the genes. Genes that the data set did not measure are absent, not zero.

        Parameters
        ----------
        adata
            Any data set, of any genes; by default the model's own.
        indices
            Rows to embed; all by default.
        layer
            Layer with counts or log-normalised values, ``"X"`` for ``.X``; by default the one that the model was set
            up with, and ``.X`` where it was not.
        gene_key
            See :func:`scgpt.data.match_genes`.
        gene_mapping
            See :func:`scgpt.data.match_genes`.
        match
            What :meth:`match` gave, if it was called before.
        max_length
            Most tokens of a cell, ``<cls>`` included; by default the model's. Longer cells keep genes in the order of
            a fixed hash.
        precision
            ``"float32"``, ``"bfloat16"``, or ``"auto"``: bfloat16 on GPUs and CPUs that compute in it, else float32.
        normalize
            Scale to length 1, as the authors do.
        progress_bar
            Show progress.

        Returns
        -------
        ``(n_cells, d_model)`` float32.

        Raises
        ------
        ValueError
            When no gene matches; when values are negative, NaN or infinite; when cells have batches or conditions that
            the model was not trained on.
        KeyError
            When a layer or column is not there.
        MemoryError
            When a single cell does not fit into the memory of the device.

        Examples
        --------
        >>> import scanpy as sc
        >>> from scgpt.model import SCGPT
        >>> adata = sc.datasets.pbmc68k_reduced()[:10].raw.to_adata()
        >>> SCGPT.from_pretrained("mini").get_latent_representation(adata, progress_bar=False).shape
        (10, 64)
        """
        adata = self._given_or_own(adata)
        match = match or self.match(adata, gene_key=gene_key, gene_mapping=gene_mapping)
        return self.embed_cells(
            self.cells_to_embed(adata, match, layer=layer),
            _rows(adata, indices),
            max_length=max_length,
            precision=precision,
            normalize=normalize,
            progress_bar=progress_bar,
        )

    def cells_to_embed(self, adata: AnnData, match: GeneMatch, *, layer: str | None = None) -> Cells:
        """Return the cells of a data set as this model reads them, for :meth:`embed_cells`; no matrix is read yet.

        Parameters
        ----------
        adata
            As :meth:`get_latent_representation` takes it.
        match
            What :meth:`match` gave.
        layer
            As in :meth:`get_latent_representation`.

        Raises
        ------
        ValueError
            When there is no cell or no matrix; when cells have batches or conditions that the model was not trained on.
        KeyError
            When a layer or column is not there.
        """
        if not self.is_trained:
            warn_user("The model is not trained; its embeddings mean nothing yet.")
        return self._cells(adata, match, layer)

    def embed_cells(
        self,
        cells: Cells,
        index: NDArray[np.int64],
        *,
        max_length: int | None = None,
        precision: Precision = "auto",
        normalize: bool = True,
        progress_bar: bool = True,
        out: RowSink | None = None,
    ) -> NDArray[np.float32]:
        """Embed cells that :meth:`cells_to_embed` gave; :meth:`get_latent_representation` is these two in one.

        Parameters
        ----------
        cells
            The cells.
        index
            ``(n_cells,)`` rows to embed.
        max_length, precision, normalize, progress_bar
            As in :meth:`get_latent_representation`.
        out
            Takes the embedding portion by portion, in the order of ``index``, so that all of it is never in memory.

        Returns
        -------
        ``(n_cells, d_model)`` float32, without rows where ``out`` took them.

        Raises
        ------
        ValueError
            When values are negative, NaN or infinite.
        """
        return self._of_cells(
            self._embedder(normalize),
            self.module.network.config.d_model,
            cells,
            index,
            max_length=max_length,
            precision=precision,
            progress_bar=progress_bar,
            doing="Embedding",
            out=out,
        )

    def _embedder(self, normalize: bool) -> Callable[[TokenBatch], torch.Tensor]:
        def embed(batch: TokenBatch) -> torch.Tensor:
            embedding = self.module.embed(batch)
            return torch.nn.functional.normalize(embedding, dim=1) if normalize else embedding

        return embed

    def _cells(self, adata: AnnData, match: GeneMatch, layer: str | None, *, decodes: bool = False) -> Cells:
        """Return any data set, as the network reads it; ``decodes`` says whether its decoders do, too."""
        layer = self.layer_of(layer)
        return Cells(
            adata,
            match.token_ids,
            layer=None if layer == "X" else layer,
            batch_labels=self._batch_labels(adata, decodes),
            measured=self._measured(adata),
            conditions=self._conditions(adata),
        )

    def _of_cells(
        self,
        function: Callable[[TokenBatch], torch.Tensor],
        width: int,
        cells: Cells | MultiCells,
        index: NDArray[np.int64],
        *,
        max_length: int | None,
        precision: Precision,
        progress_bar: bool,
        doing: str,
        out: RowSink | None = None,
    ) -> NDArray[np.float32]:
        """Return the ``(n_cells, width)`` rows that a function gives for the cells of a batch, or hand them on."""
        max_length = self.tokenizer.max_length if max_length is None else max_length
        tokenizer = replace(self.tokenizer, max_length=max_length, ties="middle")
        result = np.empty((0 if out else len(index), width), np.float32)
        done, n_empty = 0, 0
        # Many conditions weigh more than the tokens that they belong to.
        at_once = max(1, _CELLS_AT_ONCE // (1 + cells.conditions.width // 4)) if cells.conditions else _CELLS_AT_ONCE
        tokenized = (cells.tokenize(rows, tokenizer) for rows in portions(index, at_once))
        for part, of_part in self._passes(function, tokenized, len(index), precision, doing, progress_bar):
            n_empty += int((part.lengths == 1).sum())
            rows = of_part.cpu().numpy()
            if out:
                out(rows)
            else:
                result[done : done + part.n_cells] = rows
            done += part.n_cells
        if n_empty:
            logger.warning(
                "%d cells express no gene of the vocabulary; their embedding is that of an empty cell.", n_empty
            )
        return result

    def _passes(
        self,
        function: Callable[[TokenBatch], T],
        tokenized: Iterator[TokenBatch],
        n_cells: int,
        precision: Precision,
        doing: str,
        progress_bar: bool,
    ) -> Iterator[tuple[TokenBatch, T]]:
        """Yield what :class:`Passes` does, in a precision, while a bar shows how far it is."""
        self.module.eval()
        with (
            in_precision(self.module.network, precision),
            tqdm(total=n_cells, desc=doing, unit="cell", disable=not progress_bar) as progress,
        ):
            # The next cells are read while these are computed.
            for part, result in Passes(self.module.network)(function, ahead(tokenized, 1)):
                yield part, result
                progress.update(part.n_cells)

    @torch.inference_mode()
    def get_gene_embeddings(self, genes: Iterable[str] | None = None) -> pd.DataFrame:
        """Return the input embeddings of genes, after their layer norm, before any cell is seen.

        Parameters
        ----------
        genes
            Names in the vocabulary; all genes by default.

        Returns
        -------
        ``(n_genes, d_model)`` float32, with the genes as index.

        Raises
        ------
        KeyError
            When a gene is not in the vocabulary.

        Examples
        --------
        >>> from scgpt.model import SCGPT
        >>> SCGPT.from_pretrained("mini").get_gene_embeddings(["CD3D", "CD79A"]).shape
        (2, 64)
        """
        names = list(self.vocab.genes) if genes is None else [str(g) for g in genes]
        ids = self._gene_ids(names)
        embeddings = self.module.network.genes(torch.from_numpy(ids).to(self.device))
        return pd.DataFrame(embeddings.float().cpu().numpy(), index=pd.Index(names, name="gene"))

    def _gene_ids(self, names: list[str]) -> NDArray[np.int64]:
        ids = self.vocab.ids(names)
        if (ids < 0).any():
            lacking = [name for name, i in zip(names, ids, strict=True) if i < 0]
            raise KeyError(f"{len(lacking)} genes are not in the vocabulary, such as {lacking[:5]}.")
        return ids

    def match(
        self,
        adata: AnnData | None = None,
        *,
        gene_key: str | None = None,
        gene_mapping: Mapping[str, str] | pd.Series | str | Path | None = None,
    ) -> GeneMatch:
        """Report which genes of a data set the model knows, as :func:`scgpt.data.match_genes` does.

        Examples
        --------
        >>> import scanpy as sc
        >>> from scgpt.model import SCGPT
        >>> adata = sc.datasets.pbmc68k_reduced().raw.to_adata()
        >>> match = SCGPT.from_pretrained("mini").match(adata)
        >>> match.n_genes, len(match.unmatched)
        (764, 1)
        """
        adata = self._given_or_own(adata)
        args = self.registry.get("setup_args", {})
        registered = args.get("gene_key")  # a column that other data sets need not have
        gene_key = gene_key or (registered if registered in adata.var else None)
        gene_mapping = args.get("gene_mapping") if gene_mapping is None else gene_mapping
        return match_genes(in_memory(adata.var), self.vocab, gene_key=gene_key, gene_mapping=gene_mapping)

    def layer_of(self, layer: str | None = None) -> str:
        """Return the layer that is read where ``layer`` is asked for: the registered one by default, ``"X"`` for ``.X``."""
        return layer or self.registry.get("setup_args", {}).get("layer") or "X"

    def _given_or_own(self, adata: Any) -> Any:
        adata = self.adata if adata is None else adata
        if adata is None:
            raise ValueError("This model has no data of its own; pass an AnnData or MuData.")
        self._check_data(adata)
        return adata

    def _conditions(self, adata: AnnData) -> Conditions | None:
        """Return the conditions of genes and cells, where the network has any."""
        return conditions_of(self.registry, adata, self.vocab, self.module.network.config.n_conditions)

    def _batch_labels(self, adata: AnnData, decodes: bool) -> NDArray[np.int64] | None:
        """Return the batch of each cell as the model counts them, where its encoder, or what decodes, depends on it."""
        config = self.module.network.config
        of_decoders = decodes and config.batch_embedding
        if config.input_norm != "domain" and not of_decoders and self._measured(adata) is None:
            return None
        what = "normalises each batch apart" if config.input_norm == "domain" else "reads the batch of each cell"
        state = self.registry["field_registries"].get(REGISTRY_KEYS.BATCH_KEY, {}).get("state_registry")
        if state is None:
            raise ValueError(
                f"This model {what}, but the checkpoint does not name its batches; "
                "fine-tune it on your data (from_pretrained(..., adata, fresh=['input_norm', ...])) first."
            )
        column = state["original_key"]
        if column not in adata.obs:
            raise KeyError(f"This model {what}: .obs[{column!r}] must name each cell's batch.")
        names = as_text(without_missing(pd.Series(adata.obs[column]), column, "batch"), column)
        labels = pd.Index(state["categorical_mapping"], dtype=object).get_indexer(pd.Index(names))
        if (labels < 0).any():
            strange = sorted(set(names[labels < 0]))
            raise ValueError(
                f".obs[{column!r}] names batches that the model was not trained on: {strange[:5]}. "
                + (
                    f"{type(self).__name__}.load_query_data(adata, model) makes room for them."
                    if hasattr(self, "load_query_data")
                    else "Train a model with them."
                )
            )
        return labels

    def _measured(self, adata: AnnData) -> NDArray[np.bool_] | None:
        """Return which batch measured which gene, where the data say so and it matters."""
        key = self.registry.get("setup_args", {}).get("measured_key")
        if key is None or not self.tokenizer.include_zeros:
            return None
        state = self.registry["field_registries"][REGISTRY_KEYS.BATCH_KEY]["state_registry"]
        return measured_by(adata, key, state["categorical_mapping"])


def portions(index: NDArray[np.int64], at_once: int) -> list[NDArray[np.int64]]:
    """Cut rows into portions of about one size, of at most so many."""
    return np.array_split(index, -(-len(index) // at_once)) if len(index) else []


def _rows(adata: AnnData, indices: ArrayLike | None) -> NDArray[np.int64]:
    rows = np.arange(adata.n_obs)
    if indices is None:
        return rows
    kind = bool if np.asarray(indices).dtype == bool else int  # an empty list would be float
    return np.atleast_1d(rows[np.asarray(indices, dtype=kind)])
