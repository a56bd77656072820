"""The first half of a build: each source's cells, brought to the corpus's genes, in a folder of their own."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from scgpt._folders import written_whole
from scgpt._messages import listed
from scgpt.data import GeneVocab, aligned, match_genes, profiles_of, uniform_of

from ._sources import BadFile, Portion, Source

REPORT = "report.json"
TOO_FEW, EXCLUDED = "too few genes", "excluded"

# Values of the rows of one array each; of the others one a cell.
_VALUES = {"data": np.float32, "indices": np.int32}


@dataclass(frozen=True)
class Settings:
    """What of a build decides what a source's cells become.

    Parameters
    ----------
    vocab
        Genes of the corpus.
    gene_key, gene_mapping
        How genes are matched, see :func:`scgpt.data.match_genes`.
    min_genes
        Fewest expressed genes of a cell that is kept.
    excluded
        Names of cells that are left out.
    datasets
        Numbers of the datasets over which the cells are spread.
    key
        Decides which cell goes where.
    """

    vocab: GeneVocab
    gene_key: str | None
    gene_mapping: Any
    min_genes: int
    excluded: Collection[str]
    datasets: range
    key: int


@dataclass(frozen=True, eq=False)
class Staged:
    """Cells of a source as they lie in its folder; arrays are mapped, not read."""

    folder: Path

    @cached_property
    def report(self) -> dict[str, Any]:
        """What the manifest says of the source, and what a restart compares."""
        return json.loads((self.folder / REPORT).read_text(encoding="utf-8"))

    def array(self, name: str) -> NDArray[Any]:
        """Return an array of those that :func:`stage` writes."""
        if name in _VALUES:
            path = self.folder / name
            # An empty file cannot be mapped.
            return np.memmap(path, _VALUES[name], "r") if path.stat().st_size else np.empty(0, _VALUES[name])
        return np.load(self.folder / f"{name}.npy", mmap_mode="r", allow_pickle=False)


def stage(source: Source, folder: Path, settings: Settings, identity: str, sha256: str) -> None:
    """Write the cells of a source that can be kept.

    Within each portion cells stand in the order of their datasets, so that a dataset finds its cells in runs.

    Parameters
    ----------
    source
        Where the cells come from.
    folder
        Where to write; appears whole or not at all.
    settings
        Of the build.
    identity
        Of source and settings, for a restart.
    sha256
        Hash of the source.

    Raises
    ------
    BadFile
        When the source is damaged, shares no gene with the vocabulary, or has values that cannot be expression.
    ValueError
        When a cell that is to be excluded is not there.
    """
    var = source.var()
    try:
        match = match_genes(var, settings.vocab, gene_key=settings.gene_key, gene_mapping=settings.gene_mapping)
    except (KeyError, ValueError) as error:
        raise BadFile(f"{source.name}: {error.args[0]}") from error
    columns = columns_of(settings.vocab)
    slots = np.where(match.token_ids >= 0, columns[match.token_ids], -1)
    with written_whole(folder) as new:
        with (new / "data").open("wb") as data, (new / "indices").open("wb") as indices:
            cells = _Cells(settings, {"data": data, "indices": indices})
            for portion in source.portions():
                cells.add(portion, _aligned(portion, slots, len(settings.vocab.genes), source.name))
        if cells.missing:
            raise ValueError(f"{source.name} has no cells {listed(sorted(cells.missing))}, which are to be excluded.")
        for name, parts in cells.arrays.items():
            np.save(new / name, np.concatenate(parts))
        measured = np.zeros(len(settings.vocab.genes), bool)
        measured[slots[slots >= 0]] = True
        np.save(new / "measured", measured)
        report = {
            "identity": identity,
            "sha256": sha256,
            "highest": cells.highest,
            "whole": cells.whole,
            "genes_matched": len(match.matched),
            "genes_unmatched": len(match.unmatched),
            "gene_key": match.key,
            "dropped": cells.dropped,
        }
        (new / REPORT).write_text(json.dumps(report), encoding="utf-8")


class _Cells:
    """Cells on their way to disk, and what is found about them."""

    def __init__(self, settings: Settings, files: Mapping[str, BinaryIO]):
        self._settings, self._files = settings, files
        self._excluded = list(settings.excluded)
        self.missing = set(settings.excluded)
        self.dropped = {TOO_FEW: 0, EXCLUDED: 0}
        self.highest, self.whole = 0.0, True
        names = ("dataset", "row", "profile", "cell", "length", "excluded")
        self.arrays: dict[str, list[NDArray[Any]]] = {name: [] for name in names}

    def add(self, portion: Portion, rows: sp.csr_matrix) -> None:
        """Write those of some cells that can be kept; ``rows`` are over the genes of the corpus."""
        excluded = np.isin(portion.names, self._excluded)
        self.missing -= set(portion.names[excluded].tolist())
        lengths, profiles = np.diff(rows.indptr), profiles_of(rows)
        poor = lengths < self._settings.min_genes
        self.dropped[EXCLUDED] += int(excluded.sum())
        self.dropped[TOO_FEW] += int((poor & ~excluded).sum())
        kept = np.flatnonzero(~poor & ~excluded)
        dataset = _spread(portion.first + kept, self._settings)
        order = np.argsort(dataset, kind="stable")
        kept = kept[order]
        rows = rows[kept]
        for name, file in self._files.items():
            file.write(getattr(rows, name).astype(_VALUES[name], copy=False))
        self.highest = max(self.highest, float(rows.data.max(initial=0)))
        self.whole = self.whole and bool((rows.data == np.rint(rows.data)).all())
        for name, values in {
            "dataset": dataset[order].astype(np.int32),
            "row": portion.first + kept,
            "profile": profiles[kept],
            "cell": np.char.encode(portion.names[kept], "utf-8"),
            "length": lengths[kept].astype(np.int32),
            "excluded": profiles[excluded],
        }.items():
            self.arrays[name].append(values)


def columns_of(vocab: GeneVocab) -> NDArray[np.int64]:
    """Return the column of each token in a corpus, which has one for every gene and none for special tokens."""
    columns = np.full(len(vocab), -1)
    columns[vocab.ids(vocab.genes)] = np.arange(len(vocab.genes))
    return columns


def _aligned(portion: Portion, slots: NDArray[np.int64], n_genes: int, name: str) -> sp.csr_matrix:
    index = portion.first + np.arange(portion.rows.shape[0])
    if portion.rows.shape[1] != len(slots):
        raise BadFile(f"{name} has {len(slots)} variables, and its matrix has {portion.rows.shape[1]}.")
    try:
        return aligned(portion.rows, slots, n_genes, index)
    except ValueError as error:
        raise BadFile(f"{name}: {error}") from error


def _spread(rows: NDArray[np.int64], settings: Settings) -> NDArray[np.int64]:
    """Return the dataset of each cell, drawn evenly."""
    chance = uniform_of(settings.key, rows, np.zeros_like(rows))
    return settings.datasets.start + (chance * len(settings.datasets)).astype(np.int64)
