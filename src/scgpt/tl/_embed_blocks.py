"""A dask matrix embedded block by block, wherever dask computes the blocks."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import dask.array
    import numpy as np
    from dask.delayed import Delayed
    from distributed import Client, Future
    from numpy.typing import NDArray

    from scgpt.data import Cells
    from scgpt.hub import Checkpoint
    from scgpt.model import SCGPT, Precision

# Tasks of one process go through the network one after the other, each on all threads of the process: as many networks
# at a time would want as many times its memory, and get no more done.
_NETWORK = threading.Lock()


@dataclass(frozen=True, eq=False)
class BlockEmbedder:
    """All that it takes to embed a block of cells, but their expression.

    A copy that travels to a worker leaves behind the matrix and the data that the model was trained on; its network goes to
    the device that the worker has.

    Parameters
    ----------
    model
        The model.
    cells
        The cells, as the model reads them.
    max_length
        Most tokens of a cell.
    precision
        ``"float32"`` or ``"bfloat16"``.
    """

    model: SCGPT
    cells: Cells
    max_length: int
    precision: Precision

    def here(
        self,
        rows: NDArray[np.int64],
        *,
        progress_bar: bool,
        out: Callable[[NDArray[np.float32]], object] | None = None,
    ) -> NDArray[np.float32]:
        """Embed cells of the data set in this process, read from their matrix in portions.

        Parameters
        ----------
        rows
            ``(n,)`` their rows.
        progress_bar
            Show progress.
        out
            As in :meth:`scgpt.model.SCGPT.embed_cells`.
        """
        return self.model.embed_cells(
            self.cells,
            rows,
            max_length=self.max_length,
            precision=self.precision,
            progress_bar=progress_bar,
            out=out,
        )

    def __call__(self, rows: Any, first: int) -> NDArray[np.float32]:
        """Embed consecutive cells.

        Parameters
        ----------
        rows
            ``(n, n_vars)`` expression, sparse or dense.
        first
            Row of the first of them in the data set.

        Returns
        -------
        ``(n, d_model)``.

        Raises
        ------
        ValueError
            When values are negative, NaN or infinite.
        """
        from dataclasses import replace

        import numpy as np

        block = replace(self, cells=self.cells.at_hand(rows, first))
        return block.here(np.arange(first, first + rows.shape[0]), progress_bar=False)

    def __reduce__(self) -> tuple[Any, ...]:
        from dataclasses import replace

        import scipy.sparse as sp

        checkpoint = self.model.to_checkpoint()
        weights = {name: tensor.cpu() for name, tensor in checkpoint.state_dict.items()}
        cells = self.cells.at_hand(sp.csr_matrix((0, len(self.cells.token_ids))), 0)
        checkpoint = replace(checkpoint, state_dict=weights)
        return _rebuilt, (type(self.model), checkpoint, cells, self.max_length, self.precision)

    @property
    def width(self) -> int:
        """Dimensions of the embedding."""
        return self.model.module.network.config.d_model

    @property
    def nbytes(self) -> int:
        """About as many bytes as it has when it travels."""
        return sum(tensor.nbytes for tensor in self.model.module.network.state_dict().values())


class ShippedEmbedder:
    """A :class:`BlockEmbedder` on its way: bytes, until a block is to be embedded.

    Workers hand it on to one another in the thread that answers the scheduler. Were the model built there, and were torch
    imported for it, the worker would be taken for lost meanwhile; so it is built by the first task that needs it, and kept.

    Parameters
    ----------
    pickled
        The embedder.
    """

    def __init__(self, pickled: bytes):
        self._pickled = pickled
        self._embedder: BlockEmbedder | None = None

    def __call__(self, rows: Any, first: int) -> NDArray[np.float32]:
        """Embed consecutive cells, as :class:`BlockEmbedder` does."""
        import pickle

        with _NETWORK:
            if self._embedder is None:
                self._embedder = pickle.loads(self._pickled)
            with _threads_of_worker():
                return self._embedder(rows, first)

    def __reduce__(self) -> tuple[Any, ...]:
        return ShippedEmbedder, (self._pickled,)


def ship(embedder: BlockEmbedder) -> Delayed:
    """Return an embedder as one key of a dask graph, on which all blocks can depend.

    Dask hands it to each worker once, and a worker that takes the place of a lost one gets it, too, since the graph holds
    its bytes. It is the model of now, whatever becomes of it until the blocks are computed.
    """
    import hashlib

    import cloudpickle
    import dask

    pickled = cloudpickle.dumps(embedder)
    name = f"scgpt-model-{hashlib.sha256(pickled).hexdigest()[:32]}"
    return dask.delayed(ShippedEmbedder, pure=True)(pickled, dask_key_name=name)


def lazy_embedding(matrix: dask.array.Array, embedder: BlockEmbedder) -> dask.array.Array:
    """Return the embedding of a dask matrix, of which nothing is computed yet.

    Parameters
    ----------
    matrix
        ``(n_obs, n_vars)`` expression.
    embedder
        What embeds the blocks.

    Returns
    -------
    ``(n_obs, d_model)`` float32, in the matrix's chunks of rows.
    """
    import dask.array
    import numpy as np

    return dask.array.map_blocks(
        _embedded,
        matrix.rechunk({1: -1}),
        ship(embedder),
        chunks=(matrix.chunks[0], (embedder.width,)),
        dtype=np.float32,
        meta=np.empty((0, 0), np.float32),
    )


def active_client() -> Client | None:
    """Return the client of the dask cluster that is in use, None where there is none that can be waited for."""
    import sys

    if "distributed" not in sys.modules:  # who has made a client has imported it
        return None
    from distributed import default_client

    try:
        client = default_client()
    except ValueError:
        return None
    return None if client.asynchronous else client


def compute_blocks(
    client: Client,
    blocks: dask.array.Array,
    n_cells: Sequence[int],
    take: Callable[[int, Future], None],
    *,
    graph_bytes: int,
    progress_bar: bool,
) -> None:
    """Have workers compute the blocks of an array of one column of blocks.

    A block that was taken is let go of, so that a worker that is lost later takes none of it along.

    Parameters
    ----------
    client
        Of the cluster.
    blocks
        What is to be computed.
    n_cells
        Of each block, for the progress bar.
    take
        Called with the number and the future of each block when it is done.
    graph_bytes
        Of the model, which is meant to be in the graph: dask warns of graphs that large.
    progress_bar
        Show progress.
    """
    import dask
    from dask.utils import parse_bytes
    from distributed import as_completed, futures_of
    from tqdm.auto import tqdm

    threshold = "distributed.admin.large-graph-warning-threshold"
    with dask.config.set({threshold: parse_bytes(dask.config.get(threshold)) + 2 * graph_bytes}):
        persisted = client.persist(blocks)
    number = {keys[0]: i for i, keys in enumerate(persisted.__dask_keys__())}
    waiting = {future.key: future for future in futures_of(persisted)}
    del persisted  # it holds the futures, too
    try:
        with tqdm(total=sum(n_cells), desc="Embedding", unit="cell", disable=not progress_bar) as progress:
            for future in as_completed(list(waiting.values())):
                i = number[future.key]
                take(i, future)
                del waiting[future.key], future
                progress.update(n_cells[i])
    finally:
        client.cancel(list(waiting.values()))


def gathered_embedding(
    client: Client, matrix: dask.array.Array, embedder: BlockEmbedder, *, progress_bar: bool
) -> NDArray[np.float32]:
    """Return the embedding of a dask matrix as an array in memory, computed by the workers of a cluster.

    Parameters
    ----------
    client
        Of the cluster.
    matrix, embedder
        As in :func:`lazy_embedding`.
    progress_bar
        Show progress.
    """
    import numpy as np

    embedding = lazy_embedding(matrix, embedder)
    result = np.empty(embedding.shape, np.float32)
    sizes = embedding.chunks[0]
    ends = np.cumsum(sizes)

    def take(i: int, future: Future) -> None:
        result[ends[i] - sizes[i] : ends[i]] = future.result()

    compute_blocks(client, embedding, sizes, take, graph_bytes=embedder.nbytes, progress_bar=progress_bar)
    return result


def _embedded(rows: Any, embedder: ShippedEmbedder, block_info: Any = None) -> NDArray[np.float32]:
    return embedder(rows, block_info[0]["array-location"][0][0])


def _rebuilt(
    kind: type[SCGPT], checkpoint: Checkpoint, cells: Cells, max_length: int, precision: Precision
) -> BlockEmbedder:
    return BlockEmbedder(kind.from_pretrained(checkpoint), cells, max_length, precision)


@contextmanager
def _threads_of_worker() -> Iterator[None]:
    """Within a task of a dask worker, let torch and numba use as many threads as the worker has."""
    try:
        from distributed import get_worker

        n_threads = get_worker().state.nthreads
    except (ImportError, ValueError):  # not in a worker: the process is the user's
        yield
        return
    import numba
    import torch

    before = torch.get_num_threads(), numba.get_num_threads()
    torch.set_num_threads(n_threads)
    numba.set_num_threads(min(n_threads, numba.config.NUMBA_NUM_THREADS))  # type: ignore[attr-defined]
    try:
        yield
    finally:
        torch.set_num_threads(before[0])
        numba.set_num_threads(before[1])
