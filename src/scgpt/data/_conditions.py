"""The conditions of tokens: those of their gene and those of their cell."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from scgpt._token_batch import TokenBatch


@dataclass(frozen=True, eq=False)
class Conditions:
    """Which conditions the tokens of a data set stand under, as rows of the condition embedding; 0 is none.

    A gene's are the same in every data set. A cell's are those of each of its tokens, ``<cls>`` too.

    Parameters
    ----------
    of_genes
        ``(n_tokens, P)`` int64, the conditions of each gene of the vocabulary, padded with 0.
    of_cells
        ``(n_obs, K)`` int64, the conditions of each cell.

    Examples
    --------
    >>> import numpy as np
    >>> import torch
    >>> from scgpt.data import Conditions, TokenBatch
    >>> of_genes = np.array([[1], [0], [0]])  # gene 0 is of condition 1
    >>> of_cells = np.array([[2]])  # the cell is of condition 2
    >>> genes = torch.tensor([2, 0, 1])  # 2 is <cls>
    >>> cell = TokenBatch(genes, torch.zeros(3), offsets=torch.tensor([0, 3]), cell_index=torch.tensor([0]))
    >>> Conditions(of_genes, of_cells).of_tokens(cell).tolist()
    [[0, 2], [1, 2], [0, 2]]
    """

    of_genes: NDArray[np.int64]
    of_cells: NDArray[np.int64]

    @property
    def width(self) -> int:
        """Most conditions ``C = P + K`` of a token."""
        return self.of_genes.shape[1] + self.of_cells.shape[1]

    def of_tokens(self, batch: TokenBatch) -> Tensor:
        """Return the ``(T, C)`` int64 conditions of a batch, whose ``cell_index`` are rows of the data set."""
        genes = torch.from_numpy(self.of_genes)[batch.gene_ids]
        if not self.of_cells.shape[1]:
            return genes
        cells = torch.from_numpy(self.of_cells)[batch.cell_index][batch.cell_of_token]
        return torch.cat([genes, cells], dim=1)

    def digest(self, index: NDArray[np.int64]) -> str:
        """Return a hash of the conditions of all genes and of some cells."""
        arrays = (self.of_genes, self.of_cells[index])
        return hashlib.sha256(b"".join(np.ascontiguousarray(x).tobytes() for x in arrays)).hexdigest()


def conditions_of_genes(members: Sequence[NDArray[np.int64]], n_tokens: int) -> NDArray[np.int64]:
    """Turn sets of genes into the sets of each gene.

    Parameters
    ----------
    members
        Gene ids of each set, each once; the first set is condition 1.
    n_tokens
        Size of the vocabulary.

    Returns
    -------
    ``(n_tokens, P)`` int64, rising in each row and then 0, where ``P`` is the most sets of a gene.
    """
    genes = np.concatenate([np.empty(0, np.int64), *members])
    sets = np.repeat(np.arange(1, len(members) + 1), [len(own) for own in members])
    order = np.argsort(genes, kind="stable")
    genes, sets = genes[order], sets[order]
    counts = np.bincount(genes, minlength=n_tokens)
    place = np.arange(len(genes)) - (np.cumsum(counts) - counts)[genes]
    table = np.zeros((n_tokens, counts.max(initial=0)), np.int64)
    table[genes, place] = sets
    return table
