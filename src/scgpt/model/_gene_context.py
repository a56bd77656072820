"""What genes mean in cells."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from anndata import AnnData
from numpy.typing import ArrayLike

from scgpt._messages import warn_user
from scgpt.data import GeneMatch, TokenBatch

from ._embedding import _CELLS_AT_ONCE, EmbeddingMixin, _rows, portions
from ._passes import Precision


class GeneContextMixin(EmbeddingMixin):
    """``get_contextual_gene_embeddings`` for models around an :class:`~scgpt.module.ScGPTModule`."""

    @torch.inference_mode()
    def get_contextual_gene_embeddings(
        self,
        adata: AnnData | None = None,
        genes: Iterable[str] | None = None,
        *,
        indices: ArrayLike | None = None,
        layer: str | None = None,
        gene_key: str | None = None,
        gene_mapping: Mapping[str, str] | pd.Series | str | Path | None = None,
        match: GeneMatch | None = None,
        max_length: int | None = None,
        precision: Precision = "auto",
        progress_bar: bool = True,
    ) -> pd.DataFrame:
        """Return the outputs of genes, each averaged over the cells that it is a token of.

        Unlike :meth:`get_gene_embeddings` they depend on what else these cells express.

        Parameters
        ----------
        adata
            Any data set; by default the model's own.
        genes
            Names in the vocabulary; by default all that ``adata`` measured.
        indices
            Rows of the cells; all by default.
        layer
            See :meth:`get_latent_representation`, as for all that follow.
        gene_key
            See there.
        gene_mapping
            See there.
        match
            See there.
        max_length
            See there.
        precision
            See there.
        progress_bar
            See there.

        Returns
        -------
        ``(n_genes, d_model)`` float32 with the genes as index; NaN where no cell has the gene as a token.

        Raises
        ------
        KeyError
            When a gene is not in the vocabulary.
        ValueError
            As :meth:`get_latent_representation`.

        Examples
        --------
        >>> import scanpy as sc
        >>> from scgpt.model import SCGPT
        >>> adata = sc.datasets.pbmc68k_reduced()[:10].raw.to_adata()
        >>> model = SCGPT.from_pretrained("mini")
        >>> model.get_contextual_gene_embeddings(adata, ["CD74", "LYZ"], progress_bar=False).shape
        (2, 64)
        """
        adata = self._given_or_own(adata)
        match = match or self.match(adata, gene_key=gene_key, gene_mapping=gene_mapping)
        measured = np.unique(match.token_ids[match.token_ids >= 0])
        names = [self.vocab.tokens[i] for i in measured] if genes is None else [str(gene) for gene in genes]
        ids = self._gene_ids(names)
        if not self.is_trained:
            warn_user("The model is not trained; its embeddings mean nothing yet.")
        cells, index = self._cells(adata, match, layer), _rows(adata, indices)
        tokenizer = replace(self.tokenizer, max_length=max_length or self.tokenizer.max_length, ties="middle")
        n_tokens, width = len(self.vocab), self.module.network.config.d_model
        totals, counts = torch.zeros(n_tokens, width, dtype=torch.float64), torch.zeros(n_tokens, dtype=torch.int64)
        tokenized = (cells.tokenize(rows, tokenizer) for rows in portions(index, _CELLS_AT_ONCE))

        def tokens_of(batch: TokenBatch) -> torch.Tensor:
            tokens_TD = self.module.network(batch).tokens
            assert tokens_TD is not None  # they were asked for
            return tokens_TD.double().cpu()

        for part, tokens_TD in self._passes(
            tokens_of, tokenized, len(index), precision, "Embedding genes", progress_bar
        ):
            totals.index_add_(0, part.gene_ids, tokens_TD)
            counts += torch.bincount(part.gene_ids, minlength=n_tokens)
        means = (totals[ids] / counts[ids].unsqueeze(1)).float().numpy()
        return pd.DataFrame(means, index=pd.Index(names, name="gene"))
