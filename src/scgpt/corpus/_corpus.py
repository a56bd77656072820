"""A corpus on disk, as it is read."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from scgpt._formats import DAMAGE, check_format
from scgpt._json import read_object
from scgpt.data import GeneVocab

if TYPE_CHECKING:
    from annbatch import DatasetCollection

MANIFEST, VOCAB, MEASURED = "manifest.json", "vocab.json", "measured.npy"
KIND, FORMAT = "scgpt corpus", 1

Part = Literal["train", "held_out"]


class Corpus:
    """Shuffled cells of many data sets, one column for each gene of a vocabulary.

    The folder is a collection of annbatch, which reads it by itself as well: ``annbatch.DatasetCollection(path)``.

    Parameters
    ----------
    path
        What :func:`build` has written.

    Raises
    ------
    FileNotFoundError
        When there is no such folder.
    ValueError
        When it is no corpus, one of another version, or a dataset is missing.

    Examples
    --------
    >>> import scanpy as sc
    >>> import scgpt
    >>> sc.datasets.pbmc68k_reduced()[:100].raw.to_adata().write_h5ad("blood.h5ad")
    >>> _ = scgpt.corpus.build(["blood.h5ad"], "corpus.zarr")
    >>> corpus = scgpt.corpus.Corpus("corpus.zarr")
    >>> corpus.n_cells(), len(corpus.vocab.genes), corpus.obs().shape
    (100, 765, (100, 2))
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        if not self.path.is_dir():
            raise FileNotFoundError(f"There is no corpus {self.path}.")
        manifest = read_manifest(self.path)
        if manifest is None:
            raise ValueError(f"{self.path} is no corpus; make one by `scgpt corpus build`.")
        check_format(manifest.get("format"), FORMAT, f"The corpus {self.path}", "build the corpus anew")
        if not _is_whole(manifest):
            raise self._damaged(f"{MANIFEST} does not list its files and datasets")
        self.manifest: dict[str, Any] = manifest
        there = {path.name for path in self.path.iterdir()}
        for dataset in manifest.get("datasets", ()):
            if dataset["name"] not in there:
                raise ValueError(
                    f"The corpus {self.path} is damaged: it has no dataset {dataset['name']!r}. Copy it again, or build it "
                    "anew."
                )

    def __repr__(self) -> str:
        held_out = f", {self.n_cells('held_out')} of them held out" if self.n_cells("held_out") else ""
        n_cells = self.n_cells("train") + self.n_cells("held_out")
        return f"Corpus of {n_cells} cells{held_out}, {len(self.vocab.genes)} genes, {len(self.files)} files"

    @property
    def digest(self) -> str:
        """Hash of all that the manifest says: files, cells, order and genes."""
        return digest_of(self.manifest, sort_keys=True)

    @cached_property
    def vocab(self) -> GeneVocab:
        """Genes of the corpus; its columns are ``vocab.genes``."""
        vocab = GeneVocab.load(self.path / VOCAB)
        if digest_of(vocab.tokens) != self.manifest.get("vocab_sha256"):
            raise self._damaged(f"{VOCAB} is not what was written")
        return vocab

    @property
    def files(self) -> list[str]:
        """Names of the files whose cells are in it."""
        return [file["name"] for file in self.manifest["files"] if "skipped" not in file]

    def n_cells(self, part: Part = "train") -> int:
        """Return the number of cells to train on, or held out."""
        return sum(dataset["cells"] for dataset in self._datasets(part))

    def first(self, part: Part = "train") -> int:
        """Return the row of the first cell of a part; those to train on come first."""
        return 0 if part == "train" else self.n_cells("train")

    def matrices(self, part: Part = "train") -> list[Any]:
        """Return the expression of the datasets of a part, as anndata's ``CSRDataset`` on disk."""
        from anndata.io import sparse_dataset

        with self.reading():
            group, datasets = self._group, self._datasets(part)
            arrays = [group[d["name"]]["X"][name] for d in datasets for name in ("data", "indices", "indptr")]
            # What is not there would be read as zeros.
            if any(array.nchunks_initialized < array.nchunks for array in arrays):
                raise ValueError("parts of the expression matrix are missing")
            matrices = [sparse_dataset(group[dataset["name"]]["X"]) for dataset in datasets]
            if any(matrix.shape[0] != d["cells"] for matrix, d in zip(matrices, datasets, strict=True)):
                raise ValueError("a dataset has not the number of cells that it should have")
        return matrices

    def collection(self) -> DatasetCollection:
        """Return it as annbatch has it."""
        from annbatch import DatasetCollection

        return DatasetCollection(self.path, mode="r")

    def obs(self) -> pd.DataFrame:
        """Return the file of each cell and its name there, in the order of rows."""
        return self.collection().obs(["file", "cell"])

    def file_of_cell(self, part: Part = "train") -> NDArray[np.int32]:
        """Return the position in ``files`` of each cell's file."""
        with self.reading():
            group = self._group
            codes = [group[dataset["name"]]["obs/file/codes"][:] for dataset in self._datasets(part)]
            return np.concatenate([np.empty(0, np.int32), *codes]).astype(np.int32)

    def measured(self) -> NDArray[np.bool_]:
        """Return which file measured which gene, ``(n_files, n_genes)``."""
        with self.reading():
            measured = np.load(self.path / MEASURED, allow_pickle=False)
            if measured.shape != (len(self.files), len(self.vocab.genes)) or measured.dtype != bool:
                raise ValueError(f"{MEASURED} holds {measured.dtype} of shape {measured.shape}")
        return measured

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Name the corpus where reading it fails.

        Raises
        ------
        ValueError
            In place of what zarr, its codecs, anndata and numpy raise for damaged files.
        """
        try:
            yield
        except DAMAGE as error:
            raise self._damaged(" ".join(str(error).split())) from error

    def _damaged(self, how: str) -> ValueError:
        return ValueError(f"The corpus {self.path} is damaged: {how}. Copy it again, or build it anew.")

    @cached_property
    def _group(self) -> Any:
        import zarr

        return zarr.open_group(self.path, mode="r")

    def _datasets(self, part: Part) -> list[dict[str, Any]]:
        return [dataset for dataset in self.manifest["datasets"] if dataset["part"] == part]


def digest_of(what: Any, **kwargs: Any) -> str:
    """Return the hash of plain values."""
    return hashlib.sha256(json.dumps(what, **kwargs).encode()).hexdigest()


def _is_whole(manifest: Mapping[str, Any]) -> bool:
    """Whether a manifest says of every file and dataset what is read of it."""
    datasets, files = manifest.get("datasets"), manifest.get("files")
    if not isinstance(datasets, list) or not isinstance(files, list):
        return False
    if not all(isinstance(entry, dict) and isinstance(entry.get("name"), str) for entry in [*datasets, *files]):
        return False
    return all(d.get("part") in get_args(Part) and type(d.get("cells")) is int and d["cells"] >= 0 for d in datasets)


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """Return what a corpus says of itself, None where there is none."""
    try:
        manifest = read_object(folder / MANIFEST)
    except (OSError, ValueError):
        return None
    return manifest if manifest.get("kind") == KIND else None
