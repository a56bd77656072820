"""Batches of pairs for training on perturbations."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from scgpt.data import PerturbedCells, TokenBatch, Tokenizer

from ._loader import TokenDataModule
from ._order import CellOrder
from ._resumable import ResumableLoader


class PairLoader(ResumableLoader):
    """Yields pairs of a control and a perturbed cell, of other controls and genes each time.

    Parameters
    ----------
    cells
        The data set.
    tokenizer
        Its ``max_length`` is that of a cell, ``<cls>`` and sampled genes.
    order
        Which perturbed cells come when.
    accumulate
        See :class:`ResumableLoader`.
    """

    def __init__(self, cells: PerturbedCells, tokenizer: Tokenizer, order: CellOrder, *, accumulate: int = 1):
        super().__init__(tokenizer, order, mask_share=0.0, accumulate=accumulate)
        self.cells, self.order = cells, order

    def batches(self, start: int) -> Iterator[TokenBatch]:
        """Yield the batches of this epoch from a step on."""
        return map(self.make_batch, range(start, len(self)))

    def make_batch(self, step: int) -> TokenBatch:
        """Return a batch of the current epoch."""
        return self.cells.pairs(
            self.order.batch(step),
            n_genes=self.tokenizer.max_length - 1,
            control_key=self._key("control"),
            gene_key=self._key("genes", step),
        )


class PairDataModule(TokenDataModule):
    """Training and validation loaders over the pairs of one data set, see :class:`TokenDataModule`."""

    cells: PerturbedCells  # type: ignore[assignment]

    def _loader(self, index: NDArray[np.int64], tokenizer: Tokenizer, *, shuffle: bool) -> PairLoader:  # type: ignore[override]
        order = CellOrder(index, self.batch_size, shuffle=shuffle, seed=self.seed)
        return PairLoader(self.cells, tokenizer, order, accumulate=self.accumulate if shuffle else 1)
