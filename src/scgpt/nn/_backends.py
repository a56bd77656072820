"""Kernels for attention within the cells of a packed batch: what each needs, and which is taken.

All compute the same; they differ in where they run, how fast, and in which precisions.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from scgpt._token_batch import Packed


class Backend(Protocol):
    """Attention of packed queries to the packed keys of their cells, with weights dropped and scores scaled."""

    def __call__(
        self, q: Tensor, k: Tensor, v: Tensor, queries: Packed, keys: Packed, /, dropout: float, scale: float
    ) -> Tensor:
        """Return as many rows as there are queries."""


HALF = (torch.float16, torch.bfloat16)
# Scores that are written out at a time: 32 MB in half precision, those of 1,400 tokens and 8 heads.
_SCORES_AT_ONCE = 2**24


def fastest(q_THE: Tensor, dropout: float) -> str:
    """Return the name of the fastest backend among those that can."""
    if not q_THE.is_cuda:
        # Torch's fused kernel is no faster in half precision than in single; its products of matrices are.
        written_out = q_THE.dtype in HALF and not torch.is_grad_enabled() and dropout == 0
        return "softmax" if written_out else "cells"
    if q_THE.dtype in HALF and q_THE.shape[-1] % 8 == 0:
        if find_spec("flash_attn"):
            return "flash"
        if find_spec("torch.nn.attention.varlen") and dropout == 0:
            return "varlen"
    return "jagged"


def cells(
    q_THE: Tensor, k_THE: Tensor, v_THE: Tensor, queries: Packed, keys: Packed, dropout: float, scale: float
) -> Tensor:
    """One cell after the other, which on a CPU is 3 to 8 times faster than nested tensors."""
    out = [
        F.scaled_dot_product_attention(q, k, v, dropout_p=dropout, scale=scale).transpose(0, 1)
        for q, k, v in _cut(q_THE, k_THE, v_THE, queries, keys)
    ]
    return torch.cat(out)


def softmax(
    q_THE: Tensor, k_THE: Tensor, v_THE: Tensor, queries: Packed, keys: Packed, dropout: float, scale: float
) -> Tensor:
    """One cell after the other, with the scores of a cell written out; of a long one for some queries at a time."""
    out = []
    for q_of_cell, k, v in _cut(q_THE, k_THE, v_THE, queries, keys):
        for q in q_of_cell.split(max(1, _SCORES_AT_ONCE // k.shape[:2].numel()), dim=1):
            scores = torch.baddbmm(q.new_empty(1), q, k.transpose(1, 2), beta=0, alpha=scale).softmax(-1)
            out.append((F.dropout(scores, dropout) @ v).transpose(0, 1))
    return torch.cat(out)


def jagged(
    q_THE: Tensor, k_THE: Tensor, v_THE: Tensor, queries: Packed, keys: Packed, dropout: float, scale: float
) -> Tensor:
    """Torch's nested tensors, for GPUs in any precision."""
    q, k, v = (
        torch.nested.nested_tensor_from_jagged(x, rows.offsets, max_seqlen=rows.longest).transpose(1, 2)
        for x, rows in ((q_THE, queries), (k_THE, keys), (v_THE, keys))
    )
    return F.scaled_dot_product_attention(q, k, v, dropout_p=dropout, scale=scale).transpose(1, 2).values()


def varlen(
    q_THE: Tensor, k_THE: Tensor, v_THE: Tensor, queries: Packed, keys: Packed, dropout: float, scale: float
) -> Tensor:
    """Torch's kernel for packed sequences, for GPUs in half precision, without dropout."""
    from torch.nn.attention.varlen import varlen_attn

    offsets = queries.offsets.int(), keys.offsets.int()
    return varlen_attn(q_THE, k_THE, v_THE, *offsets, queries.longest, keys.longest, scale=scale)  # type: ignore[return-value]


def flash(
    q_THE: Tensor, k_THE: Tensor, v_THE: Tensor, queries: Packed, keys: Packed, dropout: float, scale: float
) -> Tensor:
    """The same of the package flash-attn, which has dropout, too."""
    from flash_attn import flash_attn_varlen_func

    offsets = queries.offsets.int(), keys.offsets.int()
    lengths = queries.longest, keys.longest
    return flash_attn_varlen_func(q_THE, k_THE, v_THE, *offsets, *lengths, dropout_p=dropout, softmax_scale=scale)


BACKENDS: dict[str, Backend] = {
    "cells": cells,
    "softmax": softmax,
    "jagged": jagged,
    "varlen": varlen,
    "flash": flash,
}


def _cut(q_THE: Tensor, k_THE: Tensor, v_THE: Tensor, queries: Packed, keys: Packed) -> Iterator[tuple[Tensor, ...]]:
    """Yield the ``(H, L, E)`` queries, keys and values of each cell."""
    parts = ((q_THE, queries), (k_THE, keys), (v_THE, keys))
    return zip(*(x.transpose(0, 1).split(rows.lengths.tolist(), dim=1) for x, rows in parts), strict=True)
