"""Which genes a cell's batch measured: the others are absent, not zero."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp
import torch
from numpy.typing import NDArray

from scgpt._token_batch import TokenBatch


def measured_tokens(
    batch: TokenBatch, token_ids: NDArray[np.int64], measured: NDArray[np.bool_], batches: NDArray[np.integer]
) -> torch.Tensor:
    """Return which tokens the batch of their cell measured.

    Parameters
    ----------
    batch
        Cells with their zeros.
    token_ids
        ``(n_vars,)`` as :func:`~scgpt.data.match_genes` gives.
    measured
        ``(n_batches, n_vars)``, which batch measured which variable.
    batches
        ``(B,)`` batch of each cell.

    Returns
    -------
    ``(T,)`` bool; of ``<cls>`` either, which is kept anyway.
    """
    known = token_ids >= 0
    genes, slot = np.unique(token_ids[known], return_inverse=True)
    table = np.zeros((len(measured), len(genes)), dtype=bool)
    batch_of, column = np.nonzero(measured[:, known])
    table[batch_of, slot[column]] = True
    tokens = np.searchsorted(genes, batch.gene_ids.numpy()).clip(max=len(genes) - 1)
    return torch.from_numpy(table[batches[batch.cell_of_token.numpy()], tokens])


def levels_of_genes(
    batch: TokenBatch,
    rows: sp.csr_matrix,
    token_ids: NDArray[np.int64],
    measured: NDArray[np.bool_] | None,
    batches: NDArray[np.integer] | None,
) -> dict[str, torch.Tensor]:
    """Return the values of all genes, as the fields ``measured`` and ``levels`` of a batch.

    Parameters
    ----------
    batch
        The cells, whose tokens tell the values that they have.
    rows
        ``(B, n_vars)`` expression.
    token_ids, measured, batches
        As in :func:`measured_tokens`; where the last two are None, all cells measured all variables.
    """
    known = token_ids >= 0
    genes, slot = np.unique(token_ids[known], return_inverse=True)
    levels = np.zeros((rows.shape[0], len(genes)), dtype=np.float32)
    if measured is not None and batches is not None:
        levels[:] = np.nan
        cell, column = np.nonzero(measured[batches][:, known])
        levels[cell, slot[column]] = 0
    entries = sp.coo_array(rows[:, known] > 0)
    levels[entries.row, slot[entries.col]] = np.inf
    token = np.setdiff1d(np.arange(batch.n_tokens), batch.first.numpy(), assume_unique=True)
    gene = np.searchsorted(genes, batch.gene_ids.numpy()[token])
    levels[batch.cell_of_token.numpy()[token], gene] = batch.values.numpy()[token]
    return {"measured": torch.from_numpy(genes), "levels": torch.from_numpy(levels)}
