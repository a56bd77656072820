"""In which order the cells of a corpus are seen: read in blocks, so that a disk keeps up."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from scgpt.data import check_whole, derive_key

# Cells that lie side by side in the corpus and are read together.
BLOCK = 256


class CorpusOrder:
    """Batches of a corpus as a function of seed, epoch and step; each process takes its slice of every batch.

    Blocks of neighbouring cells come in a random order. Of every ``n`` cells in this order, ``n`` batches get one each, by
    chance: a batch holds cells of many blocks, its cells come from reading as many blocks at once, and each process
    reads the blocks of its own cells alone. The batches are the same for any number of processes.

    Parameters
    ----------
    n_cells
        Cells to go through.
    batch_size
        Cells of a batch over all processes.
    shuffle
        Whether each epoch has an order of its own; else it is that of the corpus. Cells that fill no batch are left out
        of a shuffled epoch, other ones in each; else they are in the last batch, too.
    seed
        Of the orders.
    rank, world_size
        Which of how many processes this one is.
    batches_per_read
        How many batches are read at once; more mix better and need more memory.

    Raises
    ------
    ValueError
        When a number is out of range, there are fewer cells than a batch or a process needs, or a batch cannot be divided
        by the number of processes.

    Examples
    --------
    >>> from scgpt.train import CorpusOrder
    >>> orders = [CorpusOrder(1000, 64, shuffle=True, rank=rank, world_size=2) for rank in (0, 1)]
    >>> for order in orders:
    ...     order.set_epoch(1)
    >>> len(orders[0]), len({*orders[0].batch(0), *orders[1].batch(0)})  # each process has its half of a batch
    (15, 64)
    """

    def __init__(
        self,
        n_cells: int,
        batch_size: int,
        *,
        shuffle: bool,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
        batches_per_read: int = 16,
    ):
        check_whole(batch_size, "batch_size")
        check_whole(batches_per_read, "batches_per_read")
        if not 0 <= rank < world_size:
            raise ValueError(f"rank must lie in 0 .. {world_size - 1}, not {rank}.")
        if batch_size % world_size:
            raise ValueError(f"A batch of {batch_size} cells cannot be divided among {world_size} processes.")
        if n_cells < (batch_size if shuffle else world_size):
            raise ValueError(f"{n_cells} cells are too few for batches of {batch_size} over {world_size} processes.")
        self.n_cells, self.batch_size, self.shuffle, self.seed = n_cells, batch_size, shuffle, seed
        self.rank, self.world_size, self.batches_per_read = rank, world_size, batches_per_read
        self.epoch = 0

    def __len__(self) -> int:
        return max(self.n_cells // self.batch_size, 1)

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch; Lightning calls this when one begins."""
        self.epoch = epoch

    def batch(self, step: int) -> NDArray[np.int64]:
        """Return the cells of a batch of this epoch that are this process's."""
        cells, batches = self.read(step // self.batches_per_read)
        return cells[batches[step % self.batches_per_read]]

    @property
    def n_reads(self) -> int:
        """How many times an epoch reads from disk."""
        return -(-len(self) // self.batches_per_read)

    def read(self, number: int) -> tuple[NDArray[np.int64], list[NDArray[np.int64]]]:
        """Return what is read at once for some consecutive batches.

        Parameters
        ----------
        number
            Which of the epoch's reads, from 0.

        Returns
        -------
        Cells, in runs of neighbours, and for each batch the positions of its cells among them.
        """
        first = number * self.batches_per_read
        n_batches = min(self.batches_per_read, len(self) - first)
        if not self.shuffle:
            return self._in_order(first, n_batches)
        size = self.batch_size // self.world_size
        start = first * self.batch_size + self.rank * size * n_batches
        cells = self._shuffled(start, start + size * n_batches)
        rng = np.random.default_rng(derive_key(self.seed, "read", self.epoch, number))
        lanes = rng.permuted(np.tile(np.arange(n_batches), (self.batch_size, 1)), axis=1)
        own = lanes[self.rank * size : (self.rank + 1) * size] + n_batches * np.arange(size)[:, None]
        return cells, list(own.T)

    def _in_order(self, first: int, n_batches: int) -> tuple[NDArray[np.int64], list[NDArray[np.int64]]]:
        edges = np.arange(first, first + n_batches + 1) * self.batch_size
        if first + n_batches == len(self):
            edges[-1] = self.n_cells
        slices = [
            np.array_split(np.arange(a, b), self.world_size)[self.rank]
            for a, b in zip(edges[:-1], edges[1:], strict=True)
        ]
        places = np.split(np.arange(sum(map(len, slices))), np.cumsum([len(s) for s in slices])[:-1])
        return np.concatenate(slices), places

    def _shuffled(self, start: int, stop: int) -> NDArray[np.int64]:
        """Return the cells at some places of the order of blocks."""
        blocks, ends = self._blocks()
        own = slice(np.searchsorted(ends, start, side="right"), np.searchsorted(ends, stop, side="left") + 1)
        cells = np.concatenate(
            [np.arange(block * BLOCK, min((block + 1) * BLOCK, self.n_cells)) for block in blocks[own]]
        )
        before = ends[own.start - 1] if own.start else 0
        return cells[start - before : stop - before]

    def _blocks(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the blocks in the order of this epoch, and where each ends."""
        # Kept for the epoch: a permutation of millions takes a while.
        if getattr(self, "_kept_epoch", None) != self.epoch:
            n_blocks = -(-self.n_cells // BLOCK)
            self._order = np.random.default_rng(derive_key(self.seed, "order", self.epoch)).permutation(n_blocks)
            self._ends = np.cumsum(np.minimum((self._order + 1) * BLOCK, self.n_cells) - self._order * BLOCK)
            self._kept_epoch = self.epoch
        return self._order, self._ends
