"""Generative attention: every token sees the known tokens of its cell, an unknown one itself, too, and no other unknown.

No mask is made. The keys of a cell are its known tokens and one more, that stands for whichever token asks. How much of
the attention falls on that key is up to the query: queries are longer by numbers that this key alone multiplies, and
these hold the score of the token with itself, or for a known token, which has its own key among the others, next to
minus infinity. The values are longer by one number, too, where the weight of that key comes out; the token's own value,
for which it stands, is added with this weight. This is the softmax over known tokens and itself, to the last bit that
rounding leaves, forward and backward, by any function for plain attention and with the memory that it needs.
"""

from __future__ import annotations

from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from scgpt._token_batch import Packed, TokenBatch

from ._rows import rows

# Numbers that queries, keys and values are longer by: three are used, and kernels on GPUs want a multiple of eight.
_MORE = 8


class Attend(Protocol):
    """Plain attention of packed queries to the packed keys of their cells."""

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, queries: Packed, keys: Packed) -> Tensor:
        """Return as many rows as there are queries."""


def generative_attention(
    q_THE: Tensor, k_THE: Tensor, v_THE: Tensor, batch: TokenBatch, queries: Packed, attend: Attend
) -> Tensor:
    """Attend to the known tokens of the cell and, where a token is unknown, to itself.

    Parameters
    ----------
    q_THE, k_THE, v_THE
        ``(T, H, E)`` queries, keys and values; or ``(B, H, E)`` queries, those of ``<cls>`` alone.
    batch
        The batch, for which tokens are unknown.
    queries
        Which rows of ``q_THE`` belong to which cell.
    attend
        Plain attention, with scores scaled for queries of width ``E``.
    """
    width, keys, unknown = q_THE.shape[-1], batch.known_and_self, batch.unknown
    assert unknown is not None  # for the type checker
    own_k, own_v = k_THE, v_THE
    if queries is not batch:
        own_k, own_v, unknown = k_THE[batch.first], v_THE[batch.first], unknown[batch.first]
    out = attend(
        torch.cat([q_THE, _scores_with_self(q_THE, own_k, unknown)], dim=-1),
        _pick(k_THE, keys.index, ones=2),
        _pick(v_THE, keys.index, ones=1),
        queries,
        keys,
    )
    return out[..., :width] + out[..., width : width + 1] * own_v


def attention_of_cls(q_BHE: Tensor, k_THE: Tensor, batch: TokenBatch) -> Tensor:
    """Return the share of its attention that ``<cls>`` gives to each token of its cell, the mean over heads.

    It gives none to an unknown token. Of such a token the share is what it would be if this one, too, were known, and no
    other unknown one: it does not depend on which others are asked for.

    Parameters
    ----------
    q_BHE
        ``(B, H, E)`` queries of ``<cls>``.
    k_THE
        ``(T, H, E)`` keys.
    batch
        The batch, for the cells' boundaries and for what is unknown.

    Returns
    -------
    ``(T,)`` float32 in [0, 1]; over the known tokens of a cell its sum is 1.
    """
    cell_T = batch.cell_of_token
    q_THE = rows(q_BHE.flatten(1), cell_T).view_as(k_THE)
    known_TH = score_TH = (q_THE.float() * k_THE.float()).sum(-1) * k_THE.shape[-1] ** -0.5
    if batch.unknown is not None:
        known_TH = score_TH.masked_fill(batch.unknown.unsqueeze(1), -torch.inf)
    index_TH = cell_T.unsqueeze(1).expand_as(score_TH)
    highest_BH = score_TH.new_full((batch.n_cells, score_TH.shape[1]), -torch.inf)
    highest_BH = highest_BH.scatter_reduce(0, index_TH, known_TH, "amax")
    sum_BH = torch.zeros_like(highest_BH).index_add(0, cell_T, (known_TH - highest_BH[cell_T]).exp())
    above_TH = score_TH - (highest_BH + sum_BH.log())[cell_T]
    share_TH = above_TH.exp()
    if batch.unknown is not None:
        share_TH = torch.where(batch.unknown.unsqueeze(1), above_TH.sigmoid(), share_TH)
    return share_TH.mean(1)


def _scores_with_self(q: Tensor, k: Tensor, unknown: Tensor) -> Tensor:
    """``(T, H, 8)`` score of each unknown token with itself, as two numbers to be summed."""
    wide = torch.promote_types(q.dtype, torch.float32)
    own = (q.to(wide) * k.to(wide)).sum(-1)
    own = own.where(unknown.unsqueeze(1), torch.finfo(q.dtype).min / 2)
    # Half precision would round a score of 10 by 0.02; what is lost comes second.
    first = own.to(q.dtype)
    second = (own - first.to(wide)).to(q.dtype)
    return F.pad(torch.stack([first, second], dim=-1), (0, _MORE - 2))


def _pick(x_THE: Tensor, index_K: Tensor, ones: int) -> Tensor:
    """Rows of ``(T, H, E)`` keys or values, longer by 8; ``T`` picks zeros that end in so many ones and zeros again."""
    n_tokens, n_heads, width = x_THE.shape
    of_self = x_THE.new_zeros(1, n_heads, width + _MORE)
    of_self[..., width : width + ones] = 1
    table = torch.cat([F.pad(x_THE, (0, _MORE)), of_self])
    return rows(table.flatten(1), index_K).view(-1, n_heads, width + _MORE)
