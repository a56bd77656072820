"""The second half of a build: staged cells as the datasets of an annbatch collection."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import scipy.sparse as sp
from numpy.typing import NDArray

from scgpt._folders import written_whole
from scgpt.data import GeneVocab

from ._stage import Staged

# Cells of a chunk, which is decompressed as a whole: larger ones read faster, smaller ones mix better.
CHUNK = 128

IDENTITY = "scgpt_identity"


def write_dataset(
    folder: Path,
    staged: Sequence[Staged],
    picked: Sequence[NDArray[np.int64]],
    names: Sequence[str],
    vocab: GeneVocab,
    dtype: np.dtype,
    seed: int,
    identity: str,
) -> None:
    """Gather the cells of a dataset, shuffle them, and write them.

    Parameters
    ----------
    folder
        Of the dataset; appears whole or not at all.
    staged, picked
        Sources, and which of their cells are in it.
    names
        Of the sources.
    vocab
        Genes of the corpus.
    dtype
        Of the values.
    seed
        Of the order.
    identity
        What a restart compares.
    """
    import zarr
    from annbatch import write_sharded
    from anndata import AnnData

    order = np.random.default_rng(seed).permutation(sum(map(len, picked)))
    rows = _rows(staged, picked, dtype, len(vocab.genes))[order]
    origin = np.repeat(np.arange(len(staged)), [len(p) for p in picked])[order]
    row = np.concatenate([s.array("row")[p] for s, p in zip(staged, picked, strict=True)])[order]
    cell = np.concatenate([np.char.decode(s.array("cell")[p], "utf-8") for s, p in zip(staged, picked, strict=True)])
    obs = pd.DataFrame(
        {"file": pd.Categorical.from_codes(origin, pd.Index(names, dtype=str)), "cell": cell[order]},
        # Names of cells are unique within a file at best.
        index=pd.Index([f"{i}:{j}" for i, j in zip(origin, row, strict=True)], dtype=str),
    )
    adata = AnnData(rows, obs=obs, var=pd.DataFrame(index=pd.Index(vocab.genes, dtype=str)))
    with written_whole(folder) as new, warnings.catch_warnings():
        # Annotations are read as a whole, and of the matrix the shards: that zarr's version 3 has no final word on
        # how metadata are put together does not matter here.
        warnings.filterwarnings("ignore", message="Consolidated metadata")
        group = zarr.open_group(new, mode="w")
        write_sharded(group, adata, n_obs_per_chunk=min(CHUNK, adata.n_obs))
        group = zarr.open_group(new, mode="a", use_consolidated=False)
        group.update_attributes({IDENTITY: identity})


def is_written(folder: Path, identity: str) -> bool:
    """Whether a dataset is there, made from the same cells."""
    import zarr

    return folder.is_dir() and zarr.open_group(folder, mode="r", use_consolidated=False).attrs.get(IDENTITY) == identity


def finish_collection(folder: Path) -> None:
    """Mark a folder with datasets as a collection."""
    import zarr
    from annbatch.io import V1_ENCODING

    group = zarr.open_group(folder, mode="a", use_consolidated=False)
    group.update_attributes(V1_ENCODING)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Consolidated metadata")
        zarr.consolidate_metadata(group.store)


def _rows(
    staged: Sequence[Staged], picked: Sequence[NDArray[np.int64]], dtype: np.dtype, n_genes: int
) -> sp.csr_matrix:
    """Read the rows of some cells of every source."""
    lengths = [source.array("length") for source in staged]
    indptr = np.zeros(sum(map(len, picked)) + 1, np.int64)
    np.cumsum(np.concatenate([n[p] for n, p in zip(lengths, picked, strict=True)]), out=indptr[1:])
    data, indices = np.empty(indptr[-1], dtype), np.empty(indptr[-1], np.int32)
    done = 0
    for source, own, index in zip(staged, lengths, picked, strict=True):
        ends = np.cumsum(own, dtype=np.int64)
        values, columns = source.array("data"), source.array("indices")
        for run in np.split(index, np.flatnonzero(np.diff(index) != 1) + 1):
            if len(run):
                first, last = ends[run[0]] - own[run[0]], ends[run[-1]]
                data[done : done + last - first] = values[first:last]
                indices[done : done + last - first] = columns[first:last]
                done += last - first
    return sp.csr_matrix((data, indices, indptr), shape=(len(indptr) - 1, n_genes))
