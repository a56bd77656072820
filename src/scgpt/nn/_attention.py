"""Bidirectional attention within each cell of a packed batch, one function for every backend."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor, nn

from scgpt._token_batch import TokenBatch

from ._attention_scores import attention_scores
from ._backends import BACKENDS, fastest
from ._generative import attention_of_cls, generative_attention


def attention(
    q_THE: Tensor, k_THE: Tensor, v_THE: Tensor, batch: TokenBatch, dropout: float = 0.0, backend: str = "auto"
) -> Tensor:
    """Scaled dot-product attention in which every token sees all tokens of its own cell and no other.

    Where tokens are unknown, all see the known ones alone, and an unknown one sees itself, too. The memory grows
    linearly with the length of cells, but with dropout where no fused kernel has it, as on a CPU.

    Parameters
    ----------
    q_THE, k_THE, v_THE
        ``(T, H, E)`` queries, keys and values of ``H`` heads; or ``(B, H, E)`` queries, those of ``<cls>`` alone.
    batch
        The batch, for the cells' boundaries and for what is unknown.
    dropout
        Probability to drop an attention weight.
    backend
        ``"cells"``, ``"softmax"``, ``"jagged"``, ``"varlen"``, ``"flash"``, or ``"auto"``: the fastest of those that run on
        the device in this precision. The result is the same.

    Returns
    -------
    As many rows as there are queries.

    Raises
    ------
    ValueError
        When there is no such backend.

    Examples
    --------
    >>> import torch
    >>> from scgpt.data import TokenBatch
    >>> from scgpt.nn import attention
    >>> genes = torch.tensor([9, 1, 2, 9, 3])  # two cells of three and two tokens
    >>> batch = TokenBatch(genes, torch.ones(5), offsets=torch.tensor([0, 3, 5]), cell_index=torch.arange(2))
    >>> q, k, v = torch.randn(3, 5, 2, 4)  # tokens, heads, width of a head
    >>> out = attention(q, k, v, batch)
    >>> torch.allclose(out[3:], attention(q[3:], k[3:], v[3:], batch.cells(1, 2)), atol=1e-5)  # each cell by itself
    True
    """
    if backend not in {"auto", *BACKENDS}:
        raise ValueError(f"backend must be 'auto' or one of {sorted(BACKENDS)}, not {backend!r}.")
    function = BACKENDS[fastest(q_THE, dropout) if backend == "auto" else backend]
    attend = partial(function, dropout=dropout, scale=q_THE.shape[-1] ** -0.5)
    queries = batch if len(q_THE) == batch.n_tokens else batch.cls_tokens
    if batch.unknown is not None:
        return generative_attention(q_THE, k_THE, v_THE, batch, queries, attend)
    return attend(q_THE, k_THE, v_THE, queries, batch)


class SelfAttention(nn.Module):
    """Multi-head self-attention over packed cells.

    With ``project_unknown=False`` the output of unknown tokens is left as it is before the last linear layer.
    """

    def __init__(self, d_model: int, n_heads: int, dropout: float, project_unknown: bool = True):
        super().__init__()
        self.n_heads, self.dropout, self.project_unknown = n_heads, dropout, project_unknown
        self.qkv = nn.Linear(d_model, 3 * d_model)
        self.out = nn.Linear(d_model, d_model)

    def forward(self, x_TD: Tensor, batch: TokenBatch, cls_only: bool = False) -> Tensor:
        """Map ``(T, D)`` to ``(T, D)``; with ``cls_only`` to the ``(B, D)`` rows of ``<cls>``."""
        q, k, v = self._project(x_TD)
        if cls_only:
            q = q[batch.first]
        mixed = attention(q, k, v, batch, self.dropout if self.training else 0.0).flatten(1)
        if batch.unknown is None or self.project_unknown or cls_only:
            return self.out(mixed)
        return torch.where(batch.unknown.unsqueeze(1), mixed, self.out(mixed))

    def of_cls(self, x_TD: Tensor, batch: TokenBatch) -> Tensor:
        """Return the ``(T,)`` share of its attention that ``<cls>`` gives to each token, see :func:`attention_of_cls`."""
        q, k, _ = self._project(x_TD)
        return attention_of_cls(q[batch.first], k, batch)

    def scores(self, x_TD: Tensor, batch: TokenBatch) -> Iterator[Tensor]:
        """Yield the ``(H, L, L)`` attention between the tokens of each cell, see :func:`attention_scores`."""
        q, k, _ = self._project(x_TD)
        return attention_scores(q, k, batch)

    def _project(self, x_TD: Tensor) -> tuple[Tensor, ...]:
        """Return queries, keys and values, each ``(T, H, E)``."""
        return self.qkv(x_TD).view(len(x_TD), 3, self.n_heads, -1).unbind(1)
