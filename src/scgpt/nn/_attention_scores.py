"""The attention between the genes of a cell, read out beside the kernels that never form it."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from scgpt._token_batch import TokenBatch

# L tokens of one cell; other letters as in _network.py.


def attention_scores(q_THE: Tensor, k_THE: Tensor, batch: TokenBatch) -> Iterator[Tensor]:
    """Yield the attention of each cell: how much each of its tokens (rows) gives to each (columns).

    Parameters
    ----------
    q_THE, k_THE
        ``(T, H, E)`` queries and keys of ``H`` heads.
    batch
        The batch, for the cells' boundaries.

    Yields
    ------
    ``(H, L, L)`` float32 softmax over the ``L`` tokens of a cell, one cell after the other; rows sum to 1.
    """
    sizes = batch.lengths.tolist()
    for q_LHE, k_LHE in zip(q_THE.split(sizes), k_THE.split(sizes), strict=True):
        scores_HLL = q_LHE.float().transpose(0, 1) @ k_LHE.float().permute(1, 2, 0)
        yield (scores_HLL * q_LHE.shape[-1] ** -0.5).softmax(-1)


def rank_normalised(scores_LL: Tensor) -> Tensor:
    """Return ranks of the columns of ranks within rows, as shares :cite:p:`Cui2024`.

    Within each row scores become ranks from 0, equal ones in the order of the columns; within each column these become
    ranks from 0, equal ones their mean. So what a cell or a gene has of attention as a whole does not count: which genes
    attend to a gene more than others do does.

    Parameters
    ----------
    scores_LL
        ``(L, L)``.

    Returns
    -------
    ``(L, L)`` float32 of (rank + 1/2) / L, in (0, 1); the mean of each column is 1/2.

    Raises
    ------
    ValueError
        When the matrix is not square.

    Examples
    --------
    >>> import torch
    >>> from scgpt.nn import rank_normalised
    >>> scores = torch.tensor([[0.7, 0.2, 0.1], [0.1, 0.8, 0.1], [0.1, 0.3, 0.6]])
    >>> rank_normalised(scores).argmax(0)  # which gene attends most to each
    tensor([0, 1, 2])
    >>> torch.allclose(rank_normalised(scores).mean(0), torch.tensor(0.5))
    True
    """
    n = len(scores_LL)
    if scores_LL.shape != (n, n):
        raise ValueError(f"Scores are of genes by the same genes, not of shape {tuple(scores_LL.shape)}.")
    # column_LL[i, k] is the column that has rank k in row i.
    column_LL = scores_LL.argsort(dim=1, stable=True)
    place_LL = column_LL * n + torch.arange(n, device=column_LL.device)
    # How often each column (rows here) has each rank tells the rank of that rank.
    counts_LL = torch.bincount(place_LL.flatten(), minlength=n * n).view(n, n)
    mean_rank_LL = counts_LL.cumsum(1) - (counts_LL + 1) / 2
    ranks_LL = torch.empty_like(mean_rank_LL).scatter_(1, column_LL, mean_rank_LL.take(place_LL))
    return ((ranks_LL + 0.5) / n).float()
