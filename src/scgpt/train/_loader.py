"""Batches of tokens for training, in an order that survives a restart."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import lightning.pytorch as pl
import numpy as np
from numpy.typing import NDArray

from scgpt.data import Cells, TokenBatch, Tokenizer, derive_key

from ._order import CellOrder
from ._resumable import ResumableLoader


class TokenLoader(ResumableLoader):
    """Yields the cells of a data set, see :class:`ResumableLoader`.

    Parameters
    ----------
    cells
        The data set.
    tokenizer
        How cells become tokens.
    order
        Which cells come when.
    mask_share, unknown, drop_share, drop_modality, levels, accumulate, prefetch
        See :class:`ResumableLoader`.

    Examples
    --------
    >>> import numpy as np
    >>> import scanpy as sc
    >>> from scgpt.data import Cells, GeneVocab, Tokenizer, match_genes
    >>> from scgpt.train import CellOrder, TokenLoader
    >>> adata = sc.datasets.pbmc68k_reduced()[:10].raw.to_adata()
    >>> vocab = GeneVocab.from_genes(adata.var_names)
    >>> cells = Cells(adata, match_genes(adata.var, vocab).token_ids)
    >>> loader = TokenLoader(cells, Tokenizer(vocab), CellOrder(np.arange(10), 4, shuffle=True), mask_share=0.4)
    >>> [batch.n_cells for batch in loader]
    [4, 4, 2]
    """

    def __init__(
        self,
        cells: Cells,
        tokenizer: Tokenizer,
        order: CellOrder,
        *,
        mask_share: float | Sequence[float],
        **kwargs: Any,
    ):
        super().__init__(tokenizer, order, mask_share=mask_share, **kwargs)
        self.cells, self.order = cells, order

    def batches(self, start: int) -> Iterator[TokenBatch]:
        """Yield the batches of this epoch from a step on."""
        return map(self.make_batch, range(start, len(self)))

    def make_batch(self, step: int) -> TokenBatch:
        """Return a batch of the current epoch."""
        index = self.order.batch(step)
        batch = self.cells.tokenize(index, self.tokenizer, key=self.tie_key(), levels=self.levels)
        return self.hide(batch, step)


@dataclass
class Split:
    """Rows of a data set for training, validation and testing.

    Parameters
    ----------
    train
        ``(n_train,)`` int64.
    validation
        ``(n_validation,)`` int64, none where nothing is validated on.
    test
        ``(n_test,)`` int64.

    Examples
    --------
    >>> import numpy as np
    >>> from scgpt.train import Split
    >>> split = Split(train=np.arange(8), validation=np.array([8]), test=np.array([9]))
    >>> len(split.train)
    8
    """

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

    Returns
    -------
    The split; rows of each part rise, and what neither share takes is for the test.

    Raises
    ------
    ValueError
        When the shares are out of range or leave no cell to train on.

    Examples
    --------
    >>> import numpy as np
    >>> from scgpt.train import split_cells
    >>> split = split_cells(np.arange(100), train_size=0.8, validation_size=0.1, seed=0)
    >>> len(split.train), len(split.validation), len(split.test)
    (80, 10, 10)
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
    drop_modality
        Chance of each cell that one of its modalities is left out.
    levels
        Whether to say the values of all measured genes, too.
    accumulate
        Training batches of an optimiser step.

    Examples
    --------
    >>> import numpy as np
    >>> import scanpy as sc
    >>> from scgpt.data import Cells, GeneVocab, Tokenizer, match_genes
    >>> from scgpt.train import TokenDataModule, split_cells
    >>> adata = sc.datasets.pbmc68k_reduced()[:10].raw.to_adata()
    >>> vocab = GeneVocab.from_genes(adata.var_names)
    >>> cells = Cells(adata, match_genes(adata.var, vocab).token_ids)
    >>> split = split_cells(np.arange(10), 0.8, None, seed=0)
    >>> loaders = TokenDataModule(cells, Tokenizer(vocab), split, batch_size=4, mask_share=0.4, seed=0)
    >>> [batch.n_cells for batch in loaders.train_dataloader()], [batch.n_cells for batch in loaders.val_dataloader()]
    ([4, 4], [2])
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
        drop_modality: float = 0.0,
        levels: bool = False,
        accumulate: int = 1,
    ):
        super().__init__()
        self.cells, self.tokenizer, self.batch_size = cells, tokenizer, batch_size
        self.mask_share, self.unknown = mask_share, unknown
        self.drop_share, self.drop_modality = drop_share, drop_modality
        self.seed, self.levels = seed, levels
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
            drop_modality=self.drop_modality,
            levels=self.levels,
            accumulate=self.accumulate if shuffle else 1,
        )
