"""The scGPT network: one model, switched by a config."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Self

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from scgpt._token_batch import TokenBatch

from ._config import HEADS, ScGPTConfig
from ._domain_norm import EPS, DomainNorm
from ._embeddings import INITIAL_STD, CategoricalValueEncoder, ContinuousValueEncoder, JointEmbedding, NormedEmbedding
from ._heads import (
    Adversary,
    AffineExpressionHead,
    BinnedExpressionHead,
    CellPromptedHead,
    Classifier,
    ExpressionHead,
)
from ._output import NetworkOutput
from ._rows import rows
from ._transformer import TransformerLayer

# Letters at the end of a name are its shape: T tokens, B cells, D model width, C width with the context of batch and
# modality, Q width of a gene's query, H heads, E width of a head, G domains, N value bins.

# Heads that decode expression; they read the context of batch and modality.
_DECODERS = {"gep", "gepc", "zero", "levels", "perturb_gep"}


class ScGPTNetwork(nn.Module):
    """The scGPT transformer :cite:p:`Cui2024` over packed cells, in plain PyTorch.

    Parameters
    ----------
    config
        Sizes and switches.

    Examples
    --------
    >>> import torch
    >>> from scgpt.data import TokenBatch
    >>> from scgpt.nn import ScGPTConfig, ScGPTNetwork
    >>> network = ScGPTNetwork(ScGPTConfig(n_tokens=100, d_model=16, n_heads=2, n_layers=1, d_feed_forward=16))
    >>> genes, values = torch.tensor([99, 3, 5]), torch.tensor([-2.0, 1.0, 4.0])  # 99 is <cls>
    >>> batch = TokenBatch(genes, values, offsets=torch.tensor([0, 3]), cell_index=torch.tensor([0]))
    >>> out = network(batch, heads=["gep"])
    >>> out.cells.shape, out.tokens.shape, out.gep.shape
    (torch.Size([1, 16]), torch.Size([3, 16]), torch.Size([3]))
    """

    def __init__(self, config: ScGPTConfig):
        super().__init__()
        self.config = c = config
        self.n_fixed_batches: int | None = None  # set where all but the batches after these is fixed
        self.recomputes = False  # whether the backward pass computes layers again, in place of what it needs of them
        d, d_context = c.d_model, c.d_context
        self.genes = (NormedEmbedding if c.gene_norm == "layer" else JointEmbedding)(c.n_tokens, d)
        self.values: nn.Module = (
            ContinuousValueEncoder(d, c.dropout, c.max_value)
            if c.value_encoder == "continuous"
            else CategoricalValueEncoder(c.n_values, d)
        )
        # A bag sums as it reads: the embeddings of all conditions of all tokens would not fit into memory.
        self.conditions = nn.EmbeddingBag(c.n_conditions, d, mode="sum", padding_idx=0) if c.n_conditions else None
        if self.conditions is not None:
            # A token may stand under dozens, whose sum must not drown its gene at the start.
            nn.init.normal_(self.conditions.weight, std=INITIAL_STD)
            nn.init.zeros_(self.conditions.weight[0])
        self.flags = nn.Embedding(c.n_flags, d) if c.n_flags else None
        if self.flags is not None:
            nn.init.normal_(self.flags.weight, std=INITIAL_STD)
        self.batches = NormedEmbedding(c.n_batches, d) if c.batch_embedding else None
        self.modalities = NormedEmbedding(c.n_modalities, d) if c.n_modalities else None
        self.input_norm: nn.Module | None = None
        if c.input_norm == "batch":
            self.input_norm = nn.BatchNorm1d(d, eps=EPS)
        elif c.input_norm == "domain":
            self.input_norm = DomainNorm(c.n_batches, d)
        self.layers = nn.ModuleList(TransformerLayer(c) for _ in range(c.n_layers))

        self.gep: ExpressionHead | AffineExpressionHead
        d_decoded = d + d_context + (d if c.condition_context else 0)
        if c.gep_bins:
            self.gep = BinnedExpressionHead(d_decoded, d, c.zero, c.gep_bins)
        else:
            expression = ExpressionHead if c.expression == "mlp" else AffineExpressionHead
            self.gep = expression(d_decoded, d, c.zero)
        # Only where there are modalities is the context part of the query too: a protein's query is not a gene's.
        d_query = d + d_context if c.n_modalities else d
        self.gepc = CellPromptedHead(d_query, d + d_context, c.zero) if c.gepc else None
        self.cls = Classifier(d, c.n_classes, c.n_classifier_layers, nn.ReLU) if c.n_classes else None
        self.cls_norm = nn.LayerNorm(d) if c.n_classes and c.classifier_norm else nn.Identity()
        self.cls_dropout = nn.Dropout(c.classifier_dropout)
        self.dar = Adversary(d, c.n_batches, c.n_classifier_layers) if c.adversary else None

    def train(self, mode: bool = True) -> Self:
        """Switch between training and evaluation; a batch norm that is fixed stays in evaluation."""
        super().train(mode)
        if self.n_fixed_batches is not None and isinstance(self.input_norm, nn.BatchNorm1d):
            self.input_norm.eval()
        return self

    def forward(
        self,
        batch: TokenBatch,
        heads: Iterable[str] = (),
        cell_prompt: Tensor | None = None,
        *,
        tokens: bool = True,
        attention: bool = False,
    ) -> NetworkOutput:
        """Encode a batch and decode it with the heads that are asked for.

        Parameters
        ----------
        batch
            The cells.
        heads
            Among ``gep``, ``gepc``, ``zero``, ``levels``, ``cls``, ``dar``, ``perturb_gep``; ``zero`` gives the
            probabilities of each expression head that is switched on.
        cell_prompt
            ``(B, D)`` cell embeddings put in place of the input embeddings of ``<cls>``.
        tokens
            Whether the output of every token is wanted. If not, and no head reads it, the last layer computes that of
            ``<cls>`` alone, and ``tokens`` of the output is None.
        attention
            Whether the attention of ``<cls>`` in the last layer is wanted.

        Raises
        ------
        ValueError
            When a head is not switched on in the config, or the batch lacks a field that the config asks for.
        """
        heads = tuple(heads)
        self._check(batch, heads)
        genes_TD = self.genes(batch.gene_ids)
        x_TD = self.embed_tokens(genes_TD, batch, cell_prompt).to(self._dtype_of_layers)
        *layers, last = self.layers
        for layer in layers:
            x_TD = self._run(layer, x_TD, batch)
        assert isinstance(last, TransformerLayer)  # for the type checker
        shares_T = last.attention_of_cls(x_TD, batch) if attention else None
        if tokens or self.config.pooling != "cls" or self._reads_tokens(batch, heads):
            out_TD = self._run(last, x_TD, batch).to(genes_TD.dtype)
            cells_BD = self._pool(out_TD, batch)
        else:
            out_TD, cells_BD = None, self._run(last, x_TD, batch, True).to(genes_TD.dtype)
        decoded = self._decode(out_TD, cells_BD, genes_TD, batch, heads)
        return NetworkOutput(out_TD, cells_BD, attention=shares_T, **decoded)

    def attention_scores(self, batch: TokenBatch, layer: int = -1) -> Iterator[Tensor]:
        """Yield how much each token of a cell attends to each in a layer, one cell after the other.

        The batch runs to this layer by the fast path, that forms no such matrix; then one cell's is made at a time.

        Parameters
        ----------
        batch
            The cells, no token of them unknown.
        layer
            Which, counted from 0, or from the last, -1.

        Yields
        ------
        ``(H, L, L)`` float32 softmax of each head over the ``L`` tokens of a cell, ``<cls>`` first: row ``i`` is what token
        ``i`` sees, and sums to 1.

        Raises
        ------
        ValueError
            When tokens are unknown.
        IndexError
            When the network has no such layer.

        Examples
        --------
        >>> import torch
        >>> from scgpt.data import TokenBatch
        >>> from scgpt.nn import ScGPTConfig, ScGPTNetwork
        >>> network = ScGPTNetwork(ScGPTConfig(n_tokens=100, d_model=16, n_heads=2, n_layers=1, d_feed_forward=16))
        >>> genes, values = torch.tensor([99, 3, 5]), torch.tensor([-2.0, 1.0, 4.0])  # 99 is <cls>
        >>> batch = TokenBatch(genes, values, offsets=torch.tensor([0, 3]), cell_index=torch.tensor([0]))
        >>> [tuple(scores.shape) for scores in network.attention_scores(batch)]  # heads, tokens, tokens
        [(2, 3, 3)]
        """
        self._check(batch, ())
        if batch.unknown is not None:
            raise ValueError("The attention between genes is read where all are known; this batch has unknown ones.")
        n_layers = len(self.layers)
        if not -n_layers <= layer < n_layers:
            raise IndexError(f"There is no layer {layer}; this network has {n_layers}, from 0 to {n_layers - 1}.")
        x_TD = self.embed_tokens(self.genes(batch.gene_ids), batch).to(self._dtype_of_layers)
        *before, asked = self.layers[: layer % n_layers + 1]
        for each in before:
            x_TD = each(x_TD, batch)
        assert isinstance(asked, TransformerLayer)  # for the type checker
        return asked.attention_scores(x_TD, batch)

    def _run(self, layer: nn.Module, x_TD: Tensor, batch: TokenBatch, cls_only: bool = False) -> Tensor:
        if self.recomputes and torch.is_grad_enabled():
            return checkpoint(layer, x_TD, batch, cls_only, use_reentrant=False)
        return layer(x_TD, batch, cls_only)

    @property
    def _dtype_of_layers(self) -> torch.dtype:
        """In which the layers compute: that of the rest but inside :func:`layers_in`."""
        return next(self.layers.parameters()).dtype

    def embed_tokens(self, genes_TD: Tensor, batch: TokenBatch, cell_prompt: Tensor | None = None) -> Tensor:
        """Sum the embeddings of gene, value and conditions into the transformer's ``(T, D)`` input."""
        values_TD = self.values(batch.known_values)
        if batch.unknown is not None:
            assert self.flags is not None  # for the type checker; _check has said so to the user
            values_TD = torch.where(batch.unknown.unsqueeze(1), self.flags.weight[1].to(values_TD.dtype), values_TD)
        x_TD = genes_TD + values_TD
        if self.conditions is not None:
            assert batch.condition_ids is not None  # for the type checker; _check has said so to the user
            x_TD = x_TD + self.conditions(batch.condition_ids)
        if isinstance(self.input_norm, DomainNorm):
            assert batch.batch_labels is not None
            x_TD = self.input_norm(x_TD, batch.batch_labels[batch.cell_of_token])
        elif self.input_norm is not None:
            x_TD = self.input_norm(x_TD)
        if cell_prompt is not None:
            x_TD = x_TD.index_copy(0, batch.first, cell_prompt.to(x_TD.dtype))
        return x_TD

    def expressed(
        self,
        genes: Tensor,
        cells_BD: Tensor,
        share: Tensor,
        batch_labels: Tensor | None = None,
        modality_ids: Tensor | None = None,
    ) -> Tensor:
        """Return the probability that cells express genes, from their embeddings.

        For networks with the heads ``gepc`` and ``zero``.

        Parameters
        ----------
        genes
            ``(G,)`` rows of the gene embedding.
        cells_BD
            ``(B, D)`` cell embeddings, not normalised.
        share
            Share of the genes that each cell expresses, ``(B, 1)``, or for each gene of those like it, ``(B, G)``.
        batch_labels
            ``(B,)`` batch of each cell, where the network embeds batches.
        modality_ids
            ``(G,)`` modality of each gene, where the network embeds modalities.

        Returns
        -------
        ``(B, G)`` float32.
        """
        assert self.gepc is not None  # for the type checker
        return self.gepc.probabilities(*self._asked(genes, cells_BD, batch_labels, modality_ids), share)

    def levels(
        self,
        genes: Tensor,
        cells_BD: Tensor,
        batch_labels: Tensor | None = None,
        modality_ids: Tensor | None = None,
    ) -> Tensor:
        """Return the value of genes in cells that express them, from the cells' embeddings.

        For networks with the head ``gepc``; parameters and shape are those of :meth:`expressed`.
        """
        assert self.gepc is not None  # for the type checker
        return self.gepc.levels(*self._asked(genes, cells_BD, batch_labels, modality_ids))

    def _asked(
        self, genes: Tensor, cells_BD: Tensor, batch_labels: Tensor | None, modality_ids: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Return genes and cells as the head ``gepc`` reads them, with the context of batch and modality."""
        query_GQ, of_cls = self.genes(genes), None
        if self.modalities is not None:
            assert modality_ids is not None
            query_GQ = torch.cat([query_GQ, self.modalities(modality_ids)], dim=1)
            of_cls = modality_ids.new_zeros(len(cells_BD))  # <cls> is a modality of its own, the first
        context_BD = self._context(batch_labels, of_cls)
        cells_BD = self._decoded(cells_BD)
        return query_GQ, cells_BD if context_BD is None else torch.cat([cells_BD, context_BD], dim=1)

    def _decoded(self, cells_BD: Tensor) -> Tensor:
        """Return cell embeddings as the heads read them."""
        if not self.config.cell_norm:
            return cells_BD
        return torch.nn.functional.normalize(cells_BD, dim=1) * self.config.d_model**0.5

    def _pool(self, x_TD: Tensor, batch: TokenBatch) -> Tensor:
        if self.config.pooling == "cls":
            return x_TD[batch.first]
        weights_T = torch.ones_like(batch.values)
        if batch.unknown is not None:  # what is generated is no part of what a cell is known by
            weights_T = weights_T.masked_fill(batch.unknown, 0)
        if self.config.pooling == "weighted":
            weights_T = batch.known_values.clamp(min=0)
            # <cls> has no expression; its tiny weight only speaks in a cell in which nothing is expressed.
            weights_T[batch.first] = torch.finfo(weights_T.dtype).tiny
        sums_BD = x_TD.new_zeros(batch.n_cells, x_TD.shape[1])
        sums_BD = sums_BD.index_add(0, batch.cell_of_token, x_TD * weights_T.to(x_TD.dtype).unsqueeze(1))
        totals_B = weights_T.new_zeros(batch.n_cells).index_add(0, batch.cell_of_token, weights_T)
        return sums_BD / totals_B.unsqueeze(1).to(x_TD.dtype)

    def _context(
        self, batch_labels: Tensor | None, modality_ids: Tensor | None, cell_of_token: Tensor | None = None
    ) -> Tensor | None:
        """Sum of batch and modality embeddings, of each cell, or of each token with the ``(T,)`` cell that it belongs to."""
        parts = []
        if self.batches is not None:
            assert batch_labels is not None
            of_cells = self.batches(batch_labels)
            parts.append(of_cells if cell_of_token is None else rows(of_cells, cell_of_token))
        if self.modalities is not None:
            parts.append(self.modalities(modality_ids))
        return sum(parts[1:], parts[0]) if parts else None

    def _zero_of_measured(self, batch: TokenBatch, heads: tuple[str, ...]) -> bool:
        """Whether ``zero`` is asked of the cell, for all measured genes, and of no token.

        So it is where the batch says which of them are expressed.
        """
        return "zero" in heads and batch.levels is not None and self.gepc is not None

    def _reads_tokens(self, batch: TokenBatch, heads: tuple[str, ...]) -> bool:
        """Whether a head decodes each token's own output."""
        reading = {"gep", "perturb_gep"} | (set() if self._zero_of_measured(batch, heads) else {"zero"})
        return bool(reading & set(heads))

    def _decode(
        self, x_TD: Tensor | None, cells_BD: Tensor, genes_TD: Tensor, batch: TokenBatch, heads: tuple[str, ...]
    ) -> dict[str, Tensor]:
        out: dict[str, Tensor] = {}
        embedding_BD, cells_BD = cells_BD, self._decoded(cells_BD)
        if self.cls is not None and "cls" in heads:
            out["cls"] = self.cls(self.cls_dropout(self.cls_norm(cells_BD)))
        if self.dar is not None and "dar" in heads:
            out["dar"] = self.dar(cells_BD)
        if not _DECODERS & set(heads):
            return out

        context_TD = self._context(batch.batch_labels, batch.modality_ids, batch.cell_of_token)

        def with_context(y_TD: Tensor) -> Tensor:
            return y_TD if context_TD is None else torch.cat([y_TD, context_TD], dim=1)

        of_measured = self._zero_of_measured(batch, heads)
        of_tokens = "zero" in heads and not of_measured
        if self._reads_tokens(batch, heads):
            assert x_TD is not None  # for the type checker
            x_TC = with_context(x_TD)
            if self.config.condition_context:
                x_TC = torch.cat([x_TC, rows(_sum_under_conditions(x_TD, batch), batch.cell_of_token)], dim=1)
            if "gep" in heads and isinstance(self.gep, BinnedExpressionHead):
                out["gep_logits"] = self.gep.logits(x_TC)
                out["gep"] = self.gep.expected(out["gep_logits"])
            elif "gep" in heads:
                out["gep"] = self.gep(x_TC)
            if "perturb_gep" in heads:
                out["perturb_gep"] = self.gep(x_TC, batch.known_values)
            if of_tokens:
                out["zero"] = self.gep.probability(x_TC)
        if self.gepc is None:
            return out
        cell_context = None if context_TD is None else context_TD[batch.first]
        cells_BC = cells_BD if cell_context is None else torch.cat([cells_BD, cell_context], dim=1)
        if "gepc" in heads or of_tokens:
            cell_TC = rows(cells_BC, batch.cell_of_token)
            gene_TQ = with_context(genes_TD) if self.modalities is not None else genes_TD
            if "gepc" in heads:
                out["gepc"] = self.gepc(gene_TQ, cell_TC)
            if of_tokens:
                out["zero_gepc"] = self.gepc.probability(gene_TQ, cell_TC)
        context = batch.batch_labels, batch.measured_modality_ids
        if of_measured:
            assert batch.measured is not None
            out["expressed"] = self.expressed(batch.measured, embedding_BD, _share_expressed(batch), *context)
        if "levels" in heads:
            assert batch.measured is not None
            out["levels"] = self.levels(batch.measured, embedding_BD, *context)
        return out

    def _check(self, batch: TokenBatch, heads: tuple[str, ...]) -> None:
        off = [h for h in heads if h not in self.config.heads]
        if off:
            known = "unknown" if set(off) - set(HEADS) else "not switched on in this network's config"
            raise ValueError(f"Heads {off} are {known}; this network has {list(self.config.heads)}.")
        if batch.unknown is not None and self.flags is None:
            raise ValueError("This network has no embedding of unknown genes: it needs n_flags=2.")
        if batch.unknown is not None and bool(batch.unknown[batch.first].any()):
            raise ValueError("TokenBatch.unknown is True at a <cls>: that is what a cell is known by.")
        decodes = bool(_DECODERS & set(heads))
        needed = {
            "condition_ids": self.conditions is not None,
            "modality_ids": self.modalities is not None and decodes,
            "measured": "levels" in heads,
            "measured_modality_ids": self.modalities is not None
            and ("levels" in heads or self._zero_of_measured(batch, heads)),
            "batch_labels": self.config.input_norm == "domain" or (self.batches is not None and decodes),
        }
        missing = [name for name, need in needed.items() if need and getattr(batch, name) is None]
        if missing:
            raise ValueError(f"This network needs {', '.join(missing)} in the TokenBatch.")


def _sum_under_conditions(x_TD: Tensor, batch: TokenBatch) -> Tensor:
    """``(B, D)`` sum of each cell's tokens that stand under a condition."""
    assert batch.condition_ids is not None  # for the type checker; _check has said so to the user
    (under_K,) = (batch.condition_ids != 0).any(1).nonzero(as_tuple=True)
    sums_BD = x_TD.new_zeros(batch.n_cells, x_TD.shape[1])
    return sums_BD.index_add(0, batch.cell_of_token[under_K], x_TD[under_K])


def _share_expressed(batch: TokenBatch) -> Tensor:
    """``(B, 1)`` share of the measured genes that each cell expresses; with modalities ``(B, G)``, of those of its own."""
    levels_BG, modality_G = batch.levels, batch.measured_modality_ids
    assert levels_BG is not None  # for the type checker
    expressed_BG = (levels_BG > 0).float().masked_fill(levels_BG.isnan(), torch.nan)
    if modality_G is None:
        return expressed_BG.nanmean(1, keepdim=True).nan_to_num()
    of_modality_GM = torch.nn.functional.one_hot(modality_G).to(expressed_BG.dtype)
    n_measured_BM = (~expressed_BG.isnan()).to(expressed_BG.dtype) @ of_modality_GM
    share_BM = expressed_BG.nan_to_num() @ of_modality_GM / n_measured_BM.clamp(min=1)
    return share_BM[:, modality_G]
