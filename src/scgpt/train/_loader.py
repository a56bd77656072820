"""Batches of tokens for training, in an order that survives a restart."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import lightning.pytorch as pl
import numpy as np
from numpy.typing import NDArray

from scgpt.data import Cells, TokenBatch, Tokenizer, derive_key, drop_genes, mark_unknown, mask_values

from ._order import CellOrder
from ._parts import parts_of_step


class TokenLoader:
    """Yields packed batches with dropped genes and hidden values; each batch is a function of seed, epoch and step.

    Its state is the place in the epoch, so that training that was killed goes on with the very next batch.

    Parameters
    ----------
    cells
        The data set.
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
    expressed
        Whether to say which of all measured genes each cell expresses.
    accumulate
        Batches of an optimiser step; of several, each is a :class:`PartOfStep`.
    """

    def __init__(
        self,
        cells: Cells,
        tokenizer: Tokenizer,
        order: CellOrder,
        *,
        mask_share: float | Sequence[float],
        unknown: bool = False,
        drop_share: float = 0.0,
        expressed: bool = False,
        accumulate: int = 1,
    ):
        self.cells, self.tokenizer, self.expressed = cells, tokenizer, expressed
        self.mask_share, self.unknown, self.drop_share = mask_share, unknown, drop_share
        self.order, self.accumulate = order, accumulate
        self.sampler, self.batch_sampler = order, None  # names under which Lightning looks for set_epoch
        self._consumed = 0
        self._resume_at: tuple[int, int] | None = None

    def __len__(self) -> int:
        return len(self.order)

    def __iter__(self) -> Iterator[TokenBatch]:
        # This body runs at the first batch, after Lightning has set the epoch and loaded the state.
        order = self.order
        start = self._resume_at[1] if self._resume_at and self._resume_at[0] == order.epoch else 0
        self._resume_at = None
        for step, batch in enumerate(self._batches(start), start):
            self._consumed = step + 1  # counts what was handed out, not what was prepared
            yield batch

    def _batches(self, start: int) -> Iterator[TokenBatch]:
        if self.accumulate == 1:
            yield from map(self.make_batch, range(start, len(self)))
            return
        for first in range(start - start % self.accumulate, len(self), self.accumulate):
            steps = range(first, min(first + self.accumulate, len(self)))
            yield from parts_of_step([self.make_batch(step) for step in steps])[max(start - first, 0) :]

    def make_batch(self, step: int) -> TokenBatch:
        """Return a batch of the current epoch."""
        order = self.order
        epoch = order.epoch if order.shuffle else 0
        ties, drop, mask = (derive_key(order.seed, purpose, epoch) for purpose in ("ties", "drop", "mask"))
        batch = self.cells.tokenize(order.batch(step), self.tokenizer, key=ties, expressed=self.expressed)
        batch = drop_genes(batch, self.drop_share, key=drop)
        share = self._mask_share(epoch, step)
        if self.unknown:
            return mark_unknown(batch, share, key=mask)
        return mask_values(batch, share, mask_value=self.tokenizer.mask_value, key=mask)

    def _mask_share(self, epoch: int, step: int) -> float:
        if not isinstance(self.mask_share, Sequence):
            return self.mask_share
        key = derive_key(self.order.seed, "mask share", epoch, step // self.accumulate)
        return self.mask_share[key % len(self.mask_share)]

    def state_dict(self) -> dict[str, Any]:
        """Return the place in the epoch."""
        return {"epoch": self.order.epoch, "consumed": self._consumed}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go to a place in an epoch."""
        self._resume_at = (state["epoch"], state["consumed"])
        self._consumed = state["consumed"]


@dataclass
class Split:
    """Rows of a data set for training, validation and testing."""

    train: NDArray[np.int64]
    validation: NDArray[np.int64]
    test: NDArray[np.int64]


def split_cells(cells: NDArray[np.int64], train_size: float, validation_size: float | None, seed: int) -> Split:
    """Split cells at random.

    Parameters
    ----------
    cells
        Rows of the data set.
    train_size
        Share to train on.
    validation_size
        Share to validate on; by default all that is not trained on.
    seed
        Of the split.

    Raises
    ------
    ValueError
        When the shares are out of range or leave no cell to train on.
    """
    validation_size = 1 - train_size if validation_size is None else validation_size
    if not 0 < train_size <= 1 or not 0 <= validation_size or train_size + validation_size > 1 + 1e-9:
        raise ValueError(
            f"train_size={train_size} must lie in (0, 1], and with validation_size={validation_size} be at most 1."
        )
    order = np.random.default_rng(derive_key(seed, "split")).permutation(cells)
    n_cells = len(cells)
    n_train = round(n_cells * train_size)
    n_validation = min(round(n_cells * validation_size), n_cells - n_train)
    if n_train == 0:
        raise ValueError(f"train_size={train_size} of {n_cells} cells leaves none to train on.")
    train, validation, test = np.split(order, [n_train, n_train + n_validation])
    return Split(np.sort(train), np.sort(validation), np.sort(test))


class TokenDataModule(pl.LightningDataModule):
    """Training and validation loaders over one data set, in the shape that scvi-tools' runner expects.

    Parameters
    ----------
    cells
        The data set.
    tokenizer
        How cells become tokens.
    split
        Which cells are for what.
    batch_size
        Cells of a batch.
    mask_share
        Share of each cell's genes whose values are hidden; of several, one is drawn for each step of the optimiser.
    unknown
        Whether genes with hidden values are unknown, as generative attention takes them, in place of masked.
    drop_share
        Share of each cell's genes that are left out first.
    seed
        Of order, masks and ties.
    expressed
        Whether to say which of all measured genes each cell expresses.
    accumulate
        Training batches of an optimiser step.
    """

    def __init__(
        self,
        cells: Cells,
        tokenizer: Tokenizer,
        split: Split,
        *,
        batch_size: int,
        mask_share: float | Sequence[float],
        seed: int,
        unknown: bool = False,
        drop_share: float = 0.0,
        expressed: bool = False,
        accumulate: int = 1,
    ):
        super().__init__()
        self.cells, self.tokenizer, self.batch_size = cells, tokenizer, batch_size
        self.mask_share, self.unknown, self.drop_share = mask_share, unknown, drop_share
        self.seed, self.expressed = seed, expressed
        self.accumulate = accumulate
        self.train_idx, self.val_idx, self.test_idx = split.train, split.validation, split.test
        self.n_train, self.n_val = len(split.train), len(split.validation)

    def train_dataloader(self) -> TokenLoader:
        """Shuffled in every epoch anew."""
        return self._loader(self.train_idx, self.tokenizer, shuffle=True)

    def val_dataloader(self) -> TokenLoader | list:
        """In a fixed order, with fixed masks and ties in the middle, so that epochs can be compared."""
        return self._loader(self.val_idx, replace(self.tokenizer, ties="middle"), shuffle=False) if self.n_val else []

    def _loader(self, index: NDArray[np.int64], tokenizer: Tokenizer, *, shuffle: bool) -> TokenLoader:
        order = CellOrder(index, self.batch_size, shuffle=shuffle, seed=self.seed)
        return TokenLoader(
            self.cells,
            tokenizer,
            order,
            mask_share=self.mask_share,
            unknown=self.unknown,
            drop_share=self.drop_share,
            expressed=self.expressed,
            accumulate=self.accumulate if shuffle else 1,
        )
