"""Losses as functions of tensors."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def masked_mse(prediction: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """Mean squared error over the positions where ``mask`` is True; 0 where there is none."""
    return _masked_mean((prediction - target).square(), mask)


def masked_cross_entropy(logits: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """Mean cross-entropy of the ``(T, n_bins)`` logits for the ``(T,)`` bins where ``mask`` is True; 0 where there is none."""
    # Elsewhere the target need not be a bin: that of <cls> is negative.
    bins = torch.where(mask, target, 0).long()
    return _masked_mean(F.cross_entropy(logits, bins, reduction="none"), mask)


def masked_relative_error(prediction: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """Mean of ``|prediction - target| / target`` over the positions where ``mask`` is True, for targets above 0."""
    return _masked_mean((prediction - target).abs() / (target + 1e-5), mask)


def zero_nll(probability: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """Negative log-likelihood of which genes are expressed, given the probabilities that they are."""
    return _masked_mean(bernoulli_nll(probability, (target > 0).to(probability.dtype)), mask)


def bernoulli_nll(probability: Tensor, happened: Tensor) -> Tensor:
    """Negative log-likelihood of each event, 1 or 0; a logarithm counts at least -100."""
    with torch.autocast(probability.device.type, enabled=False):  # which refuses what takes probabilities
        return F.binary_cross_entropy(probability.float(), happened.float(), reduction="none")


def elastic_cell_similarity(cells_BD: Tensor, beta: float) -> Tensor:
    """Mean over all pairs of cells of ``1 - (relu(cos) - beta)^2``, the cosine of a cell with itself set to 0.

    Pairs more alike than ``beta`` are drawn together and others apart (:cite:t:`Cui2024`, Methods).
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
