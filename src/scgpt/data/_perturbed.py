"""Cells of a perturbation experiment as pairs: a control cell to read, a perturbed cell to predict."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from scgpt._token_batch import TokenBatch

from ._aligned import aligned
from ._cells import Cells
from ._hashing import uniform_of


@dataclass(frozen=True, eq=False)
class Marks:
    """The tokens that a perturbation puts under conditions.

    Parameters
    ----------
    tokens
        ``(M,)`` int64 ids: perturbed genes, and ``<cls>`` for what acts on the whole cell. None for control.
    conditions
        ``(M, C)`` int64, rows of the condition embedding of each; 0 is none.

    Examples
    --------
    >>> import numpy as np
    >>> from scgpt.data import Marks
    >>> marks = Marks(tokens=np.array([5]), conditions=np.array([[1]]))  # gene 5 is perturbed
    >>> marks.tokens.shape, marks.conditions.shape
    ((1,), (1, 1))
    """

    tokens: NDArray[np.int64]
    conditions: NDArray[np.int64]


class Pairing:
    """Which control cells a cell is paired with.

    Parameters
    ----------
    is_control
        ``(n_obs,)`` bool.
    groups
        ``(n_obs,)`` int64; pairs are of one group, each of which has a control cell.
    """

    def __init__(self, is_control: NDArray[np.bool_], groups: NDArray[np.int64]):
        self.is_control, self.groups = is_control, groups
        controls = np.flatnonzero(is_control)
        self._controls = controls[np.argsort(groups[controls], kind="stable")]
        self._counts = np.bincount(groups[controls], minlength=groups.max(initial=-1) + 1)
        self._first = np.cumsum(self._counts) - self._counts

    def controls_for(self, index: NDArray[np.int64], key: int) -> NDArray[np.int64]:
        """Return a control cell for each of some cells, drawn as a function of the key and the cell alone."""
        groups = self.groups[index]
        place = np.floor(uniform_of(key, index, np.zeros_like(index)) * self._counts[groups]).astype(np.int64)
        return self._controls[self._first[groups] + place]


class PerturbedCells:
    """The cells of a perturbation experiment, tokenised as pairs.

    Every gene is a token, expressed or not, and values stay as they are.

    Parameters
    ----------
    cells
        The data set.
    cls_id
        Id of ``<cls>``.
    cls_value
        Its value.
    marks
        Of each perturbation.
    perturbation_of
        ``(n_obs,)`` int64, which of them each cell stands under.
    pairing
        Which control cells they are paired with.
    """

    def __init__(
        self,
        cells: Cells,
        *,
        cls_id: int,
        cls_value: float,
        marks: Sequence[Marks],
        perturbation_of: NDArray[np.int64],
        pairing: Pairing,
    ):
        self.expression = GeneValues(cells)
        self.cls_id, self.cls_value = cls_id, cls_value
        self.marks, self.perturbation_of, self.pairing = list(marks), perturbation_of, pairing

    def __len__(self) -> int:
        return len(self.perturbation_of)

    @property
    def conditions(self) -> PerturbedCells:
        """What training depends on beside the expression: itself, for its digest."""
        return self

    def digest(self, index: NDArray[np.int64]) -> str:
        """Return a hash of the perturbations of some cells, and of what they may be paired with."""
        arrays = [x for i in self.perturbation_of[index] for x in (self.marks[i].tokens, self.marks[i].conditions)]
        arrays += [self.pairing.is_control, self.pairing.groups]
        return hashlib.sha256(b"".join(np.ascontiguousarray(x).tobytes() for x in arrays)).hexdigest()

    def pairs(self, index: NDArray[np.int64], *, n_genes: int, control_key: int, gene_key: int) -> TokenBatch:
        """Return control cells with the expression of perturbed cells as targets.

        Parameters
        ----------
        index
            ``(B,)`` perturbed cells.
        n_genes
            Genes to sample, the same of all cells; those that are perturbed in one of them are always among these.
        control_key
            Decides which control cells.
        gene_key
            Decides which genes.

        Returns
        -------
        A batch whose ``cell_index`` is that of the perturbed cells. All measured genes are to be predicted.
            Genes that were not measured are tokens of the cells in which they are perturbed.
        """
        marks = [self.marks[i] for i in self.perturbation_of[index]]
        perturbed = np.unique(np.concatenate([np.empty(0, np.int64), *(own.tokens for own in marks)]))
        perturbed = perturbed[perturbed != self.cls_id]
        genes = sample_genes(self.expression.genes, n_genes, perturbed, gene_key)
        batch = tokens_of_cells(
            self.expression.of(self.pairing.controls_for(index, control_key), genes),
            genes,
            marks,
            cls_id=self.cls_id,
            cls_value=self.cls_value,
            cell_index=index,
        )
        targets = np.pad(self.expression.of(index, genes), ((0, 0), (1, 0)))
        measured = np.isin(genes, self.expression.genes)
        batch = replace(
            batch,
            targets=torch.from_numpy(targets.ravel()),
            predict=torch.from_numpy(np.tile([False, *measured], len(index))),
        )
        if measured.all():
            return batch
        # Perturbed genes that were not measured are tokens of the cells in which they are perturbed alone.
        assert batch.condition_ids is not None and batch.predict is not None  # for the type checker
        return batch.keep(batch.predict | (batch.condition_ids != 0).any(1))


class GeneValues:
    """Expression by genes of the vocabulary, whatever a data set's variables are.

    Parameters
    ----------
    cells
        The data set.
    """

    def __init__(self, cells: Cells):
        self._cells = cells
        ids = np.asarray(cells.token_ids, dtype=np.int64)
        self.genes, slots = np.unique(ids[ids >= 0], return_inverse=True)
        self._slots = np.full(len(ids), -1, np.int64)
        self._slots[ids >= 0] = slots

    def of(self, index: NDArray[np.int64], genes: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return ``(len(index), len(genes))`` float32 values; of a gene that was not measured, 0."""
        measured = aligned(self._cells.rows(index), self._slots, len(self.genes), index)
        result = np.zeros((len(index), len(genes)), np.float32)
        place = np.minimum(np.searchsorted(self.genes, genes), len(self.genes) - 1)
        known = self.genes[place] == genes
        result[:, known] = measured.toarray()[:, place[known]]
        return result


def sample_genes(genes: NDArray[np.int64], n: int, always: NDArray[np.int64], key: int) -> NDArray[np.int64]:
    """Return ``n`` of some genes, drawn as a function of the key and the gene, and always those of ``always``, in order."""
    if n >= len(genes):
        return np.union1d(genes, always)
    rest = np.setdiff1d(genes, always)
    drawn = np.argsort(uniform_of(key, np.zeros_like(rest), rest), kind="stable")[: max(n - len(always), 0)]
    return np.union1d(rest[drawn], always)


def tokens_of_cells(
    values: NDArray[np.float32],
    genes: NDArray[np.int64],
    marks: Sequence[Marks],
    *,
    cls_id: int,
    cls_value: float,
    cell_index: NDArray[np.int64],
) -> TokenBatch:
    """Return cells as ``<cls>`` and the same genes each, with the conditions of each cell's perturbation.

    Parameters
    ----------
    values
        ``(B, G)`` expression.
    genes
        ``(G,)`` ids, rising.
    marks
        Of the perturbation of each cell; their genes are among ``genes``.
    cls_id, cls_value
        Of ``<cls>``.
    cell_index
        ``(B,)`` rows in the data set.
    """
    n_cells, length = len(values), len(genes) + 1
    ids = np.concatenate([[cls_id], genes])
    conditions = np.zeros((n_cells, length, max(own.conditions.shape[1] for own in marks)), np.int64)
    for row, own in enumerate(marks):
        place = np.where(own.tokens == cls_id, 0, 1 + np.searchsorted(genes, own.tokens))
        conditions[row, place, : own.conditions.shape[1]] = own.conditions
    return TokenBatch(
        gene_ids=torch.from_numpy(np.tile(ids, n_cells)),
        values=torch.from_numpy(np.pad(values, ((0, 0), (1, 0)), constant_values=cls_value).ravel()),
        offsets=torch.arange(n_cells + 1) * length,
        cell_index=torch.from_numpy(np.asarray(cell_index, dtype=np.int64)),
        condition_ids=torch.from_numpy(conditions.reshape(n_cells * length, -1)),
    )
