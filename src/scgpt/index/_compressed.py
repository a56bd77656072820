"""Vectors of one byte a dimension in lists of like ones: for references that are large."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import chain
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from ._vectors import Vectors, portions

# Vectors for each list that its centre is found from; more make no better centres.
_SAMPLE_OF_LIST = 64
# Vectors farther from all centres than 99 % of those that the centres were found from are strangers. One in ten means
# that cells of a new kind came, which no list or range of values is made for.
_NEAR, _STRANGERS = 0.01, 0.1


class CompressedStore:
    """Inverted lists of scalar-quantised vectors, by faiss :cite:p:`Douze2024`.

    A vector is coded by itself, not by its difference to the centre of its list. That costs a little precision, but
    vectors that come later and are unlike all others lose little more of it.
    """

    file = "vectors.faiss"

    def __init__(self, index: Any, seed: int, nearness: float, mapped: bool = False):
        self.index = index
        self.seed = seed
        self.nearness = nearness
        self._mapped = mapped

    @classmethod
    def build(cls, read: Callable[[], Iterable[Vectors]], n: int, n_dims: int, seed: int) -> Self:
        """Build from vectors that are read in portions, twice."""
        sample = _sample(read(), n, _n_lists(n), seed)
        store = cls(_train(sample, n, n_dims, seed), seed, 0.0)
        store.nearness = store._nearness(sample)
        del sample
        for vectors in read():
            store.index.add(vectors)
        return store

    def __len__(self) -> int:
        return self.index.ntotal

    @property
    def n_dims(self) -> int:
        """Width of the vectors."""
        return self.index.d

    @property
    def nbytes(self) -> int:
        """Size of codes, row numbers and centres in bytes."""
        return len(self) * (self.index.code_size + 8) + self.index.nlist * self.n_dims * 4

    def add(self, vectors: Vectors) -> None:
        """Append vectors; where many are unlike all that are there, build anew of these and the old ones as coded."""
        self._read_into_memory()
        if (self._cosines_to_centres(vectors) < self.nearness).mean() > _STRANGERS:
            old, n = self.index, len(self)
            old.make_direct_map()
            parts = list(portions(n))
            coded = lambda: (old.reconstruct_n(part.start, part.stop - part.start) for part in parts)
            new = self.build(lambda: chain(coded(), [vectors]), n + len(vectors), self.n_dims, self.seed)
            self.index, self.nearness = new.index, new.nearness
            return
        for part in portions(len(vectors)):
            self.index.add(vectors[part])

    def search(self, queries: Vectors, k: int, n_probes: int) -> tuple[NDArray[np.int64], Vectors]:
        """Return rows and cosines of the nearest vectors in the ``n_probes`` nearest lists, nearest first."""
        import faiss

        rows = np.full((len(queries), k), -1, np.int64)
        cosines = np.empty((len(queries), k), np.float32)
        todo = np.arange(len(queries))
        while len(todo):
            options = faiss.SearchParametersIVF(nprobe=min(n_probes, self.index.nlist))
            cosines[todo], rows[todo] = self.index.search(np.ascontiguousarray(queries[todo]), k, params=options)
            # These lists held fewer than k vectors: look into more.
            todo = todo[(rows[todo] < 0).any(axis=1)]
            n_probes *= 4
        return rows, np.clip(cosines, -1, 1, out=cosines)

    def save(self, folder: Path) -> None:
        """Write the index into a folder."""
        import faiss

        self._read_into_memory()  # of lists that lie in a file faiss would write down its name alone
        faiss.write_index(self.index, str(folder / self.file))
        np.save(folder / "fit.npy", np.array([self.seed, self.nearness]), allow_pickle=False)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Map the index in a folder into memory."""
        import faiss

        index = faiss.read_index(str(folder / cls.file), faiss.IO_FLAG_MMAP | faiss.IO_FLAG_READ_ONLY)
        if not isinstance(index, faiss.IndexIVFScalarQuantizer):
            raise ValueError(f"it holds a {type(index).__name__}")
        seed, nearness = np.load(folder / "fit.npy", allow_pickle=False)
        return cls(index, int(seed), float(nearness), mapped=True)

    def _cosines_to_centres(self, vectors: Vectors) -> Vectors:
        return self.index.quantizer.search(vectors, 1)[0][:, 0]

    def _nearness(self, sample: Vectors) -> float:
        return float(np.quantile(self._cosines_to_centres(sample), _NEAR))

    def _read_into_memory(self) -> None:
        if not self._mapped:
            return
        import faiss

        lists = faiss.ArrayInvertedLists(self.index.nlist, self.index.code_size)
        everything = faiss.InvertedLists.SUBSET_TYPE_ID_RANGE
        self.index.invlists.copy_subset_to(lists, everything, 0, len(self))
        self.index.replace_invlists(lists)
        self._lists = lists  # the index does not keep them alive
        self._mapped = False


def _n_lists(n: int) -> int:
    return max(1, int(n**0.5))


def _sample(vectors: Iterable[Vectors], n: int, n_lists: int, seed: int) -> Vectors:
    """Draw what centres and the ranges of values are found from: the same rows, whatever the portions."""
    chosen = np.zeros(n, bool)
    chosen[np.random.default_rng(seed).choice(n, min(n, _SAMPLE_OF_LIST * n_lists), replace=False)] = True
    start, kept = 0, []
    for part in vectors:
        kept.append(part[chosen[start : start + len(part)]])
        start += len(part)
    return np.concatenate(kept)


def _train(sample: Vectors, n: int, n_dims: int, seed: int) -> Any:
    import faiss

    index = faiss.IndexIVFScalarQuantizer(
        faiss.IndexFlatIP(n_dims),
        n_dims,
        _n_lists(n),
        faiss.ScalarQuantizer.QT_8bit,
        faiss.METRIC_INNER_PRODUCT,
        False,
    )
    index.cp.seed = seed
    index.cp.spherical = True
    index.cp.min_points_per_centroid = 1  # silent where vectors are few
    index.train(sample)
    return index
