"""An index of reference cells."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from scgpt.data import check_whole

from ._compressed import CompressedStore
from ._exact import ExactStore
from ._folder import damaged, read_manifest, write_folder
from ._labels import Labels
from ._sources import ArraySource, FileSource, check_same_model, settings_of
from ._vectors import Store, Vectors, portions, unit
from ._voting import Votes, Weights, vote

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData

# Up to here comparing with every cell takes some milliseconds a query, and 200 MB at 512 dimensions.
_EXACT_UP_TO = 100_000
# Lists of a compressed index that a query looks into; see benchmarks/index.py.
_N_PROBES = 32


class Neighbors(NamedTuple):
    """The nearest reference cells of each query, nearest first.

    Parameters
    ----------
    rows
        ``(n, k)`` int64, the cells' numbers in the order in which they were put into the index.
    similarities
        ``(n, k)`` float32, cosines.

    Examples
    --------
    >>> import scgpt
    >>> index = scgpt.ReferenceIndex.from_embeddings([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]])
    >>> neighbors = index.query([[2.0, 0.1]], k=2)
    >>> neighbors.rows.tolist(), neighbors.similarities.shape
    ([[0, 1]], (1, 2))
    """

    rows: NDArray[np.int64]
    similarities: NDArray[np.float32]


class ReferenceIndex:
    r"""Nearest reference cells by cosine, with their labels.

    Made by :meth:`from_anndata`, :meth:`from_files`, :meth:`from_embeddings` or :meth:`load`. Up to 100,000 cells are kept as they are and
    search is exact. More are compressed to a byte and a half a dimension, in lists of like cells, by faiss
    :cite:p:`Douze2024`: a few of a hundred nearest neighbours are then missed (the documentation has measurements).

    Parameters
    ----------
    store
        The vectors.
    labels
        The columns of labels.
    settings
        Which model made the embedding, and how.
    use_rep
        Where the embedding stands in ``.obsm``.
    exact
        As in :meth:`from_anndata`.
    seed
        As in :meth:`from_anndata`.

    Examples
    --------
    >>> import scanpy as sc
    >>> import scgpt
    >>> adata = sc.datasets.pbmc68k_reduced().raw.to_adata()
    >>> reference, query = adata[:100].copy(), adata[100:110].copy()
    >>> scgpt.tl.embed(reference, "mini", progress_bar=False)
    >>> scgpt.tl.embed(query, "mini", progress_bar=False)
    >>> index = scgpt.ReferenceIndex.from_anndata(reference, labels=["bulk_labels"])
    >>> index.save("reference_index")
    >>> neighbors = scgpt.ReferenceIndex.load("reference_index").query(query, k=5)
    >>> votes = index.vote(neighbors, "bulk_labels")
    >>> neighbors.rows.shape, votes.labels.shape, votes.probabilities.shape
    ((10, 5), (10,), (10, 9))
    """

    def __init__(
        self,
        store: Store,
        labels: Mapping[str, Labels],
        *,
        settings: Mapping[str, Any],
        use_rep: str,
        exact: bool | None = None,
        seed: int = 0,
    ):
        self._store = store
        self._labels = dict(labels)
        self.settings = dict(settings)
        self.use_rep = use_rep
        self._exact = exact
        self._seed = seed

    @classmethod
    def from_anndata(
        cls,
        adata: AnnData,
        *,
        use_rep: str = "X_scGPT",
        labels: Sequence[str] = (),
        exact: bool | None = None,
        seed: int = 0,
    ) -> Self:
        """Build an index of the cells of a data set.

        Parameters
        ----------
        adata
            Its cells are embedded in ``.obsm``. What ``.uns["scgpt"][use_rep]`` says of the model is kept, so that
            queries embedded by another one are refused.
        use_rep
            Key of ``.obsm`` with the embedding, ``(n_obs, n_dims)``; rows are scaled to length 1.
        labels
            Columns of ``.obs`` to keep. Names are kept as text; categories keep their order.
        exact
            Keep the vectors as they are (True) or compress them (False); by default only more than 100,000 cells are
            compressed.
        seed
            Of the cells that the lists of a compressed index are found from.

        Returns
        -------
        The index.

        Raises
        ------
        KeyError
            When the embedding or a column is not there.
        ValueError
            When there are no cells; when an embedding is zero, NaN or infinite; when a cell has no label.
        """
        return cls._build([ArraySource.of_anndata(adata, use_rep, _names(labels))], use_rep, exact, seed)

    @classmethod
    def from_embeddings(
        cls,
        embeddings: ArrayLike,
        labels: pd.DataFrame | None = None,
        *,
        use_rep: str = "X_scGPT",
        settings: Mapping[str, Any] | None = None,
        exact: bool | None = None,
        seed: int = 0,
    ) -> Self:
        """Build an index of embeddings that stand in no AnnData.

        Parameters
        ----------
        embeddings
            ``(n, n_dims)``; rows are scaled to length 1.
        labels
            One row for each embedding; all columns are kept.
        use_rep
            Key of ``.obsm`` where the embeddings of later data stand.
        settings
            Provenance, as in ``.uns["scgpt"]["X_scGPT"]``.
        exact
            As in :meth:`from_anndata`.
        seed
            As in :meth:`from_anndata`.

        Returns
        -------
        The index.

        Raises
        ------
        ValueError
            As in :meth:`from_anndata`; and when there are not as many labels as embeddings.

        Examples
        --------
        >>> import pandas as pd
        >>> import scgpt
        >>> labels = pd.DataFrame({"cell_type": ["B", "T", "T"]})
        >>> index = scgpt.ReferenceIndex.from_embeddings([[1.0, 0.0], [0.0, 1.0], [0.1, 1.0]], labels)
        >>> len(index), index.n_dims, index.labels, index.categories("cell_type")
        (3, 2, ('cell_type',), ('B', 'T'))
        """
        columns = () if labels is None else tuple(labels.columns)
        source = ArraySource(embeddings, labels, columns, settings or {}, use_rep)
        if labels is not None and len(labels) != source.n_obs:
            raise ValueError(f"There are {source.n_obs} embeddings and {len(labels)} rows of labels.")
        return cls._build([source], use_rep, exact, seed)

    @classmethod
    def from_files(
        cls,
        paths: Sequence[str | Path],
        *,
        use_rep: str = "X_scGPT",
        labels: Sequence[str] = (),
        exact: bool | None = None,
        seed: int = 0,
    ) -> Self:
        """Build an index of the cells of several h5ad files, as if they were one data set, in their order.

        Embeddings are read in portions (a compressed index reads them twice), so that memory holds the index and
        little more.

        Parameters
        ----------
        paths
            Files; in all of them the same key of ``.obsm`` and the same columns of ``.obs``.
        use_rep
            As in :meth:`from_anndata`.
        labels
            As in :meth:`from_anndata`. Categories of later files come after those of earlier ones.
        exact
            As in :meth:`from_anndata`.
        seed
            As in :meth:`from_anndata`.

        Returns
        -------
        The index.

        Raises
        ------
        FileNotFoundError
            When a file is not there.
        KeyError, ValueError
            As in :meth:`from_anndata`; and when files are of different models or dimensions.

        Examples
        --------
        >>> import anndata
        >>> import numpy as np
        >>> import pandas as pd
        >>> import scgpt
        >>> for name, cell_type in {"lung.h5ad": "T", "blood.h5ad": "B"}.items():
        ...     obs = pd.DataFrame({"cell_type": [cell_type] * 3}, index=["1", "2", "3"])
        ...     anndata.AnnData(obs=obs, obsm={"X_scGPT": np.random.default_rng(0).normal(size=(3, 8))}).write_h5ad(
        ...         name
        ...     )
        >>> index = scgpt.ReferenceIndex.from_files(["lung.h5ad", "blood.h5ad"], labels=["cell_type"])
        >>> len(index), index.categories("cell_type")
        (6, ('T', 'B'))
        """
        if isinstance(paths, str | Path):
            raise TypeError("paths must be a list of files; for one file pass [path].")
        if not paths:
            raise ValueError("There are no files to build an index of.")
        return cls._build([FileSource(path, use_rep, _names(labels)) for path in paths], use_rep, exact, seed)

    @classmethod
    def _build(cls, sources: Sequence[ArraySource | FileSource], use_rep: str, exact: bool | None, seed: int) -> Self:
        first, n = sources[0], sum(source.n_obs for source in sources)
        for source in sources[1:]:
            if source.n_dims != first.n_dims:
                raise ValueError(
                    f"The embedding of {source.name} has {source.n_dims} dimensions, that of {first.name} {first.n_dims}."
                )
            check_same_model(first.settings, source.settings, source.name)
        if n == 0:
            raise ValueError("There are no cells to build an index of.")

        def read() -> Iterator[Vectors]:
            return chain.from_iterable(source.read() for source in sources)

        store = _store(read, n, first.n_dims, exact, seed)
        labels = {name: Labels.joined([source.labels[name] for source in sources]) for name in first.labels}
        return cls(store, labels, settings=first.settings, use_rep=use_rep, exact=exact, seed=seed)

    def __len__(self) -> int:
        """Return the number of reference cells."""
        return len(self._store)

    def __repr__(self) -> str:
        kind = "exact" if self.is_exact else "compressed"
        return (
            f"ReferenceIndex of {len(self):,} cells in {self.n_dims} dimensions, {kind}, {self.nbytes / 1e6:.1f} MB, "
            f"labels {list(self.labels)}"
        )

    @property
    def n_dims(self) -> int:
        """Width of the embedding."""
        return self._store.n_dims

    @property
    def is_exact(self) -> bool:
        """Whether the vectors are kept as they are."""
        return isinstance(self._store, ExactStore)

    @property
    def nbytes(self) -> int:
        """Size of the vectors and all that finds them, in bytes; of an index that was loaded it lies on disk."""
        return self._store.nbytes

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the columns of labels."""
        return tuple(self._labels)

    def categories(self, label: str) -> tuple[str, ...]:
        """Return the names of all labels in a column, also of those that no cell has."""
        return self._column(label).categories

    def codes(self, label: str) -> NDArray[np.int32]:
        """Return the label of every reference cell, ``(n_cells,)``, as its place in :meth:`categories`."""
        return self._column(label).codes

    def add(self, adata: AnnData) -> None:
        """Append the cells of a data set, which has the same key of ``.obsm`` and columns of ``.obs``.

        The index is then what it would be if it had been built of all cells at once: exactly so where it is exact; a
        compressed one is built anew, of cells as they were compressed, when many are unlike those that it has. A folder that it was loaded from
        stays as it is until :meth:`save`.

        Parameters
        ----------
        adata
            As in :meth:`from_anndata`.

        Raises
        ------
        KeyError, ValueError
            As in :meth:`from_anndata`; and when the embedding is by another model.

        Examples
        --------
        >>> import anndata
        >>> import numpy as np
        >>> import scgpt
        >>> index = scgpt.ReferenceIndex.from_embeddings([[1.0, 0.0], [0.0, 1.0]])
        >>> index.add(anndata.AnnData(obsm={"X_scGPT": np.array([[-1.0, 0.0]])}))
        >>> len(index)
        3
        """
        source = ArraySource.of_anndata(adata, self.use_rep, self.labels, "the cells to add")
        check_same_model(self.settings, source.settings, source.name)
        if source.n_obs == 0:
            return
        vectors = unit(source.vectors, self.n_dims)
        n = len(self) + source.n_obs
        if isinstance(self._store, ExactStore) and not _is_exact(n, self._exact):
            kept = self._store.vectors
            read = lambda: ([*(kept[part] for part in portions(len(kept))), vectors])
            self._store = _store(read, n, self.n_dims, self._exact, self._seed)
        else:
            self._store.add(vectors)
        self._labels = {name: Labels.joined([old, source.labels[name]]) for name, old in self._labels.items()}

    def query(
        self, query: AnnData | ArrayLike, k: int = 10, *, use_rep: str | None = None, n_probes: int = _N_PROBES
    ) -> Neighbors:
        """Find the nearest reference cells.

        Parameters
        ----------
        query
            ``(n, n_dims)`` embeddings, of any length, or an AnnData with its own in ``.obsm``.
        k
            How many neighbours.
        use_rep
            Key of ``.obsm``; by default that of the reference.
        n_probes
            How many lists of a compressed index to look into: more find more of the nearest cells, and take longer.

        Returns
        -------
        Numbers of the cells in the reference and their cosines, ``(n, k)`` each, nearest first.

        Raises
        ------
        KeyError
            When the embedding is not there.
        ValueError
            When it is by another model or of another width; when a row is zero, NaN or infinite; when there are fewer
            than ``k`` reference cells.

        Examples
        --------
        >>> import scgpt
        >>> index = scgpt.ReferenceIndex.from_embeddings([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]])
        >>> index.query([[3.0, 0.0]], k=1).rows.tolist()  # 0 is the first cell of the reference
        [[0]]
        """
        check_whole(k, "k")
        check_whole(n_probes, "n_probes")
        if k > len(self):
            raise ValueError(f"k={k}: it must be at least 1 and at most {len(self)}, the number of reference cells.")
        from anndata import AnnData

        if isinstance(query, AnnData):
            source = ArraySource.of_anndata(query, use_rep or self.use_rep, (), "the query")
            check_same_model(self.settings, source.settings, source.name)
            query = source.vectors
        return Neighbors(*self._store.search(unit(query, self.n_dims), k, n_probes))

    def check_model(self, settings: Mapping[str, Any], what: str = "the query") -> None:
        """Raise if an embedding is known to be by another model than that of the reference.

        Parameters
        ----------
        settings
            Provenance, as in ``.uns["scgpt"]["X_scGPT"]``.
        what
            Whose embedding it is, for the message.

        Raises
        ------
        ValueError
            When the hashes of the models differ.
        """
        check_same_model(self.settings, settings_of(settings), what)

    def vote(self, neighbors: Neighbors, label: str, *, weights: Weights = "uniform") -> Votes:
        """Label cells by the labels of their neighbours.

        Parameters
        ----------
        neighbors
            What :meth:`query` found.
        label
            Which of :attr:`labels`.
        weights
            ``"uniform"``: every neighbour has one vote. ``"distance"``: one over its Euclidean distance, of vectors of
            length 1. Of labels with equally many votes that with the highest sum of cosines wins.

        Returns
        -------
        Labels, their share of the votes, and the share of every label.

        Raises
        ------
        KeyError
            When there is no such column of labels.

        Examples
        --------
        >>> import pandas as pd
        >>> import scgpt
        >>> labels = pd.DataFrame({"cell_type": ["B", "T", "T"]})
        >>> index = scgpt.ReferenceIndex.from_embeddings([[1.0, 0.0], [0.0, 1.0], [0.1, 1.0]], labels)
        >>> votes = index.vote(index.query([[0.2, 1.0]], k=3), "cell_type")
        >>> votes.labels.tolist(), round(float(votes.confidence[0]), 2)
        (['T'], 0.67)
        """
        column = self._column(label)
        return vote(np.asarray(column.codes[neighbors.rows]), neighbors.similarities, column.categories, weights)

    def save(self, folder: str | Path, *, overwrite: bool = False) -> None:
        """Write the index into a folder, without pickles; it appears whole or not at all.

        Parameters
        ----------
        folder
            Where.
        overwrite
            Replace an index that is there.

        Raises
        ------
        FileExistsError
            When an index is there and not to be replaced, or the folder holds anything else.
        OSError
            When the disk is full or the folder cannot be written to; an index that was there stays.
        """
        columns = [
            {"name": name, "categories": labels.categories, "file": f"labels_{i}.npy"}
            for i, (name, labels) in enumerate(self._labels.items())
        ]

        def write(new: Path) -> None:
            self._store.save(new)
            for column in columns:
                np.save(new / str(column["file"]), self._labels[str(column["name"])].codes, allow_pickle=False)

        about = {
            "n_obs": len(self),
            "n_dims": self.n_dims,
            "vectors": self._store.file,
            "use_rep": self.use_rep,
            "exact": self._exact,
            "seed": self._seed,
            "settings": self.settings,
            "labels": columns,
        }
        write_folder(Path(folder), write, about, overwrite=overwrite)

    @classmethod
    def load(cls, folder: str | Path, *, verify: bool = False) -> Self:
        """Open an index that :meth:`save` wrote; vectors and labels stay on disk until they are used.

        Parameters
        ----------
        folder
            Where.
        verify
            Read all files and compare their hashes; by default their sizes alone are compared.

        Returns
        -------
        The index.

        Raises
        ------
        FileNotFoundError
            When the folder or a file in it is not there.
        ValueError
            When it is no index, is of another format, or is damaged.
        """
        folder = Path(folder)
        about = read_manifest(folder, verify)
        try:
            kinds: dict[str, type[Store]] = {kind.file: kind for kind in (ExactStore, CompressedStore)}
            # A name that is not listed could lead anywhere.
            if unlisted := {about["vectors"], *(column["file"] for column in about["labels"])} - set(about["files"]):
                raise ValueError(f"its manifest does not list {sorted(unlisted)}")
            store = kinds[about["vectors"]].load(folder)
            labels = {
                column["name"]: Labels(
                    np.load(folder / column["file"], mmap_mode="r", allow_pickle=False), tuple(column["categories"])
                )
                for column in about["labels"]
            }
            index = cls(
                store,
                labels,
                settings=about["settings"],
                use_rep=about["use_rep"],
                exact=about["exact"],
                seed=about["seed"],
            )
        except (KeyError, TypeError, ValueError, EOFError, RuntimeError) as error:
            raise damaged(folder, f"{error}") from error
        if (len(index), index.n_dims) != (about["n_obs"], about["n_dims"]):
            raise damaged(
                folder,
                f"its vectors are {len(index)} of {index.n_dims} dimensions, not {about['n_obs']} of {about['n_dims']}",
            )
        for name, column in labels.items():
            if not all(isinstance(text, str) for text in (name, *column.categories)):
                raise damaged(folder, f"the labels {name!r} are no text")
            if column.codes.shape != (len(index),) or not 0 <= column.codes.min() <= column.codes.max() < len(
                column.categories
            ):
                raise damaged(folder, f"the labels {name!r} do not fit")
        return index

    def _column(self, label: str) -> Labels:
        if label not in self._labels:
            raise KeyError(f"The index has no labels {label!r}, only {list(self._labels)}: name them when it is built.")
        return self._labels[label]


def _is_exact(n: int, exact: bool | None) -> bool:
    return n <= _EXACT_UP_TO if exact is None else exact


def _store(read: Any, n: int, n_dims: int, exact: bool | None, seed: int) -> Store:
    if not _is_exact(n, exact):
        return CompressedStore.build(read, n, n_dims, seed)
    vectors = np.empty((n, n_dims), np.float32)
    start = 0
    for part in read():
        vectors[start : start + len(part)] = part
        start += len(part)
    return ExactStore(vectors)


def _names(labels: Sequence[str]) -> tuple[str, ...]:
    return (labels,) if isinstance(labels, str) else tuple(dict.fromkeys(labels))
