"""Batches that together make one step of the optimiser."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Literal

import torch
from torch import Tensor

from scgpt.data import TokenBatch


@dataclass(frozen=True, eq=False)
class PartOfStep(TokenBatch):
    """A batch whose gradient is summed with that of others before the optimiser steps.

    A mean over all cells or predicted tokens of the step is the sum of the parts' own means, each times the part's
    share.

    Parameters
    ----------
    share_of_cells
        ``()`` float32, this part's share of the step's cells.
    share_of_genes
        ``()`` float32, its share of the genes of these cells.
    share_of_tokens
        ``()`` float32, its share of the step's predicted tokens.
    """

    share_of_cells: Tensor | None = None
    share_of_genes: Tensor | None = None
    share_of_tokens: Tensor | None = None

    def share(self, of: Literal["cells", "genes", "tokens"]) -> Tensor:
        """Return the share of cells, genes or tokens."""
        share = {"cells": self.share_of_cells, "genes": self.share_of_genes, "tokens": self.share_of_tokens}[of]
        assert share is not None
        return share


def parts_of_step(batches: Sequence[TokenBatch]) -> list[PartOfStep]:
    """Return batches that know their share of the whole."""
    cells = _shares([batch.n_cells for batch in batches])
    genes = _shares([batch.n_tokens - batch.n_cells for batch in batches])
    tokens = _shares([0 if batch.predict is None else int(batch.predict.sum()) for batch in batches])
    return [
        PartOfStep(
            **{f.name: getattr(batch, f.name) for f in fields(batch)},
            share_of_cells=of_cells,
            share_of_genes=of_genes,
            share_of_tokens=of_tokens,
        )
        for batch, of_cells, of_genes, of_tokens in zip(batches, cells, genes, tokens, strict=True)
    ]


def _shares(counts: Sequence[int]) -> Tensor:
    return torch.tensor(counts, dtype=torch.float32) / max(sum(counts), 1)
