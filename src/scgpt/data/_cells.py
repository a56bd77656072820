"""Rows of an AnnData, wherever it keeps its matrix, as tokens."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
import scipy.sparse as sp
import torch
from anndata import AnnData
from anndata.abc import CSCDataset, CSRDataset
from numpy.typing import NDArray

from scgpt._token_batch import TokenBatch

from ._checks import check_layer
from ._conditions import Conditions
from ._masking import add_unknown
from ._measured import levels_of_genes, measured_tokens
from ._tokenizer import Tokenizer

RowReader = Callable[[NDArray[np.int64]], sp.csr_matrix]

# Columns of a column-major matrix on disk that are read at a time.
_COLUMN_BLOCK = 2048


class Cells:
    """The cells of a data set, read and tokenised in any portions.

    Works on sparse and dense matrices in memory, on views, on matrices on disk (``backed``, zarr) and on dask arrays;
    of the last two only the rows asked for are loaded.

    Parameters
    ----------
    adata
        The data set.
    token_ids
        ``(n_vars,)`` as :func:`~scgpt.data.match_genes` gives.
    layer
        Layer with counts or log-normalised values; ``.X`` by default.
    batch_labels
        ``(n_obs,)`` experimental batch of each cell.
    labels
        ``(n_obs,)`` class of each cell.
    measured
        ``(n_batches, n_vars)`` bool, which batch measured which variable, for joined studies of different genes; all
        did by default.
    conditions
        Of genes and cells.

    Raises
    ------
    KeyError
        When there is no such layer.
    ValueError
        When the data set has no cell or no matrix.

    Examples
    --------
    >>> import numpy as np
    >>> import scanpy as sc
    >>> from scgpt.data import Cells, GeneVocab, Tokenizer, match_genes
    >>> adata = sc.datasets.pbmc68k_reduced()[:10].raw.to_adata()
    >>> vocab = GeneVocab.from_genes(["CD74", "LYZ", "NKG7"])
    >>> cells = Cells(adata, match_genes(adata.var, vocab).token_ids)
    >>> len(cells), cells.tokenize(np.array([3, 7]), Tokenizer(vocab)).cell_index.tolist()
    (10, [3, 7])
    """

    def __init__(
        self,
        adata: AnnData,
        token_ids: NDArray[np.int64],
        *,
        layer: str | None = None,
        batch_labels: NDArray[np.int64] | None = None,
        labels: NDArray[np.int64] | None = None,
        measured: NDArray[np.bool_] | None = None,
        conditions: Conditions | None = None,
    ):
        if adata.n_obs == 0:
            raise ValueError("The data set has no cell.")
        self.token_ids = token_ids
        self.batch_labels = batch_labels
        self.labels = labels
        self.measured = measured
        self.conditions = conditions
        self._n_cells = adata.n_obs
        self._rows = _row_reader(adata, layer)

    def __len__(self) -> int:
        return self._n_cells

    def rows(self, index: NDArray[np.int64]) -> sp.csr_matrix:
        """Return the expression of some cells, ``(len(index), n_vars)``, in the order given."""
        rows = _in_order(self._rows, index)
        _check_format(rows)
        return rows

    def at_hand(self, block: Any, first: int) -> Self:
        """Return the same cells, of which only a block of rows can be read.

        Rows keep their numbers in the data set, by which their labels and conditions are found and errors name them.

        Parameters
        ----------
        block
            ``(n, n_vars)`` expression of consecutive cells, sparse or dense; ``n`` may be 0.
        first
            Row of the first of them.
        """
        cells = copy.copy(self)
        cells._rows = _Block(_csr(block), first)
        return cells

    def digest(self) -> str:
        """Return a hash of all that the tokens of the cells depend on, but for their expression."""
        labels = b"" if self.batch_labels is None else np.asarray(self.batch_labels, np.int64).tobytes()
        measured = b"" if self.measured is None else np.packbits(self.measured).tobytes()
        conditions = b"" if self.conditions is None else self.conditions.digest(np.arange(len(self))).encode()
        parts = (np.asarray(self.token_ids, np.int64).tobytes(), labels, measured, conditions)
        return hashlib.sha256(b"".join(hashlib.sha256(part).digest() for part in parts)).hexdigest()

    def tokenize(
        self,
        index: NDArray[np.int64],
        tokenizer: Tokenizer,
        *,
        key: int = 0,
        levels: bool = False,
        unknown: NDArray[np.int64] | None = None,
    ) -> TokenBatch:
        """Return some cells as tokens, with their conditions and labels, in the order given.

        Parameters
        ----------
        index
            ``(B,)`` rows.
        tokenizer
            How they become tokens.
        key
            Decides ties that are spread at random.
        levels
            Whether to say the values of all measured genes, too.
        unknown
            ``(G,)`` ids of genes that were not measured, and become unknown tokens of each cell.
        """
        rows = self.rows(index)
        batch = tokenizer(rows, self.token_ids, cell_index=index, key=key)
        batches = None if self.measured is None or self.batch_labels is None else self.batch_labels[index]
        if tokenizer.include_zeros and self.measured is not None and batches is not None:
            batch = batch.keep(measured_tokens(batch, self.token_ids, self.measured, batches))
        if levels:
            batch = replace(batch, **levels_of_genes(batch, rows, self.token_ids, self.measured, batches))
        if unknown is not None:
            batch = add_unknown(batch, unknown)
        if self.conditions is not None:
            batch = replace(batch, condition_ids=self.conditions.of_tokens(batch))
        return with_labels(batch, index, self.batch_labels, self.labels)


def with_labels(
    batch: TokenBatch,
    index: NDArray[np.int64],
    batch_labels: NDArray[np.int64] | None,
    labels: NDArray[np.int64] | None,
) -> TokenBatch:
    """Return a batch of the cells ``index`` with their batches and classes, from those of all cells."""
    of_all = {"batch_labels": batch_labels, "labels": labels}
    given = {name: np.asarray(values, dtype=np.int64) for name, values in of_all.items() if values is not None}
    return replace(batch, **{name: torch.from_numpy(values[index]) for name, values in given.items()})


def dask_matrix(adata: AnnData, layer: str | None = None) -> Any:
    """Return the matrix of a data set if it is a dask array, else None; no matrix is loaded to find out.

    Parameters
    ----------
    adata
        The data set, or a view.
    layer
        The layer; ``.X`` by default.
    """
    # Asked for its matrix, a view of a file would load it.
    whole = adata if adata._adata_ref is None else adata._adata_ref
    matrix = whole.X if layer is None else whole.layers.get(layer)
    if not hasattr(matrix, "__dask_graph__"):
        return None
    return adata.X if layer is None else adata.layers[layer]


@dataclass(frozen=True, eq=False)
class _Block:
    """Reads rows of a block by their numbers in the data set."""

    rows: sp.csr_matrix
    first: int

    def __call__(self, index: NDArray[np.int64]) -> sp.csr_matrix:
        return self.rows[_as_slice(index - self.first)]


def _row_reader(adata: AnnData, layer: str | None) -> RowReader:
    """Return a function from sorted row numbers to these rows."""
    check_layer(adata, layer)
    whole = adata._adata_ref  # of a view, what it is a view of; anndata has no public way to ask
    if whole is not None and _is_stored(whole.X if layer is None else whole.layers[layer]):
        # Asked for its matrix, a view would load all of it, and for some selections the whole file.
        return _rows_of_view(_row_reader(whole, layer), whole.shape, (adata._oidx, adata._vidx))
    matrix: Any = adata.X if layer is None else adata.layers[layer]
    if matrix is None:
        layers = [key for key in adata.layers.keys() if key is not None]
        raise ValueError(f"adata.X is empty; name the layer with the expression by layer=, one of {layers}.")
    if isinstance(matrix, CSCDataset):
        return lambda index: _rows_of_csc(matrix, index)
    if isinstance(matrix, CSRDataset):
        return lambda index: _csr(matrix[_as_slice(index)])
    if _is_stored(matrix):
        return lambda index: _dense_or_lazy_rows(matrix, index)
    if sp.issparse(matrix):
        _check_format(matrix)
        matrix = _csr(matrix)
    return lambda index: _csr(matrix[_as_slice(index)])


def _is_stored(matrix: Any) -> bool:
    """Whether a matrix is on disk (sparse, HDF5, zarr) or a dask array."""
    return isinstance(matrix, CSRDataset | CSCDataset) or hasattr(matrix, "chunks")


def _csr(rows: Any) -> sp.csr_matrix:
    rows = rows if sp.issparse(rows) else np.asarray(rows)
    return sp.csr_matrix(rows.astype(np.float32) if rows.dtype == np.float16 else rows)  # scipy has no float16


def _check_format(matrix: Any) -> None:
    """Raise for a sparse matrix whose parts do not fit each other: to use it could read any memory."""
    if not isinstance(matrix, sp.csr_matrix | sp.csr_array | sp.csc_matrix | sp.csc_array):
        return  # other formats are checked where they become CSR
    try:
        matrix.check_format(full_check=True)
    except (ValueError, IndexError) as error:
        raise ValueError(f"The sparse expression matrix is damaged ({error}); read or build it anew.") from None


def _in_order(read: RowReader, index: NDArray[np.int64]) -> sp.csr_matrix:
    """Read rows that may stand in any order."""
    order = np.argsort(index, kind="stable")
    rows = read(index[order])
    return rows if np.array_equal(order, np.arange(len(order))) else rows[np.argsort(order)]


def _rows_of_view(read: RowReader, shape: tuple[int, int], selection: tuple[Any, Any]) -> RowReader:
    """Return a reader of a view's rows, from one of what it is a view of."""
    rows, columns = (
        np.arange(n)[index if isinstance(index, slice) else np.asarray(index)]
        for n, index in zip(shape, selection, strict=True)
    )
    return lambda index: _in_order(read, rows[index])[:, columns]


def _as_slice(index: NDArray[np.int64]) -> slice | NDArray[np.int64]:
    """Consecutive rows as a slice, which every matrix reads faster."""
    if len(index) and index[-1] - index[0] + 1 == len(index) and (np.diff(index) == 1).all():
        return slice(int(index[0]), int(index[-1]) + 1)
    return index


def _dense_or_lazy_rows(matrix: Any, index: NDArray[np.int64]) -> sp.csr_matrix:
    unique, inverse = np.unique(index, return_inverse=True)  # h5py wants rising rows
    rows = matrix[_as_slice(unique)]
    rows = _csr(rows.compute() if hasattr(rows, "compute") else rows)
    return rows if len(unique) == len(index) else rows[inverse]


def _rows_of_csc(matrix: CSCDataset, index: NDArray[np.int64]) -> sp.csr_matrix:
    n_vars = matrix.shape[1]
    blocks = [
        sp.csr_matrix(matrix[:, start : min(start + _COLUMN_BLOCK, n_vars)])[index]
        for start in range(0, n_vars, _COLUMN_BLOCK)
    ]
    return sp.csr_matrix(sp.hstack(blocks, format="csr"))
