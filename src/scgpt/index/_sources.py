"""Where embeddings and labels are read from: AnnData in memory, and h5ad files in portions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from ._labels import Labels
from ._vectors import Vectors, portions, unit

if TYPE_CHECKING:
    from anndata import AnnData

# What of a provenance says which model made an embedding, and how.
_SETTINGS = (
    "model_sha256",
    "checkpoint",
    "checkpoint_sha256",
    "function",
    "version",
    "layer",
    "max_length",
    "precision",
)
_HASHES = ("model_sha256", "checkpoint_sha256")


class ArraySource:
    """Embeddings in memory, and the labels beside them."""

    def __init__(
        self,
        vectors: Any,
        obs: Any,
        labels: Sequence[str],
        settings: Mapping[str, Any],
        use_rep: str,
        name: str = "the reference",
    ):
        self.name = name
        self.vectors = vectors if hasattr(vectors, "dtype") else np.asarray(vectors)
        self.n_dims = _width(self.vectors.shape, use_rep, self.name)
        self.n_obs = len(self.vectors)
        for column in labels:
            _check_column(column, list(obs.columns), self.name)
        self.labels = {c: Labels.of_column(obs[c], c, self.name) for c in labels}
        self.settings = settings_of(settings)

    @classmethod
    def of_anndata(cls, adata: AnnData, use_rep: str, labels: Sequence[str], name: str = "the reference") -> Self:
        """Read what an AnnData holds, under its name in messages."""
        from anndata import AnnData

        if not isinstance(adata, AnnData):
            raise TypeError(f"Expected an AnnData, not {type(adata).__name__}; of files, from_files makes an index.")
        check_key(use_rep, list(adata.obsm), name)
        everything = adata.uns.get("scgpt")
        made = everything.get(use_rep) if isinstance(everything, Mapping) else None
        settings = made if isinstance(made, Mapping) else {}  # else something of the user's stands there
        return cls(np.asarray(adata.obsm[use_rep]), adata.obs, labels, settings, use_rep, name)

    def read(self) -> Iterator[Vectors]:
        """Yield unit vectors in portions."""
        for part in portions(self.n_obs):
            yield unit(self.vectors[part], self.n_dims, part.start)


class FileSource:
    """Embeddings and labels of an h5ad file, of which a portion is in memory at a time."""

    def __init__(self, path: str | Path, use_rep: str, labels: Sequence[str]):
        import h5py
        from anndata.io import read_elem

        self.path, self.use_rep = Path(path), use_rep
        self.name = self.path.name
        if not self.path.is_file():
            raise FileNotFoundError(f"There is no file {self.path}.")
        if not h5py.is_hdf5(self.path):
            raise ValueError(f"{self.path} is not an h5ad file, or is damaged.")
        with h5py.File(self.path, "r") as file:
            if not {"obs", "obsm"} <= set(file):
                raise ValueError(f"{self.path} is not an h5ad file: it lacks obs or obsm.")
            check_key(use_rep, list(file["obsm"]), self.name)
            vectors = file["obsm"][use_rep]
            shape: tuple[int, ...] = getattr(vectors, "shape", ())
            self.n_dims = _width(shape, use_rep, self.name)
            self.n_obs = int(shape[0])
            self.labels = {}
            for column in labels:
                _check_column(column, list(file["obs"]), self.name)
                self.labels[column] = Labels.of_column(_series(read_elem(file["obs"][column])), column, self.name)
            place = f"uns/scgpt/{use_rep}"
            stored = file[place] if place in file else {}
            self.settings = settings_of({k: read_elem(stored[k]) for k in _SETTINGS if k in stored})

    def read(self) -> Iterator[Vectors]:
        """Yield unit vectors in portions."""
        import h5py

        with h5py.File(self.path, "r") as file:
            vectors = file["obsm"][self.use_rep]
            for part in portions(self.n_obs):
                yield unit(vectors[part], self.n_dims, part.start)


def settings_of(provenance: Mapping[str, Any]) -> dict[str, str | int]:
    """Return what a provenance says of the model that made an embedding, as JSON can hold it."""
    given = {key: provenance[key] for key in _SETTINGS if key in provenance}
    return {key: int(v) if isinstance(v, int | np.integer) else str(v) for key, v in given.items()}


def check_same_model(ours: Mapping[str, Any], theirs: Mapping[str, Any], what: str) -> None:
    """Raise where two embeddings are known to be of two models; ``what`` the second is of goes into the message.

    Raises
    ------
    ValueError
        When the first hash that both have differs.
    """
    for key in _HASHES:
        if ours.get(key) and theirs.get(key):
            if ours[key] == theirs[key]:
                return
            raise ValueError(
                f"The embedding of {what} is by another model ({_described(theirs, key)}) than that of the reference "
                f"({_described(ours, key)}): their cosines mean nothing. Embed both with one model."
            )


def _described(settings: Mapping[str, Any], key: str) -> str:
    return f"{Path(str(settings.get('checkpoint', 'unnamed'))).name}, hash {str(settings[key])[:12]}"


def _series(values: Any) -> Any:
    import pandas as pd

    return pd.Series(values)


def check_key(use_rep: str, there: list[str], where: str) -> None:
    if use_rep not in there:
        raise KeyError(
            f"There is no .obsm[{use_rep!r}] in {where}, only {there}; write it with scgpt.tl.embed, or name another "
            "by use_rep=."
        )


def _check_column(column: str, there: list[str], where: str) -> None:
    if column not in there:
        raise KeyError(f"There is no column {column!r} in .obs of {where}; there are {there}.")


def _width(shape: tuple[int, ...], use_rep: str, where: str) -> int:
    if len(shape) != 2 or not shape[1]:
        raise ValueError(f".obsm[{use_rep!r}] in {where} is no matrix of cells by dimensions.")
    return int(shape[1])
