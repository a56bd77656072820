"""Transformer layers over packed tokens."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor, nn

from scgpt._token_batch import TokenBatch

from ._attention import SelfAttention
from ._config import ScGPTConfig


class TransformerLayer(nn.Module):
    """Self-attention and a ReLU feed-forward block, each with a residual sum, a layer norm and dropout.

    Parameters
    ----------
    config
        Sizes, dropout, and where the norms stand.

    Examples
    --------
    >>> import torch
    >>> from scgpt.data import TokenBatch
    >>> from scgpt.nn import ScGPTConfig, TransformerLayer
    >>> layer = TransformerLayer(ScGPTConfig(n_tokens=100, d_model=16, n_heads=2, n_layers=1, d_feed_forward=16))
    >>> genes = torch.tensor([9, 1, 2, 9, 3])  # two cells of three and two tokens
    >>> batch = TokenBatch(genes, torch.ones(5), offsets=torch.tensor([0, 3, 5]), cell_index=torch.arange(2))
    >>> layer(torch.randn(5, 16), batch).shape, layer(torch.randn(5, 16), batch, cls_only=True).shape
    (torch.Size([5, 16]), torch.Size([2, 16]))
    """

    def __init__(self, config: ScGPTConfig):
        super().__init__()
        self.order = config.norm
        self.attention = SelfAttention(
            config.d_model, config.n_heads, config.attention_dropout, not config.skip_unknown_projection
        )
        self.norm1 = nn.LayerNorm(config.d_model)
        self.feed_forward = nn.Sequential(
            nn.Linear(config.d_model, config.d_feed_forward),
            nn.ReLU(),
            nn.Dropout(config.dropout),
            nn.Linear(config.d_feed_forward, config.d_model),
        )
        self.norm2 = nn.LayerNorm(config.d_model)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x_TD: Tensor, batch: TokenBatch, cls_only: bool = False) -> Tensor:
        """Map ``(T, D)`` to ``(T, D)``; with ``cls_only`` to the ``(B, D)`` rows of ``<cls>``, at a fraction of the cost."""

        def wanted(y_TD: Tensor) -> Tensor:
            return y_TD[batch.first] if cls_only else y_TD

        if self.order == "post":
            x = self.norm1(wanted(x_TD) + self.dropout(self.attention(x_TD, batch, cls_only)))
            return self.norm2(x + self.dropout(self.feed_forward(x)))
        if self.order == "pre":
            x = wanted(x_TD) + self.dropout(self.attention(self.norm1(x_TD), batch, cls_only))
            return x + self.dropout(self.feed_forward(self.norm2(x)))
        # "pre_stream": the residual sum starts from the normalised stream, not from the stream.
        x_TD = self.norm1(x_TD)
        x = self.norm2(wanted(x_TD) + self.dropout(self.attention(x_TD, batch, cls_only)))
        return x + self.dropout(self.feed_forward(x))

    def attention_of_cls(self, x_TD: Tensor, batch: TokenBatch) -> Tensor:
        """Return the ``(T,)`` share of this layer's attention that ``<cls>`` gives to each token of its cell."""
        return self.attention.of_cls(self._attended(x_TD), batch)

    def attention_scores(self, x_TD: Tensor, batch: TokenBatch) -> Iterator[Tensor]:
        """Yield the ``(H, L, L)`` attention of this layer between the ``L`` tokens of each cell."""
        return self.attention.scores(self._attended(x_TD), batch)

    def _attended(self, x_TD: Tensor) -> Tensor:
        """Return what the attention reads."""
        return x_TD if self.order == "post" else self.norm1(x_TD)
