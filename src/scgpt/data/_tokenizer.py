"""From rows of a sparse expression matrix to a packed batch of tokens."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import lru_cache
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch
from numpy.typing import NDArray

from scgpt._token_batch import TokenBatch

from ._binning import Ties
from ._checks import raise_for_values, single
from ._hashing import hash_ids
from ._kernels import ONE_AT_A_TIME, fill, merge, survey
from ._vocab import GeneVocab

# More bins or tokens than anyone has, that 32-bit numbers hold.
_MOST = 2**31 - 1


@dataclass(frozen=True, eq=False)
class Tokenizer:
    """Turns cells into tokens: ``<cls>``, then each expressed gene of the vocabulary with its binned value.

    A cell is binned on all its genes first. If it has more than ``max_length - 1`` of them, it keeps genes in the
    order of a fixed hash of their ids, so that the choice depends neither on chance nor on other cells.

    Parameters
    ----------
    vocab
        The model's genes.
    n_bins
        Number of value bins, zero included; None leaves values as they are.
    max_length
        Most tokens of a cell, ``<cls>`` included.
    ties
        Where values that fall on several bins go, see :func:`~scgpt.data.bin_values`.
    include_zeros
        Whether genes that were measured and are not expressed are tokens too, with value 0.
    cls_value
        Value of the ``<cls>`` token.
    mask_value
        Value that stands for a hidden one.

    Raises
    ------
    ValueError
        When a setting is out of range.

    Examples
    --------
    >>> import anndata
    >>> import numpy as np
    >>> import pandas as pd
    >>> from scgpt.data import Cells, GeneVocab, Tokenizer
    >>> vocab = GeneVocab.from_genes(["CD3D", "CD79A", "LYZ"])
    >>> counts = np.array([[0, 4, 1], [2, 0, 0]], dtype="float32")
    >>> cells = Cells(anndata.AnnData(counts, var=pd.DataFrame(index=list(vocab.genes))), vocab.ids(vocab.genes))
    >>> batch = cells.tokenize(np.array([0, 1]), Tokenizer(vocab, n_bins=5))
    >>> batch.gene_ids.tolist(), batch.values.tolist(), batch.offsets.tolist()
    ([4, 1, 2, 4, 0], [-2.0, 4.0, 1.0, -2.0, 2.0], [0, 3, 5])
    """

    vocab: GeneVocab
    n_bins: int | None = 51
    max_length: int = 1200
    ties: Ties = "middle"
    include_zeros: bool = False
    cls_value: float = -2.0
    mask_value: float = -1.0

    def __post_init__(self) -> None:
        if self.n_bins is not None and not (isinstance(self.n_bins, int) and 3 <= self.n_bins <= _MOST):
            raise ValueError(
                f"n_bins must be a whole number of at least 3, or None to leave values, not {self.n_bins!r:.50}."
            )
        if not (isinstance(self.max_length, int) and 2 <= self.max_length <= _MOST):
            raise ValueError(
                f"max_length must be a whole number of at least 2, <cls> included, not {self.max_length!r:.50}."
            )
        if not isinstance(self.include_zeros, bool):
            raise ValueError(f"include_zeros must be True or False, not {self.include_zeros!r:.50}.")
        for name in ("cls_value", "mask_value"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < np.inf:
                raise ValueError(f"{name} must be a finite number, not {value!r:.50}.")
        if self.ties not in ("middle", "spread"):
            raise ValueError(f"ties must be 'middle' or 'spread', not {self.ties!r}.")

    def __call__(
        self,
        matrix: sp.csr_matrix | sp.csr_array,
        token_ids: NDArray[np.int64],
        *,
        cell_index: NDArray[np.int64] | None = None,
        key: int = 0,
    ) -> TokenBatch:
        """Tokenise cells.

        Parameters
        ----------
        matrix
            ``(n_cells, n_vars)`` CSR, counts or log-normalised values.
        token_ids
            ``(n_vars,)`` id of each variable's gene, -1 to leave it out, as :func:`~scgpt.data.match_genes` gives.
        cell_index
            ``(n_cells,)`` rows of the cells in their data set.
        key
            Decides ties that are spread at random.

        Returns
        -------
        A batch of ``n_cells`` cells in the order of the rows. A cell without expressed genes is ``<cls>`` alone.

        Raises
        ------
        ValueError
            When the matrix holds negative, NaN or infinite values.
        """
        if matrix.shape[1] != len(token_ids):
            raise ValueError(f"The matrix has {matrix.shape[1]} variables and token_ids {len(token_ids)}.")
        if cell_index is None:
            cell_index = np.arange(matrix.shape[0])
        cell_index = np.ascontiguousarray(cell_index, dtype=np.int64)  # another type would be compiled for anew
        if not matrix.has_canonical_format:
            # A copy in single precision: sums of small integers overflow.
            matrix = sp.csr_matrix((single(matrix.data), matrix.indices, matrix.indptr), matrix.shape, copy=True)
            matrix.sum_duplicates()
        indptr = matrix.indptr.astype(np.int64, copy=False)
        indices = matrix.indices.astype(np.int32, copy=False)
        data = single(matrix.data)

        with ONE_AT_A_TIME:
            return self._tokens(indptr, indices, data, token_ids, cell_index, key)

    def _tokens(
        self,
        indptr: NDArray[np.int64],
        indices: NDArray[np.int32],
        data: NDArray[np.float32],
        token_ids: NDArray[np.int64],
        cell_index: NDArray[np.int64],
        key: int,
    ) -> TokenBatch:
        genes, gene_hash, slots = _genes_of(np.ascontiguousarray(token_ids, dtype=np.int64).tobytes())
        n_genes, flags = survey(indptr, indices, data, slots)
        raise_for_values(flags, cell_index)
        if len(genes) < (token_ids >= 0).sum():
            indptr, indices, data = merge(indptr, indices, data, slots, len(genes))
            slots = np.arange(len(genes))
            n_genes, _ = survey(indptr, indices, data, slots)
        if self.include_zeros:
            n_genes[:] = len(genes)
        offsets = np.zeros(len(n_genes) + 1, np.int64)
        np.cumsum(np.minimum(n_genes, self.max_length - 1) + 1, out=offsets[1:])
        gene_ids, values = fill(
            indptr, indices, data, slots, genes, gene_hash, n_genes, offsets, self.include_zeros,
            self.n_bins or 0, self.ties == "spread", np.uint64(key), cell_index, self.vocab.cls_id, self.cls_value,
        )  # fmt: skip
        return TokenBatch(
            gene_ids=torch.from_numpy(gene_ids),
            values=torch.from_numpy(values),
            offsets=torch.from_numpy(offsets),
            cell_index=torch.from_numpy(cell_index),
        )

    def settings(self) -> dict[str, Any]:
        """Return everything but the vocabulary as plain values, ready for JSON."""
        return {f.name: getattr(self, f.name) for f in fields(self) if f.name != "vocab"}

    @classmethod
    def from_settings(cls, vocab: GeneVocab, settings: Mapping[str, Any]) -> Tokenizer:
        """Build from a vocabulary and what :meth:`settings` gave.

        Raises
        ------
        ValueError
            When a setting is unknown.
        """
        unknown = sorted(set(settings) - {f.name for f in fields(cls)})
        if unknown:
            raise ValueError(f"Unknown tokenizer settings {unknown}; written by a newer version of scgpt-tools?")
        return cls(vocab, **settings)


@lru_cache(maxsize=8)
def _genes_of(token_ids: bytes) -> tuple[NDArray[np.int64], NDArray[np.uint64], NDArray[np.int64]]:
    """Return the genes among the ids of variables, their hashes, and which of the genes each variable is, -1 for none.

    It is asked for the same variables in every batch, and sorting the ids of 60,000 takes as long as many a cell.
    """
    ids = np.frombuffer(token_ids, np.int64)
    genes, column_slot = np.unique(ids[ids >= 0], return_inverse=True)
    slots = np.full(len(ids), -1, np.int64)
    slots[ids >= 0] = column_slot
    return genes, hash_ids(genes), slots
