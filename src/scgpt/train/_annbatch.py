"""Our order of cells for annbatch; imported where a corpus is read, since annbatch takes a while to import."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import scipy.sparse as sp
from annbatch import Loader
from annbatch.abc import Sampler
from anndata.abc import CSRDataset
from numpy.typing import NDArray

from ._corpus_order import CorpusOrder


class _OrderSampler(Sampler):
    """Tells annbatch what to read, from a step of the epoch on."""

    def __init__(self, order: CorpusOrder):
        self.order, self.start = order, 0

    @property
    def batch_size(self) -> int:
        return self.order.batch_size

    @property
    def shuffle(self) -> bool:
        return self.order.shuffle

    def n_batches(self, n_obs: int) -> int:
        return len(self.order)

    def validate(self, n_obs: int) -> None:
        if n_obs != self.order.n_cells:
            raise ValueError(f"The order is for {self.order.n_cells} cells, and there are {n_obs}.")

    def _sample(self, n_obs: int) -> Iterator[Any]:
        first, passed = divmod(self.start, self.order.batches_per_read)
        for number in range(first, self.order.n_reads):
            cells, batches = self.order.read(number)
            yield {"requests": cells, "splits": batches[passed:]}
            passed = 0


class RowReader:
    """Reads the rows of a corpus in the order of training.

    Parameters
    ----------
    matrices
        Of the datasets, on disk.
    order
        Of the cells.
    """

    def __init__(self, matrices: Sequence[CSRDataset], order: CorpusOrder):
        self._sampler = _OrderSampler(order)
        loader: Loader = Loader(batch_sampler=self._sampler, return_index=True, preload_to_gpu=False)
        self._loader = loader.add_datasets(list(matrices))

    def read(self, start: int) -> Iterator[tuple[sp.csr_matrix, NDArray[np.int64]]]:
        """Yield the rows of each batch of this epoch from a step on, and their places in the datasets."""
        self._sampler.start = start
        for batch in self._loader:
            yield batch["X"], batch["index"]
