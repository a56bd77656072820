"""What the loaders of tokens have in common: a place in the epoch that survives a restart."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from itertools import batched, islice
from typing import Any

from scgpt.data import TokenBatch, Tokenizer, derive_key, drop_genes, drop_modalities, mark_unknown, mask_values

from ._ahead import ahead
from ._corpus_order import CorpusOrder
from ._order import CellOrder
from ._parts import parts_of_step


class ResumableLoader(ABC):
    """Yields packed batches with dropped genes and hidden values; each batch is a function of seed, epoch and step.

    Its state is the place in the epoch, so that training that was killed goes on with the very next batch.

    Parameters
    ----------
    tokenizer
        How cells become tokens.
    order
        Which cells come when. Without shuffling (validation) masks are the same in every epoch.
    mask_share
        Share of each cell's genes whose values are hidden; of several, one is drawn for each step of the optimiser.
    unknown
        Whether genes with hidden values are unknown, as generative attention takes them, in place of masked.
    drop_share
        Share of each cell's genes that are left out first.
    drop_modality
        Chance of each cell that one of its modalities is left out.
    levels
        Whether to say the values of all measured genes, too.
    accumulate
        Batches of an optimiser step; of several, each is a :class:`PartOfStep`.
    prefetch
        How many batches a thread of its own prepares before they are asked for.

    Attributes
    ----------
    seconds_waited
        How long those who asked for batches have waited for them.

    Examples
    --------
    >>> import numpy as np
    >>> import scanpy as sc
    >>> from scgpt.data import Cells, GeneVocab, Tokenizer, match_genes
    >>> from scgpt.train import CellOrder, TokenLoader
    >>> adata = sc.datasets.pbmc68k_reduced()[:10].raw.to_adata()
    >>> vocab = GeneVocab.from_genes(adata.var_names)
    >>> cells = Cells(adata, match_genes(adata.var, vocab).token_ids)
    >>> first, other = (
    ...     TokenLoader(cells, Tokenizer(vocab), CellOrder(np.arange(10), 4, shuffle=True), mask_share=0.4)
    ...     for _ in range(2)
    ... )
    >>> batches = iter(first)
    >>> _ = next(batches)
    >>> other.load_state_dict(first.state_dict())  # as after a kill
    >>> next(iter(other)).cell_index.tolist() == next(batches).cell_index.tolist()
    True
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        order: CellOrder | CorpusOrder,
        *,
        mask_share: float | Sequence[float],
        unknown: bool = False,
        drop_share: float = 0.0,
        drop_modality: float = 0.0,
        levels: bool = False,
        accumulate: int = 1,
        prefetch: int = 0,
    ):
        self.tokenizer, self.levels = tokenizer, levels
        self.mask_share, self.unknown = mask_share, unknown
        self.drop_share, self.drop_modality = drop_share, drop_modality
        self.accumulate, self.prefetch = accumulate, prefetch
        self.sampler, self.batch_sampler = order, None  # names under which Lightning looks for set_epoch
        self._consumed = 0
        self.seconds_waited = 0.0
        self._resume_at: tuple[int, int] | None = None

    def __len__(self) -> int:
        return len(self.sampler)

    def __iter__(self) -> Iterator[TokenBatch]:
        # This body runs at the first batch, after Lightning has set the epoch and loaded the state.
        epoch = self.sampler.epoch
        start = self._resume_at[1] if self._resume_at and self._resume_at[0] == epoch else 0
        self._resume_at = None
        batches, self._consumed = ahead(self._steps(start), self.prefetch), start
        while True:
            asked = time.perf_counter()
            batch = next(batches, None)
            self.seconds_waited += time.perf_counter() - asked
            if batch is None:
                return
            self._consumed += 1  # counts what was handed out, not what was prepared
            yield batch

    @abstractmethod
    def batches(self, start: int) -> Iterator[TokenBatch]:
        """Yield the batches of this epoch from a step on, for one optimiser step each."""

    def _steps(self, start: int) -> Iterator[TokenBatch]:
        if self.accumulate == 1:
            yield from self.batches(start)
            return
        passed = start % self.accumulate
        parts = (
            part for group in batched(self.batches(start - passed), self.accumulate) for part in parts_of_step(group)
        )
        yield from islice(parts, passed, None)

    def tie_key(self) -> int:
        """Return what decides ties in this epoch."""
        return self._key("ties")

    def hide(self, batch: TokenBatch, step: int) -> TokenBatch:
        """Drop modalities and genes and hide values, other ones in each epoch of training."""
        batch = drop_modalities(batch, self.drop_modality, key=self._key("drop modality"))
        batch = drop_genes(batch, self.drop_share, key=self._key("drop"))
        share, key = self._mask_share(step), self._key("mask")
        if self.unknown:
            return mark_unknown(batch, share, key=key)
        return mask_values(batch, share, mask_value=self.tokenizer.mask_value, key=key)

    def _mask_share(self, step: int) -> float:
        if not isinstance(self.mask_share, Sequence):
            return self.mask_share
        return self.mask_share[self._key("mask share", step // self.accumulate) % len(self.mask_share)]

    def _key(self, purpose: str, *parts: int) -> int:
        order = self.sampler
        return derive_key(order.seed, purpose, order.epoch if order.shuffle else 0, *parts)

    def state_dict(self) -> dict[str, Any]:
        """Return the place in the epoch."""
        return {"epoch": self.sampler.epoch, "consumed": self._consumed}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go to a place in an epoch."""
        self._resume_at = (state["epoch"], state["consumed"])
        self._consumed = state["consumed"]
