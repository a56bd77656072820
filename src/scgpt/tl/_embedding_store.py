"""An embedding on disk, written shard by shard: what is written stays, whatever happens to the process."""

from __future__ import annotations

import hashlib
import os
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    import dask.array
    import numpy as np
    import zarr
    from anndata import AnnData
    from distributed import Client, Future
    from numpy.typing import NDArray

    from scgpt.data import Cells

    from ._embed_blocks import BlockEmbedder, ShippedEmbedder

KIND, FORMAT = "scgpt embedding", 1

# Cells of a shard where the matrix has no chunks: some megabytes, and on a CPU the work of minutes.
SHARD_ROWS = 4096

# What zarr raises for metadata of an array that are none.
_NO_ARRAY = (OSError, ValueError, TypeError, KeyError, AttributeError, IndexError, OverflowError)

_ATTRIBUTE, _METADATA = "scgpt", "zarr.json"


@dataclass(frozen=True)
class EmbeddingStore:
    """A zarr array ``(n_obs, d_model)`` of float32 whose chunks are shards of rows, with the job that it belongs to.

    A shard is one file of the array. It is written beside its place, flushed to the disk and renamed, and so is whole or not
    there: no list of finished shards is kept that could be wrong. Rows of shards that are missing read as NaN. Two
    processes may write the same shard; both write the same.

    Parameters
    ----------
    path
        Folder of the array, absolute. All that write to it have to see it under this path.
    shape
        ``(n_obs, d_model)``.
    shard_rows
        Rows of each shard but the last.
    """

    path: Path
    shape: tuple[int, int]
    shard_rows: int

    @classmethod
    def open(cls, path: str | Path, job: Mapping[str, Any], shape: tuple[int, int], shard_rows: int) -> Self:
        """Open the store of a job, or make an empty one.

        Parameters
        ----------
        path
            Folder.
        job
            All that the embedding depends on, as values for JSON.
        shape
            ``(n_obs, d_model)``.
        shard_rows
            Rows of a shard; a store that is there keeps its own.

        Raises
        ------
        FileExistsError
            When the folder holds anything but an embedding.
        ValueError
            When the store is damaged, of another job, or a newer version of this package made it.
        OSError
            When the disk is full or the folder cannot be written to.
        ImportError
            When dask is not installed, which reads the store in the end.
        """
        from scgpt._formats import check_format

        _need_dask()
        folder = Path(path).resolve()
        about = {"kind": KIND, "format": FORMAT, **job}
        if folder.is_file() or (folder.is_dir() and any(folder.iterdir())):
            made = _job_there(folder)
            check_format(
                made.get("format"), FORMAT, f"The embedding in {folder}", "give another store, or delete this one"
            )
            _check_job(folder, made, about)
            return cls(folder, shape, _shard_rows_there(folder, shape))
        shard_rows = min(shard_rows, shape[0])
        _create(folder, about, shape, shard_rows)
        return cls(folder, shape, shard_rows)

    @property
    def n_shards(self) -> int:
        """Number of shards, written or not."""
        return -(-self.shape[0] // self.shard_rows)

    def missing(self) -> list[int]:
        """Return the shards that are not written yet."""
        return [shard for shard in range(self.n_shards) if not self.has(shard)]

    def has(self, shard: int) -> bool:
        """Return whether a shard is written; one that was cut off by a copy is not."""
        file = self._file(shard)
        return file.is_file() and file.stat().st_size == self.shard_rows * self.shape[1] * 4

    def size(self, shard: int) -> int:
        """Return the number of rows of a shard."""
        return min(self.shard_rows, self.shape[0] - shard * self.shard_rows)

    def write(self, shard: int, rows: NDArray[np.float32]) -> None:
        """Write a shard, whole or not at all.

        Raises
        ------
        FileNotFoundError
            When the store is not there, as on another machine that does not share the folder.
        OSError
            When the disk is full or the folder cannot be written to.
        """
        import numpy as np

        if not (self.path / _METADATA).is_file():
            raise FileNotFoundError(
                f"There is no store {self.path} on this machine. Give one in a folder that all workers share."
            )
        chunk = np.full((self.shard_rows, self.shape[1]), np.nan, "<f4")  # a chunk at the edge is padded to full size
        chunk[: self.size(shard)] = rows
        place = self._file(shard)
        part = place.with_name(f".{uuid.uuid4().hex}")  # another process may write the same
        with _problems_named(self.path):
            place.parent.mkdir(parents=True, exist_ok=True)
            try:
                with part.open("xb") as file:
                    file.write(chunk.data)
                    file.flush()
                    os.fsync(file.fileno())  # else a machine that goes down could keep the name and lose the content
                part.replace(place)
            finally:
                part.unlink(missing_ok=True)

    def rows_of(self, shards: list[int]) -> NDArray[np.int64]:
        """Return the rows of some shards, in their order."""
        import numpy as np

        starts = [shard * self.shard_rows for shard in shards]
        ranges = [np.arange(start, start + self.size(shard)) for start, shard in zip(starts, shards, strict=True)]
        return np.concatenate(ranges) if ranges else np.empty(0, np.int64)

    def finish(self) -> dask.array.Array:
        """Return the embedding, read from disk where it is asked for; what killed processes left is removed.

        Raises
        ------
        OSError
            When shards are missing.
        """
        import dask.array

        if missing := self.missing():
            raise OSError(f"{self.path} lacks {len(missing)} of {self.n_shards} shards; repeat the call to write them.")
        for part in self.path.glob("c/*/.*"):
            part.unlink(missing_ok=True)
        return dask.array.from_zarr(str(self.path))

    def _file(self, shard: int) -> Path:
        return self.path / "c" / str(shard) / "0"  # as zarr names the chunks of an array of two dimensions


def job_of(adata: AnnData, cells: Cells, **settings: Any) -> dict[str, Any]:
    """Return what an embedding depends on, as values for JSON; expression itself is not looked at.

    Parameters
    ----------
    adata
        The data set.
    cells
        Its cells as the model reads them.
    **settings
        Of the model and of the call.
    """
    names = hashlib.sha256()
    for name in adata.obs_names:
        names.update(f"{name}\n".encode())
    return {
        "n_obs": adata.n_obs,
        "obs_names": names.hexdigest(),
        "genes and labels of cells": cells.digest(),
        **settings,
    }


class ShardWriter:
    """Takes rows of some shards as they come, in order, and writes each shard once it has all of its rows.

    Parameters
    ----------
    store
        Where to.
    shards
        Which, in the order of their rows.
    """

    def __init__(self, store: EmbeddingStore, shards: list[int]):
        import numpy as np

        self._store, self._shards = store, list(shards)
        self._buffer = np.empty((store.shard_rows, store.shape[1]), np.float32)
        self._filled = 0

    def __call__(self, rows: NDArray[np.float32]) -> None:
        """Take some rows."""
        while len(rows):
            shard = self._shards[0]
            n = min(len(rows), self._store.size(shard) - self._filled)
            self._buffer[self._filled : self._filled + n] = rows[:n]
            self._filled, rows = self._filled + n, rows[n:]
            if self._filled == self._store.size(shard):
                self._store.write(shard, self._buffer[: self._filled])
                self._shards, self._filled = self._shards[1:], 0


def write_by_workers(
    client: Client, matrix: dask.array.Array, embedder: BlockEmbedder, store: EmbeddingStore, *, progress_bar: bool
) -> None:
    """Have the workers of a cluster compute the shards that are missing, each of which writes its own.

    Parameters
    ----------
    client
        Of the cluster.
    matrix
        ``(n_obs, n_vars)`` expression.
    embedder
        What embeds its blocks.
    store
        Where to.
    progress_bar
        Show progress.
    """
    import dask.array
    import numpy as np

    from ._embed_blocks import compute_blocks, ship

    if not (missing := store.missing()):
        return
    written = dask.array.map_blocks(
        _write_block,
        matrix.rechunk({0: store.shard_rows, 1: -1}),
        ship(embedder),
        store,
        chunks=((1,) * store.n_shards, (1,)),
        dtype=bool,
        meta=np.empty((0, 0), bool),
    )
    sizes = [store.size(shard) for shard in missing]

    def take(i: int, future: Future) -> None:
        if future.status == "error":  # else there is nothing to fetch: the result is on disk
            future.result()

    compute_blocks(client, written.blocks[missing], sizes, take, graph_bytes=embedder.nbytes, progress_bar=progress_bar)


def _write_block(rows: Any, embedder: ShippedEmbedder, store: EmbeddingStore, block_info: Any = None) -> NDArray[Any]:
    import numpy as np

    shard = block_info[0]["chunk-location"][0]
    # A worker may be lost after it has written the shard and before it could say so.
    if not store.has(shard):
        store.write(shard, embedder(rows, block_info[0]["array-location"][0][0]))
    return np.array([[True]])


def _need_dask() -> None:
    from importlib.util import find_spec

    if find_spec("dask") is None:
        raise ImportError("store=... needs dask to read what was written: pip install 'scgpt-tools[dask]'.")


def _create(folder: Path, about: Mapping[str, Any], shape: tuple[int, int], shard_rows: int) -> None:
    from scgpt._folders import written_whole

    with _problems_named(folder), written_whole(folder) as new:
        _empty_array(new, shape, shard_rows, attributes={_ATTRIBUTE: dict(about)})


def _empty_array(store: Path | dict[str, Any], shape: tuple[int, int], shard_rows: int, **kwargs: Any) -> zarr.Array:
    import zarr

    return zarr.create_array(
        store,
        shape=shape,
        chunks=(shard_rows, shape[1]),
        dtype="float32",
        fill_value=float("nan"),
        compressors=None,  # a chunk's file is its values, and of embeddings little could be saved
        zarr_format=3,
        **kwargs,
    )


def _shard_rows_there(folder: Path, shape: tuple[int, int]) -> int:
    """Return the rows of a shard of a store that is there, and check that it is the array that :func:`_create` makes."""
    import zarr

    try:
        there = zarr.open_array(folder, mode="r").metadata
        shard_rows = int(there.chunks[0])
        here = _empty_array({}, shape, shard_rows).metadata if 1 <= shard_rows <= shape[0] else None
        names = ("shape", "data_type", "chunk_grid", "chunk_key_encoding", "codecs")
        if here is not None and all(getattr(there, name) == getattr(here, name) for name in names):
            return shard_rows
    except _NO_ARRAY:
        pass
    raise ValueError(
        f"{folder / _METADATA} is damaged, it describes no embedding; give another store, or delete this one."
    )


def _job_there(folder: Path) -> dict[str, Any]:
    """Return the job of a store that is there."""
    from scgpt._json import read_object

    other = FileExistsError(f"{folder} is there and holds no embedding of scgpt.tl.embed; give another store.")
    try:
        metadata = read_object(folder / _METADATA, "give another store, or delete this one")
    except (FileNotFoundError, NotADirectoryError):
        raise other from None
    attributes = metadata.get("attributes")
    job = attributes.get(_ATTRIBUTE) if isinstance(attributes, dict) else None
    if not isinstance(job, dict) or job.get("kind") != KIND:
        raise other
    return job


def _check_job(folder: Path, there: Mapping[str, Any], here: Mapping[str, Any]) -> None:
    if different := [name for name in here if there.get(name) != here[name]]:
        shown = [f"{name} ({str(there.get(name))[:16]}, now {str(here[name])[:16]})" for name in different]
        raise ValueError(
            f"{folder} holds the embedding of another job, which differs in {', '.join(shown)}. Give another store, or "
            "delete this one."
        )


@contextmanager
def _problems_named(folder: Path) -> Iterator[None]:
    from scgpt._folders import full_disk_named, read_only_named

    with (
        full_disk_named(folder, "Free some space and repeat the call: the shards that are written stay."),
        read_only_named(folder, "Give a store in a folder that can be written to."),
    ):
        yield
