"""Batches of tokens from a corpus on disk."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from scgpt.corpus import Corpus, Part
from scgpt.data import TokenBatch, Tokenizer, levels_of_genes, measured_tokens

from ._corpus_order import CorpusOrder
from ._resumable import ResumableLoader


class CorpusLoader(ResumableLoader):
    """Yields the cells of a corpus as :class:`TokenLoader` does those of a data set in memory.

    Rows stay sparse up to the tokenizer. ``cell_index`` is the row in the corpus. Genes of the corpus that the tokenizer's
    vocabulary lacks are left out.

    Parameters
    ----------
    corpus
        The cells.
    tokenizer
        How they become tokens.
    batch_size
        Cells of a batch over all processes.
    held_out
        Whether to go through the held-out cells, in a fixed order and with fixed masks, instead of those to train on.
    seed
        Of order, masks and ties.
    rank, world_size, batches_per_read
        See :class:`CorpusOrder`.
    mask_share, unknown, drop_share, drop_modality, levels, accumulate, prefetch
        See :class:`ResumableLoader`.

    Raises
    ------
    ValueError
        When the corpus shares no gene with the tokenizer's vocabulary, or has too few cells.

    Examples
    --------
    >>> import scanpy as sc
    >>> import scgpt
    >>> from scgpt.data import Tokenizer
    >>> from scgpt.train import CorpusLoader
    >>> sc.datasets.pbmc68k_reduced()[:100].raw.to_adata().write_h5ad("blood.h5ad")
    >>> corpus = scgpt.corpus.build(["blood.h5ad"], "corpus.zarr")
    >>> loader = CorpusLoader(corpus, Tokenizer(corpus.vocab, ties="spread"), 16, mask_share=0.4)
    >>> loader.sampler.set_epoch(3)
    >>> [batch.n_cells for batch in loader]
    [16, 16, 16, 16, 16, 16]
    """

    def __init__(
        self,
        corpus: Corpus,
        tokenizer: Tokenizer,
        batch_size: int,
        *,
        mask_share: float | Sequence[float],
        held_out: bool = False,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
        batches_per_read: int = 16,
        **kwargs: Any,
    ):
        self.corpus = corpus
        self.part: Part = "held_out" if held_out else "train"
        self.token_ids = tokenizer.vocab.ids(corpus.vocab.genes)
        if not (self.token_ids >= 0).any():
            raise ValueError(
                f"No gene of the corpus {corpus.path} is in the model's vocabulary; the corpus has such as "
                f"{list(corpus.vocab.genes[:3])}, the vocabulary {list(tokenizer.vocab.genes[:3])}."
            )
        self.order = CorpusOrder(
            corpus.n_cells(self.part),
            batch_size,
            shuffle=not held_out,
            seed=seed,
            rank=rank,
            world_size=world_size,
            batches_per_read=batches_per_read,
        )
        super().__init__(tokenizer, self.order, mask_share=mask_share, **kwargs)

    def batches(self, start: int) -> Iterator[TokenBatch]:
        """Yield the batches of this epoch from a step on."""
        for step, (rows, index) in enumerate(self._rows(start), start):
            yield self.hide(self._tokens(rows, index), step)

    def _rows(self, start: int) -> Iterator[tuple[sp.csr_matrix, NDArray[np.int64]]]:
        from ._annbatch import RowReader

        with self.corpus.reading():
            if not hasattr(self, "_reader"):  # it keeps where each row begins
                self._reader = RowReader(self.corpus.matrices(self.part), self.order)
            yield from self._reader.read(start)

    def _tokens(self, rows: sp.csr_matrix, index: NDArray[np.int64]) -> TokenBatch:
        cell_index = self.corpus.first(self.part) + index
        rows.has_canonical_format = True  # written so; to find out takes a look at every value
        batch = self.tokenizer(rows, self.token_ids, cell_index=cell_index, key=self.tie_key())
        if self.tokenizer.include_zeros:
            batch = batch.keep(measured_tokens(batch, self.token_ids, self._measured, self._file_of_cell[index]))
        if self.levels:
            batch = replace(
                batch, **levels_of_genes(batch, rows, self.token_ids, self._measured, self._file_of_cell[index])
            )
        return batch

    @cached_property
    def _measured(self) -> NDArray[np.bool_]:
        return self.corpus.measured()

    @cached_property
    def _file_of_cell(self) -> NDArray[np.int32]:
        return self.corpus.file_of_cell(self.part)
