"""Cells of several modalities as tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from scgpt._token_batch import TokenBatch

from ._cells import Cells, with_labels
from ._tokenizer import Tokenizer

# The kinds of features, by the row of the modality embedding that their tokens have. That of <cls> is row 0, its own.
MODALITIES = {"rna": 1, "atac": 2, "protein": 3}
N_MODALITIES = 1 + len(MODALITIES)


@dataclass(frozen=True, eq=False)
class ModalityCells:
    """One modality of a data set, which some of its cells may lack.

    Parameters
    ----------
    cells
        The modality's own cells.
    rows
        ``(n_obs,)`` which of them each cell of the data set is, -1 where it lacks the modality.

    Examples
    --------
    >>> import anndata
    >>> import numpy as np
    >>> from scgpt.data import Cells, ModalityCells
    >>> protein = Cells(anndata.AnnData(np.ones((2, 3), dtype="float32")), np.arange(3))
    >>> modality = ModalityCells(protein, rows=np.array([0, -1, 1]))  # the second of three cells lacks it
    >>> (modality.rows >= 0).tolist()
    [True, False, True]
    """

    cells: Cells
    rows: NDArray[np.int64]


class MultiCells:
    """The cells of a data set of several modalities, tokenised like :class:`Cells`.

    A cell's tokens are ``<cls>`` and those of each modality that it has. The values of each modality are binned by
    themselves, and each may have as many tokens as the tokenizer allows.

    Parameters
    ----------
    modalities
        The modalities by their kind, a key of ``MODALITIES``.
    batch_labels
        ``(n_obs,)`` experimental batch of each cell.
    labels
        ``(n_obs,)`` class of each cell.

    Raises
    ------
    ValueError
        When there is no modality, or they disagree on the number of cells.

    Examples
    --------
    >>> import anndata
    >>> import numpy as np
    >>> from scgpt.data import Cells, GeneVocab, ModalityCells, MultiCells, Tokenizer
    >>> vocab = GeneVocab.from_genes(["CD3D", "LYZ", "CD3", "CD14"])  # two genes and two proteins
    >>> rna = Cells(anndata.AnnData(np.ones((3, 2), dtype="float32")), np.array([0, 1]))
    >>> protein = Cells(anndata.AnnData(np.ones((2, 2), dtype="float32")), np.array([2, 3]))
    >>> modalities = {"rna": ModalityCells(rna, np.arange(3)), "protein": ModalityCells(protein, np.array([0, -1, 1]))}
    >>> MultiCells(modalities).tokenize(np.arange(3), Tokenizer(vocab)).lengths.tolist()  # with <cls>
    [5, 3, 5]
    """

    conditions = None  # of genes or cells: those of one modality would not be those of another

    def __init__(
        self,
        modalities: Mapping[str, ModalityCells],
        *,
        batch_labels: NDArray[np.int64] | None = None,
        labels: NDArray[np.int64] | None = None,
    ):
        if len({len(modality.rows) for modality in modalities.values()}) != 1:
            raise ValueError("Modalities must be of the same cells, and at least one.")
        self.modalities = dict(modalities)
        self.batch_labels, self.labels = batch_labels, labels
        self._n_cells = len(next(iter(modalities.values())).rows)

    def __len__(self) -> int:
        return self._n_cells

    @property
    def present(self) -> NDArray[np.bool_]:
        """``(n_obs,)`` which cells have any of the modalities."""
        return np.any([modality.rows >= 0 for modality in self.modalities.values()], axis=0)

    def tokenize(
        self, index: NDArray[np.int64], tokenizer: Tokenizer, *, key: int = 0, levels: bool = False
    ) -> TokenBatch:
        """Return some cells as tokens, with their modalities, batches and labels, in the order given.

        Parameters
        ----------
        index
            ``(B,)`` rows.
        tokenizer
            How they become tokens.
        key
            Decides ties that are spread at random.
        levels
            Whether to say the values of all measured features, too; those of a modality that it lacks are NaN.
        """
        parts = []
        for kind, modality in self.modalities.items():
            present = np.flatnonzero(modality.rows[index] >= 0)
            batch = modality.cells.tokenize(modality.rows[index[present]], tokenizer, key=key, levels=levels)
            parts.append((MODALITIES[kind], present, batch))
        return with_labels(_joined(parts, index, tokenizer), index, self.batch_labels, self.labels)


def _joined(
    parts: Sequence[tuple[int, NDArray[np.int64], TokenBatch]], index: NDArray[np.int64], tokenizer: Tokenizer
) -> TokenBatch:
    """Return batches of the same cells as one, with a ``<cls>`` for each cell; of each, which cells it is of."""
    n_cells = len(index)
    cell_of = [np.arange(n_cells)]
    fields = {
        "gene_ids": [torch.full((n_cells,), tokenizer.vocab.cls_id)],
        "values": [torch.full((n_cells,), tokenizer.cls_value)],
        "modality_ids": [torch.zeros(n_cells, dtype=torch.int64)],
    }
    for modality, cells, batch in parts:
        features = torch.ones(batch.n_tokens, dtype=torch.bool).index_fill(0, batch.first, False)
        cell_of.append(cells[batch.cell_of_token[features].numpy()])
        fields["gene_ids"].append(batch.gene_ids[features])
        fields["values"].append(batch.values[features])
        fields["modality_ids"].append(torch.full((len(cell_of[-1]),), modality))
    order = torch.from_numpy(np.argsort(np.concatenate(cell_of), kind="stable"))
    lengths = np.bincount(np.concatenate(cell_of), minlength=n_cells)
    return TokenBatch(
        **{name: torch.cat(tensors)[order] for name, tensors in fields.items()},
        offsets=torch.from_numpy(np.concatenate([[0], lengths.cumsum()])),
        cell_index=torch.from_numpy(np.asarray(index, dtype=np.int64)),
        **_measured(parts, n_cells),
    )


def _measured(parts: Sequence[tuple[int, NDArray[np.int64], TokenBatch]], n_cells: int) -> dict[str, torch.Tensor]:
    measured, levels, modality_ids = [], [], []
    for modality, cells, batch in parts:
        if batch.measured is None or batch.levels is None:
            return {}
        of_all = torch.full((n_cells, len(batch.measured)), torch.nan)
        of_all[torch.from_numpy(cells)] = batch.levels
        measured.append(batch.measured)
        levels.append(of_all)
        modality_ids.append(torch.full((len(batch.measured),), modality))
    return {
        "measured": torch.cat(measured),
        "levels": torch.cat(levels, dim=1),
        "measured_modality_ids": torch.cat(modality_ids),
    }
