"""Vectors of a byte and a half a dimension in lists of like ones: for references that are large."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from . import _fine
from ._fine import FineCodes
from ._vectors import Vectors, portions

# Vectors for each list that its centre is found from; more make no better centres.
_SAMPLE_OF_LIST = 64
# Candidates for each neighbour that the finer codes choose from.
_CANDIDATES = 4
# Vectors farther from all centres than all but this share of those that the centres were found from are strangers, and
# more than that share of strangers among new vectors means that cells of a new kind came.
_NEAR, _STRANGERS = 0.001, 0.01


class CompressedStore:
    """Inverted lists of scalar-quantised vectors, by faiss :cite:p:`Douze2024`.

    Vectors are rotated at random first. A few directions of an embedding hold most of its variance, and coding these as
    coarsely as their range demands would blur all cosines; after a rotation all directions are alike.

    Where faiss has found candidates, four bits more of each dimension put them in order.

    What is coded is the difference to the centre of a list: three times finer than the vector itself, but wrong for
    vectors that come later and are far from all centres. So for these the index is built anew.
    """

    file = "vectors.faiss"

    def __init__(
        self, index: Any, fine: FineCodes, rotation: Vectors, seed: int, nearness: float, mapped: bool = False
    ):
        self.index = index
        self.fine = fine
        self.rotation = rotation
        self.seed = seed
        self.nearness = nearness
        self._mapped = mapped

    @classmethod
    def build(cls, read: Callable[[], Iterable[Vectors]], n: int, n_dims: int, seed: int) -> Self:
        """Build from vectors that are read in portions, twice."""
        rotation = _rotation(n_dims, seed)
        sample = _sample(read(), n, _n_lists(n), seed) @ rotation
        fine = np.empty((n, -(-n_dims // 2)), np.uint8)
        store = cls(_train(sample, n, n_dims, seed), fine, rotation, seed, 0.0)
        store.nearness = float(np.quantile(store._cosines_to_centres(sample), _NEAR))
        del sample
        for vectors in read():
            rotated = vectors @ rotation
            fine[len(store) : len(store) + len(vectors)] = _fine.encode(store.index, rotated)
            store.index.add(rotated)
        return store

    def __len__(self) -> int:
        return self.index.ntotal

    @property
    def n_dims(self) -> int:
        """Width of the vectors."""
        return self.index.d

    @property
    def nbytes(self) -> int:
        """Size of codes, row numbers, centres and rotation in bytes."""
        codes = len(self) * (self.index.code_size + 8) + self.fine.nbytes
        return codes + (self.index.nlist + self.n_dims) * self.n_dims * 4

    def add(self, vectors: Vectors) -> None:
        """Append vectors; where many are unlike all that are there, build anew of these and the old ones as coded."""
        self._read_into_memory()
        rotated = vectors @ self.rotation
        if (self._cosines_to_centres(rotated) < self.nearness).mean() > _STRANGERS:
            old, n = self.index, len(self)
            old.make_direct_map()
            steps = _fine.steps_of(old)

            def coded() -> Iterator[Vectors]:
                for part in portions(n):
                    rough = old.reconstruct_n(part.start, part.stop - part.start)
                    yield (rough + _fine.decode(self.fine[part], steps)) @ self.rotation.T

            new = self.build(lambda: chain(coded(), [vectors]), n + len(vectors), self.n_dims, self.seed)
            self.index, self.fine, self.nearness = new.index, new.fine, new.nearness
            return
        self.fine = np.concatenate([self.fine, _fine.encode(self.index, rotated)])
        self.index.add(rotated)

    def search(self, queries: Vectors, k: int, n_probes: int) -> tuple[NDArray[np.int64], Vectors]:
        """Return rows and cosines of the nearest vectors in the ``n_probes`` nearest lists, nearest first."""
        import faiss

        queries = queries @ self.rotation
        n_candidates = min(_CANDIDATES * k, len(self))
        rows = np.full((len(queries), n_candidates), -1, np.int64)
        cosines = np.empty((len(queries), n_candidates), np.float32)
        todo = np.arange(len(queries))
        while len(todo):
            options = faiss.SearchParametersIVF(nprobe=min(n_probes, self.index.nlist))
            cosines[todo], rows[todo] = self.index.search(queries[todo], n_candidates, params=options)
            todo = todo[(rows[todo, :k] < 0).any(axis=1)]  # these lists held fewer than k vectors: look into more
            n_probes *= 4
        rows, cosines = _fine.rerank(self.fine, _fine.steps_of(self.index), queries, rows, cosines, k)
        return rows, np.clip(cosines, -1, 1, out=cosines)

    def save(self, folder: Path) -> None:
        """Write the index into a folder."""
        import faiss

        self._read_into_memory()  # of lists that lie in a file faiss would write down its name alone
        faiss.write_index(self.index, str(folder / self.file))
        np.save(folder / "fine.npy", self.fine, allow_pickle=False)
        np.save(folder / "rotation.npy", self.rotation, allow_pickle=False)
        np.save(folder / "fit.npy", np.array([self.seed, self.nearness]), allow_pickle=False)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Map the index in a folder into memory."""
        import faiss

        index = faiss.read_index(str(folder / cls.file), faiss.IO_FLAG_MMAP | faiss.IO_FLAG_READ_ONLY)
        if not isinstance(index, faiss.IndexIVFScalarQuantizer):
            raise ValueError(f"it holds a {type(index).__name__}")
        seed, nearness = np.load(folder / "fit.npy", allow_pickle=False)
        rotation = np.load(folder / "rotation.npy", allow_pickle=False)
        if rotation.shape != (index.d, index.d):
            raise ValueError(f"its rotation is of shape {rotation.shape}")
        fine = np.load(folder / "fine.npy", mmap_mode="r", allow_pickle=False)
        if fine.shape != (index.ntotal, -(-index.d // 2)):
            raise ValueError(f"its fine codes are of shape {fine.shape}")
        return cls(index, fine, rotation, int(seed), float(nearness), mapped=True)

    def _cosines_to_centres(self, vectors: Vectors) -> Vectors:
        return self.index.quantizer.search(vectors, 1)[0][:, 0]

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


def _rotation(n_dims: int, seed: int) -> Vectors:
    return np.linalg.qr(np.random.default_rng(seed).standard_normal((n_dims, n_dims)))[0].astype(np.float32)


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
        True,
    )
    index.cp.seed = seed
    index.cp.spherical = True
    index.cp.min_points_per_centroid = 1  # silent where vectors are few
    index.train(sample)
    return index
