"""A corpus on disk, as it is read."""

from __future__ import annotations

import hashlib
import json
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from scgpt._formats import check_format
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
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        if not self.path.is_dir():
            raise FileNotFoundError(f"There is no corpus {self.path}.")
        manifest = read_manifest(self.path)
        if manifest is None:
            raise ValueError(f"{self.path} is no corpus; make one by `scgpt corpus build`.")
        check_format(manifest.get("format"), FORMAT, f"The corpus {self.path}", "build the corpus anew")
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
        return hashlib.sha256(json.dumps(self.manifest, sort_keys=True).encode()).hexdigest()

    @cached_property
    def vocab(self) -> GeneVocab:
        """Genes of the corpus; its columns are ``vocab.genes``."""
        return GeneVocab.load(self.path / VOCAB)

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

        group = self._group()
        return [sparse_dataset(group[dataset["name"]]["X"]) for dataset in self._datasets(part)]

    def collection(self) -> DatasetCollection:
        """Return it as annbatch has it."""
        from annbatch import DatasetCollection

        return DatasetCollection(self.path, mode="r")

    def obs(self) -> pd.DataFrame:
        """Return the file of each cell and its name there, in the order of rows."""
        return self.collection().obs(["file", "cell"])

    def file_of_cell(self, part: Part = "train") -> NDArray[np.int32]:
        """Return the position in ``files`` of each cell's file."""
        group = self._group()
        codes = [group[dataset["name"]]["obs/file/codes"][:] for dataset in self._datasets(part)]
        return np.concatenate(codes).astype(np.int32)

    def measured(self) -> NDArray[np.bool_]:
        """Return which file measured which gene, ``(n_files, n_genes)``.

        Raises
        ------
        ValueError
            When the file that says so is damaged.
        """
        try:
            return np.load(self.path / MEASURED, allow_pickle=False)
        except (ValueError, EOFError) as error:
            raise ValueError(f"{self.path / MEASURED} is damaged ({error}); build the corpus anew.") from None

    def _group(self) -> Any:
        import zarr

        return zarr.open_group(self.path, mode="r")

    def _datasets(self, part: Part) -> list[dict[str, Any]]:
        return [dataset for dataset in self.manifest["datasets"] if dataset["part"] == part]


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """Return what a corpus says of itself, None where there is none."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return manifest if isinstance(manifest, dict) and manifest.get("kind") == KIND else None
