"""Where the cells of a corpus come from: files, read in portions."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pandas as pd
import scipy.sparse as sp
from numpy.typing import NDArray

from scgpt._formats import DAMAGE
from scgpt.data import Cells

# Stored values, zeros of dense matrices included, that are in memory at a time.
_PORTION = 2**25


class BadFile(ValueError):
    """A file that cannot be part of a corpus, and why."""


@dataclass(frozen=True, eq=False)
class Portion:
    """Some consecutive cells of a source.

    Parameters
    ----------
    first
        Row of the first.
    names
        ``(n,)`` their names.
    rows
        ``(n, n_vars)`` their expression.
    """

    first: int
    names: NDArray[Any]
    rows: sp.csr_matrix


class Source(Protocol):
    """Cells of one origin; every method may raise :class:`BadFile`."""

    name: str

    def n_cells(self) -> int:
        """Return how many there are."""
        ...

    def var(self) -> pd.DataFrame:
        """Return the variables."""
        ...

    def portions(self) -> Iterator[Portion]:
        """Yield all cells in their order."""
        ...

    def stamp(self) -> list:
        """Return what is quickly found and tells whether the source is still the same."""
        ...

    def sha256(self) -> str:
        """Return the hash of the content."""
        ...


class FileSource:
    """Cells of an h5ad file, of a zarr store, or of the RNA in an h5mu file.

    Parameters
    ----------
    path
        The file, or the store's folder.
    name
        What it is called in the corpus.
    layer
        Layer with counts or log-normalised values; ``.X`` by default.
    """

    def __init__(self, path: Path, name: str, layer: str | None = None):
        self.path, self.name, self.layer = path, name, layer

    def n_cells(self) -> int:
        with self._opened() as group:
            return len(_names(group))

    def var(self) -> pd.DataFrame:
        with self._opened() as group:
            return _var(group)

    def portions(self) -> Iterator[Portion]:
        """Yield all cells in their order.

        Raises
        ------
        BadFile
            When the file is damaged, or has no such layer.
        """
        from anndata import AnnData
        from anndata.io import sparse_dataset

        with self._opened() as group:
            matrix = self._matrix(group)
            names = _names(group)
            dense = hasattr(matrix, "shape")
            stored = np.prod(matrix.shape) if dense else matrix["data"].shape[0]
            adata = AnnData(
                matrix if dense else sparse_dataset(matrix),
                obs=pd.DataFrame(index=names),
                var=pd.DataFrame(index=pd.RangeIndex(len(_var(group))).astype(str)),
            )
            cells = Cells(adata, np.empty(0, np.int64))
            n_rows = max(int(_PORTION * len(names) / max(stored, 1)), 1)
            for first in range(0, len(names), n_rows):
                index = np.arange(first, min(first + n_rows, len(names)))
                rows = cells.rows(index)
                rows.check_format(full_check=True)  # an index out of range would be read as it is
                yield Portion(first, names[index], rows)

    def stamp(self) -> list:
        return [[str(p.relative_to(self.path)), p.stat().st_size, p.stat().st_mtime_ns] for p in self._files()]

    def sha256(self) -> str:
        """Return the hash of the file, of a store that of its files' names and hashes."""
        hashes = []
        for path in self._files():
            with path.open("rb") as file:
                hashes.append((str(path.relative_to(self.path)), hashlib.file_digest(file, "sha256").hexdigest()))
        if not self.path.is_dir():
            return hashes[0][1]
        return hashlib.sha256("\n".join(" ".join(pair) for pair in hashes).encode()).hexdigest()

    def _files(self) -> list[Path]:
        return sorted(p for p in self.path.rglob("*") if p.is_file()) if self.path.is_dir() else [self.path]

    @contextmanager
    def _opened(self) -> Iterator[Any]:
        import h5py
        import zarr

        try:
            if self.path.is_dir():
                yield zarr.open_group(self.path, mode="r")
            else:
                with h5py.File(self.path, "r") as file:
                    yield file["mod/rna"] if self.path.suffix == ".h5mu" else file
        except BadFile:
            raise
        except DAMAGE as error:
            text = error.args[0] if isinstance(error, KeyError) and error.args else error
            raise BadFile(f"{self.path} cannot be read, it is damaged or no file of AnnData: {text}") from error

    def _matrix(self, group: Any) -> Any:
        if self.layer is None:
            if "X" not in group:
                raise BadFile(f"{self.path} has no X; name the layer with the expression by layer=.")
            return group["X"]
        layers = list(group["layers"]) if "layers" in group else []
        if self.layer not in layers:
            raise BadFile(f"{self.path} has no layer {self.layer!r}; there are {layers} and X (layer=None).")
        return group[f"layers/{self.layer}"]


def _var(group: Any) -> pd.DataFrame:
    from anndata.io import read_elem

    var: Any = read_elem(group["var"])
    return var


def _names(group: Any) -> NDArray[Any]:
    from anndata.io import read_elem

    obs = group["obs"]
    return np.asarray(read_elem(obs[obs.attrs["_index"]]), dtype=str)
