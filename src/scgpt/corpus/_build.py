"""A corpus from files."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import pandas as pd

from scgpt._messages import listed
from scgpt.data import GeneVocab, read_mapping

from ._assemble import OnError, Options, assemble
from ._corpus import Corpus, Part
from ._sources import FileSource


def build(
    files: Sequence[str | Path],
    out: str | Path,
    *,
    vocab: GeneVocab | str | Path | None = None,
    held_out: Sequence[str | Path] = (),
    exclude: Mapping[str | Path, Collection[str]] | None = None,
    layer: str | None = None,
    gene_key: str | None = None,
    gene_mapping: Mapping[str, str] | pd.Series | str | Path | None = None,
    min_genes: int = 50,
    cells_per_dataset: int = 65_536,
    seed: int = 0,
    on_error: OnError = "raise",
    overwrite: bool = False,
) -> Corpus:
    """Put the cells of many files into one shuffled collection on disk.

    Cells come in random order, as rows over the genes of one vocabulary, in the format of annbatch. Files may have
    different genes, and counts or log-normalised values. Of cells that express the same genes in the same order of
    expression the first stays: such cells become the same tokens.

    A build that was ended in the middle goes on when it is called again: files and datasets that are finished are not
    made anew. Memory holds a portion of a file or one dataset, and besides about 40 bytes for each cell.

    Parameters
    ----------
    files
        h5ad files, zarr stores of AnnData, or h5mu files with a modality ``rna``.
    out
        Folder to write.
    vocab
        Genes of the corpus: a vocabulary, a ``vocab.json``, or a folder with one, such as a checkpoint or another
        corpus. By default all genes of the files, by the names in the index of ``.var`` or in ``gene_key``.
    held_out
        Files whose cells are for validation. Training cells that are the same as one of these are dropped.
    exclude
        For a file, by its path, name or name without suffix, names of cells that must not enter the corpus, such as
        test cells. Cells of other files that are the same as one of them are dropped, too.
    layer
        Layer with counts or log-normalised values; ``.X`` by default.
    gene_key, gene_mapping
        How genes are matched, see :func:`scgpt.data.match_genes`.
    min_genes
        Fewest expressed genes of the vocabulary that a cell is kept with.
    cells_per_dataset
        About how many cells are shuffled in memory at a time.
    seed
        Of the order of cells.
    on_error
        What to do with a file that is damaged, shares no gene with the vocabulary, or has values that cannot be
        expression: stop, or leave it out and name it in the manifest.
    overwrite
        Replace a corpus that is there.

    Returns
    -------
    The corpus, whose ``manifest.json`` accounts for every file and cell.

    Raises
    ------
    FileNotFoundError
        When a file is not there.
    FileExistsError
        When ``out`` is there and is not to be replaced.
    ValueError
        When a file cannot be part of the corpus (``on_error="raise"``), a cell to exclude is not in its file, or no cell
        is left.
    OSError
        When the disk is full or the folder cannot be written to; what is finished stays, for the next call.

    Examples
    --------
    >>> import scanpy as sc
    >>> import scgpt
    >>> adata = sc.datasets.pbmc68k_reduced().raw.to_adata()
    >>> adata[:100].write_h5ad("blood.h5ad")
    >>> adata[100:130].write_h5ad("lung.h5ad")
    >>> test_cells = adata.obs_names[:10]
    >>> corpus = scgpt.corpus.build(["blood.h5ad", "lung.h5ad"], "corpus.zarr", exclude={"blood.h5ad": test_cells})
    >>> corpus.n_cells(), corpus.files
    (120, ['blood.h5ad', 'lung.h5ad'])
    """
    paths: dict[Part, list[Path]] = {"train": [Path(f) for f in files], "held_out": [Path(f) for f in held_out]}
    together = [*paths["train"], *paths["held_out"]]
    if not paths["train"]:
        raise ValueError("There is no file to build a corpus from.")
    for path in together:
        if not path.exists():
            raise FileNotFoundError(f"There is no file {path}.")
    if twice := sorted({str(p) for p in together if together.count(p) > 1}):
        raise ValueError(f"Files are named twice: {listed(twice)}.")
    options = Options(
        vocab=read_vocab(vocab),
        gene_key=gene_key,
        gene_mapping=read_mapping(gene_mapping),
        min_genes=min_genes,
        cells_per_dataset=cells_per_dataset,
        seed=seed,
        on_error=on_error,
        overwrite=overwrite,
    )
    names = [path.name for path in together]
    name_of = {path: path.name if names.count(path.name) == 1 else str(path) for path in together}
    sources = {part: [FileSource(path, name_of[path], layer) for path in own] for part, own in paths.items()}
    return assemble(sources, Path(out), options, _excluded(exclude or {}, name_of), {"layer": layer})


def read_vocab(vocab: GeneVocab | str | Path | None) -> GeneVocab | None:
    """Return a vocabulary that is given as one, as a file, or as a folder with one."""
    if vocab is None or isinstance(vocab, GeneVocab):
        return vocab
    path = Path(vocab)
    return GeneVocab.load(path / "vocab.json" if path.is_dir() else path)


def _excluded(exclude: Mapping[str | Path, Collection[str]], name_of: Mapping[Path, str]) -> dict[str, set[str]]:
    """Return the cells to exclude for the names of sources."""
    excluded: dict[str, set[str]] = {}
    for key, cells in exclude.items():
        called = [p for p in name_of if Path(key) == p] or [p for p in name_of if str(key) in (p.name, p.stem)]
        if len(called) != 1:
            raise ValueError(
                f"exclude names {str(key)!r}, which is {'no file' if not called else 'more than one file'} of the corpus: "
                f"{listed([str(p) for p in name_of])}."
            )
        excluded.setdefault(name_of[called[0]], set()).update(map(str, cells))
    return excluded
