"""Transformer layers over packed tokens."""

from __future__ import annotations

from torch import Tensor, nn

from scgpt._token_batch import TokenBatch

from ._attention import SelfAttention
from ._config import ScGPTConfig


class TransformerLayer(nn.Module):
    """Self-attention and a ReLU feed-forward block, each with a residual sum, a layer norm and dropout."""

    def __init__(self, config: ScGPTConfig):
        super().__init__()
        self.order = config.norm
        self.attention = SelfAttention(config.d_model, config.n_heads, config.attention_dropout)
        self.norm1 = nn.LayerNorm(config.d_model)
        self.feed_forward = nn.Sequential(
            nn.Linear(config.d_model, config.d_feed_forward),
            nn.ReLU(),
            nn.Dropout(config.dropout),
            nn.Linear(config.d_feed_forward, config.d_model),
        )
        self.norm2 = nn.LayerNorm(config.d_model)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x_TD: Tensor, batch: TokenBatch) -> Tensor:
        """Map ``(T, D)`` to ``(T, D)``."""
        if self.order == "post":
            x_TD = self.norm1(x_TD + self.dropout(self.attention(x_TD, batch)))
            return self.norm2(x_TD + self.dropout(self.feed_forward(x_TD)))
        if self.order == "pre":
            x_TD = x_TD + self.dropout(self.attention(self.norm1(x_TD), batch))
            return x_TD + self.dropout(self.feed_forward(self.norm2(x_TD)))
        # "pre_stream": the residual sum starts from the normalised stream, not from the stream.
        x_TD = self.norm1(x_TD)
        x_TD = self.norm2(x_TD + self.dropout(self.attention(x_TD, batch)))
        return x_TD + self.dropout(self.feed_forward(x_TD))
