"""In which order cells are seen."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from scgpt.data import check_whole, derive_key


class CellOrder:
    """Batches of cells as a function of seed and epoch.

    Parameters
    ----------
    cells
        ``(n,)`` rows of the data set to go through.
    batch_size
        Cells of a batch; the last one of an epoch has what is left.
    shuffle
        Whether each epoch has an order of its own; else it is the order given.
    seed
        Of the orders.

    Examples
    --------
    >>> import numpy as np
    >>> from scgpt.train import CellOrder
    >>> order = CellOrder(np.arange(10), 4, shuffle=True, seed=0)
    >>> order.set_epoch(2)
    >>> len(order), sorted(row for step in range(3) for row in order.batch(step).tolist())
    (3, [0, 1, 2, 3, 4, 5, 6, 7, 8, 9])
    """

    def __init__(self, cells: NDArray[np.int64], batch_size: int, *, shuffle: bool, seed: int = 0):
        if len(cells) == 0:
            raise ValueError("There is no cell to go through.")
        check_whole(batch_size, "batch_size")
        self.cells = np.asarray(cells, dtype=np.int64)
        self.batch_size, self.shuffle, self.seed = batch_size, shuffle, seed
        self.epoch = 0

    def __len__(self) -> int:
        return -(-len(self.cells) // self.batch_size)

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch; Lightning calls this when one begins."""
        self.epoch = epoch

    def batch(self, step: int) -> NDArray[np.int64]:
        """Return the rows of a batch of this epoch."""
        return self._epoch_order()[step * self.batch_size : (step + 1) * self.batch_size]

    def _epoch_order(self) -> NDArray[np.int64]:
        if not self.shuffle:
            return self.cells
        # Kept for the epoch: a permutation of tens of millions of cells takes seconds.
        if getattr(self, "_cached_epoch", None) != self.epoch:
            rng = np.random.default_rng(derive_key(self.seed, "order", self.epoch))
            self._order, self._cached_epoch = rng.permutation(self.cells), self.epoch
        return self._order
