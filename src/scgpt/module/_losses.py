"""Losses as functions of tensors."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def masked_mse(prediction: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """Mean squared error over the positions where ``mask`` is True; 0 where there is none.

    Parameters
    ----------
    prediction
        ``(T,)`` values.
    target
        ``(T,)`` true values.
    mask
        ``(T,)`` bool, which positions count.

    Returns
    -------
    A number, with its gradient.

    Examples
    --------
    >>> import torch
    >>> from scgpt.module import masked_mse
    >>> float(masked_mse(torch.tensor([1.0, 5.0]), torch.tensor([3.0, 0.0]), torch.tensor([True, False])))
    4.0
    """
    return _masked_mean((prediction - target).square(), mask)


def masked_cross_entropy(logits: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """Mean cross-entropy of the ``(T, n_bins)`` logits for the ``(T,)`` bins where ``mask`` is True; 0 where there is none.

    Parameters
    ----------
    logits
        ``(T, n_bins)``.
    target
        ``(T,)`` true bins, whole numbers; what stands where ``mask`` is False is not read.
    mask
        ``(T,)`` bool, which positions count.

    Returns
    -------
    A number, with its gradient.

    Examples
    --------
    >>> import torch
    >>> from scgpt.module import masked_cross_entropy
    >>> logits, bins = torch.zeros(2, 4), torch.tensor([3.0, -2.0])
    >>> round(float(masked_cross_entropy(logits, bins, torch.tensor([True, False]))), 3)  # the logarithm of 4
    1.386
    """
    # Elsewhere the target need not be a bin: that of <cls> is negative.
    bins = torch.where(mask, target, 0).long()
    return _masked_mean(F.cross_entropy(logits, bins, reduction="none"), mask)


def masked_relative_error(prediction: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """Mean of ``|prediction - target| / target`` over the positions where ``mask`` is True, for targets above 0.

    Parameters
    ----------
    prediction
        ``(T,)`` values.
    target
        ``(T,)`` true values, above 0.
    mask
        ``(T,)`` bool, which positions count.

    Returns
    -------
    A number, with its gradient.

    Examples
    --------
    >>> import torch
    >>> from scgpt.module import masked_relative_error
    >>> prediction, target = torch.tensor([1.0, 5.0]), torch.tensor([4.0, 1.0])
    >>> round(float(masked_relative_error(prediction, target, torch.tensor([True, False]))), 3)
    0.75
    """
    return _masked_mean((prediction - target).abs() / (target + 1e-5), mask)


def zero_nll(probability: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """Negative log-likelihood of which genes are expressed, given the probabilities that they are.

    Parameters
    ----------
    probability
        ``(T,)`` probabilities that genes are expressed, from 0 to 1.
    target
        ``(T,)`` true values, of which those above 0 are expressed.
    mask
        ``(T,)`` bool, which positions count.

    Returns
    -------
    A number, with its gradient.

    Examples
    --------
    >>> import torch
    >>> from scgpt.module import zero_nll
    >>> probability, values = torch.tensor([0.5, 0.9]), torch.tensor([3.0, 0.0])
    >>> round(float(zero_nll(probability, values, torch.tensor([True, False]))), 3)  # the logarithm of 2
    0.693
    """
    return _masked_mean(bernoulli_nll(probability, (target > 0).to(probability.dtype)), mask)


def bernoulli_nll(probability: Tensor, happened: Tensor) -> Tensor:
    """Negative log-likelihood of each event, 1 or 0; a logarithm counts at least -100."""
    with torch.autocast(probability.device.type, enabled=False):  # which refuses what takes probabilities
        return F.binary_cross_entropy(probability.float(), happened.float(), reduction="none")


def elastic_cell_similarity(cells_BD: Tensor, beta: float) -> Tensor:
    """Mean over all pairs of cells of ``1 - (relu(cos) - beta)^2``, the cosine of a cell with itself set to 0.

    Pairs more alike than ``beta`` are drawn together and others apart (:cite:t:`Cui2024`, Methods).

    Parameters
    ----------
    cells_BD
        ``(B, D)`` cell embeddings, of any length.
    beta
        Cosine from which a pair is drawn together rather than apart.

    Returns
    -------
    A number, with its gradient.

    Examples
    --------
    >>> import torch
    >>> from scgpt.module import elastic_cell_similarity
    >>> cells = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    >>> round(float(elastic_cell_similarity(cells, beta=0.8)), 2)  # 1 - 0.8 ** 2: no pair is alike
    0.36
    """
    unit_BD = F.normalize(cells_BD, dim=1)
    cosine_BB = (unit_BD @ unit_BD.T).fill_diagonal_(0)
    return (1 - (torch.relu(cosine_BB) - beta).square()).mean()


def mean_over_genes(x_BG: Tensor, known_BG: Tensor, modality_G: Tensor | None = None) -> Tensor:
    """Mean over cells of what is known of each cell's genes; with modalities the mean of those that the cell has.

    A cell of which nothing is known counts as 0.
    """
    x_BG, known = x_BG.masked_fill(~known_BG, 0), known_BG.to(x_BG.dtype)
    if modality_G is None:
        return (x_BG.sum(1) / known.sum(1).clamp(min=1)).mean()
    of_modality_GM = F.one_hot(modality_G).to(x_BG.dtype)
    # Sums of a reduced precision would be off where features are many.
    with torch.autocast(x_BG.device.type, enabled=False):
        n_known_BM = known @ of_modality_GM
        mean_BM = x_BG @ of_modality_GM / n_known_BM.clamp(min=1)
    return (mean_BM.sum(1) / (n_known_BM > 0).sum(1).clamp(min=1)).mean()


def _masked_mean(x: Tensor, mask: Tensor) -> Tensor:
    return (x * mask).sum() / mask.sum().clamp(min=1)
