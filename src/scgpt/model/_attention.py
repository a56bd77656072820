"""Which genes a model's attention ties together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from anndata import AnnData
from numpy.typing import ArrayLike, NDArray

from scgpt._messages import warn_user
from scgpt.data import GeneMatch, TokenBatch
from scgpt.nn import rank_normalised

from ._embedding import EmbeddingMixin, portions

# Genes of cells that are read at a time: where zeros are tokens, a cell has all of them.
_GENES_AT_ONCE = 4_000_000
# Pairs of genes whose attention is held at a time.
_PAIRS_AT_ONCE = 2**25


@dataclass(frozen=True, eq=False)
class GeneAttention:
    """How much genes attend to genes, in groups of cells.

    Parameters
    ----------
    genes
        ``n`` names in the vocabulary.
    groups
        ``G`` names.
    n_cells
        ``(G,)`` int64, cells of each group.
    influence
        ``(G, n, n)`` float32: of gene ``i`` (row), how much it attends to gene ``j`` (column), which is so far the influence of
        ``j`` on ``i``. Mean over the cells of the group in which both are tokens; NaN where there are none.
    n_both
        ``(G, n, n)`` int32, how many these are.

    Examples
    --------
    >>> import scanpy as sc
    >>> from scgpt.model import SCGPT
    >>> adata = sc.datasets.pbmc68k_reduced()[:20].raw.to_adata()
    >>> model = SCGPT.from_pretrained("mini")
    >>> attention = model.get_gene_attention(["CD74", "HLA-DRA", "LYZ"], adata, progress_bar=False)
    >>> attention.genes, attention.groups, attention.n_cells.tolist(), attention.influence.shape
    (('CD74', 'HLA-DRA', 'LYZ'), ('all',), [20], (1, 3, 3))
    """

    genes: tuple[str, ...]
    groups: tuple[str, ...]
    n_cells: NDArray[np.int64]
    influence: NDArray[np.float32]
    n_both: NDArray[np.int32]


class AttentionMixin(EmbeddingMixin):
    """``get_gene_attention`` for models around an :class:`~scgpt.module.ScGPTModule`."""

    def get_gene_attention(
        self,
        genes: Iterable[str],
        adata: AnnData | None = None,
        *,
        groups: ArrayLike | None = None,
        attention_layer: int = -1,
        heads: int | Sequence[int] | None = None,
        include_zeros: bool | None = None,
        layer: str | None = None,
        gene_key: str | None = None,
        gene_mapping: Mapping[str, str] | pd.Series | str | Path | None = None,
        match: GeneMatch | None = None,
        progress_bar: bool = True,
    ) -> GeneAttention:
        """Average over cells how much genes attend to genes, by ranks.

        What is held is the attention of a few cells, and a sum for each group. In a cell, the attention of a head is
        normalised by :func:`scgpt.nn.rank_normalised`, without ``<cls>``; then it is averaged over heads.

        Parameters
        ----------
        genes
            Names in the vocabulary. These are the tokens that a cell has, binned among all of its genes.
        adata
            Any data set; by default the model's own.
        groups
            ``(n_obs,)`` group of each cell; missing where it has no say. By default all are one, ``"all"``.
        attention_layer
            Layer of the network, counted from 0, or from the last, -1.
        heads
            Which of them; by default all.
        include_zeros
            Whether genes that a cell does not express are tokens; by default as the model was trained.
        layer
            See :meth:`get_latent_representation`, as for all that follow.
        gene_key
            See there.
        gene_mapping
            See there.
        match
            See there.
        progress_bar
            See there.

        Returns
        -------
        The attention of each group. In float32 on any device: half precision would tie ranks.

        Raises
        ------
        KeyError
            When a gene is not in the vocabulary.
        ValueError
            When ``adata`` did not measure a gene, a gene is named twice, or no cell has a group.
        IndexError
            When there is no such layer or head.

        Examples
        --------
        >>> import scanpy as sc
        >>> from scgpt.model import SCGPT
        >>> adata = sc.datasets.pbmc68k_reduced()[:20].raw.to_adata()
        >>> model = SCGPT.from_pretrained("mini")
        >>> attention = model.get_gene_attention(["CD74", "LYZ"], adata, groups=adata.obs["phase"], progress_bar=False)
        >>> attention.groups, attention.influence.shape
        (('G1', 'G2M', 'S'), (3, 2, 2))
        """
        adata = self._given_or_own(adata)
        match = match or self.match(adata, gene_key=gene_key, gene_mapping=gene_mapping)
        names, asked = self._genes_to_attend(genes, match)
        chosen_heads = self._heads(heads)
        codes, group_names = _codes(groups, adata.n_obs)
        if not self.is_trained:
            warn_user("The model is not trained; its attention means nothing yet.")
        cells = self._cells(adata, match, layer)
        zeros = self.tokenizer.include_zeros if include_zeros is None else include_zeros
        tokenizer = replace(
            self.tokenizer, max_length=len(cells.token_ids) + 1, ties="middle", include_zeros=zeros
        )  # nothing is cut before the genes asked for are picked
        index = np.flatnonzero(codes >= 0)
        batches = (
            cells.tokenize(rows, tokenizer) for rows in portions(index, max(1, _GENES_AT_ONCE // len(cells.token_ids)))
        )
        tokenized = (
            part
            for batch in batches
            for part in batch.keep(torch.from_numpy(np.isin(batch.gene_ids.numpy(), asked))).split(
                _PAIRS_AT_ONCE // (len(asked) + 1)
            )
        )
        sums = _Sums(len(group_names), asked, len(self.vocab))

        @torch.inference_mode()
        def ranks_of(batch: TokenBatch) -> list[NDArray[np.float32]]:
            return [
                # The first token is <cls>.
                torch.stack([rank_normalised(scores_HLL[head, 1:, 1:]) for head in chosen_heads]).mean(0).cpu().numpy()
                for scores_HLL in self.module.network.attention_scores(batch, attention_layer)
            ]

        for part, ranks in self._passes(ranks_of, tokenized, len(index), "float32", "Reading attention", progress_bar):
            ids = np.split(part.gene_ids.numpy(), part.boundaries[1:-1])
            for group, own, ranks_LL in zip(codes[part.cell_index.numpy()], ids, ranks, strict=True):
                sums.add(int(group), own[1:], ranks_LL)
        n_cells = np.bincount(codes[index], minlength=len(group_names))
        return GeneAttention(tuple(names), tuple(group_names), n_cells, sums.means(), sums.n)

    def _genes_to_attend(self, genes: Iterable[str], match: GeneMatch) -> tuple[list[str], NDArray[np.int64]]:
        names = [genes] if isinstance(genes, str) else [str(gene) for gene in genes]
        asked = self._gene_ids(names)
        if twice := [name for name, n in Counter(names).items() if n > 1]:
            raise ValueError(f"Genes are named twice: {twice[:5]}.")
        if lacking := [names[i] for i in np.flatnonzero(~np.isin(asked, match.token_ids))]:
            raise ValueError(f"{len(lacking)} genes were not measured, such as {lacking[:5]}.")
        return names, asked

    def _heads(self, heads: int | Sequence[int] | None) -> list[int]:
        n_heads = self.module.network.config.n_heads
        chosen = list(range(n_heads)) if heads is None else [heads] if isinstance(heads, int) else list(heads)
        if not chosen or any(not -n_heads <= head < n_heads for head in chosen):
            raise IndexError(f"heads={heads!r}: this network has {n_heads}, from 0 to {n_heads - 1}.")
        return chosen


def _codes(groups: ArrayLike | None, n_obs: int) -> tuple[NDArray[np.int64], list[str]]:
    """Return the number of each cell's group, -1 where it has none, and the names of the groups."""
    if groups is None:
        return np.zeros(n_obs, np.int64), ["all"]
    column = pd.Series(groups).astype("category").cat.remove_unused_categories()
    if len(column) != n_obs:
        raise ValueError(f"groups has {len(column)} entries for {n_obs} cells.")
    if not len(column.cat.categories):
        raise ValueError("No cell has a group.")
    return column.cat.codes.to_numpy().astype(np.int64), [str(name) for name in column.cat.categories]


class _Sums:
    """Sums over cells that have some of the genes each."""

    def __init__(self, n_groups: int, ids: NDArray[np.int64], n_tokens: int):
        shape = (n_groups, len(ids), len(ids))
        self._place = np.full(n_tokens, -1)
        self._place[ids] = np.arange(len(ids))
        self._total, self.n = np.zeros(shape), np.zeros(shape, np.int32)

    def add(self, group: int, ids: NDArray[np.int64], values: NDArray[np.float32]) -> None:
        """Add the ``(L, L)`` values of a cell with ``L`` genes."""
        place = np.ix_(self._place[ids], self._place[ids])
        self._total[group][place] += values
        self.n[group][place] += 1

    def means(self) -> NDArray[np.float32]:
        with np.errstate(invalid="ignore"):
            return (self._total / self.n).astype(np.float32)
