"""From transformer output and cell embeddings to predictions."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


def _expression_mlp(d_in: int, d_model: int, d_out: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(d_in, d_model), nn.LeakyReLU(), nn.Linear(d_model, d_model), nn.LeakyReLU(), nn.Linear(d_model, d_out)
    )


def _probability(logits: Tensor) -> Tensor:
    # In bfloat16 all above 0.998 would be 1, and a wrong answer there without a gradient.
    return torch.sigmoid(logits.float())


class ExpressionHead(nn.Module):
    """Expression of each gene from its own output, with the probability that it is expressed on request."""

    def __init__(self, d_in: int, d_model: int, zero: bool, d_out: int = 1):
        super().__init__()
        self.value = _expression_mlp(d_in, d_model, d_out)
        self.expressed = _expression_mlp(d_in, d_model) if zero else None

    def forward(self, x_TC: Tensor) -> Tensor:
        """Map ``(T, C)`` outputs to ``(T,)`` values."""
        return self.value(x_TC).squeeze(-1)

    def probability(self, x_TC: Tensor) -> Tensor:
        """Map ``(T, C)`` outputs to the ``(T,)`` probability that the gene is expressed."""
        assert self.expressed is not None  # the network asks only where the config has it on
        return _probability(self.expressed(x_TC).squeeze(-1))


class BinnedExpressionHead(ExpressionHead):
    """Expression of each gene as a choice among value bins, which are the whole numbers from 0."""

    def __init__(self, d_in: int, d_model: int, zero: bool, n_bins: int):
        super().__init__(d_in, d_model, zero, n_bins)

    def logits(self, x_TC: Tensor) -> Tensor:
        """Map ``(T, C)`` outputs to ``(T, n_bins)`` logits."""
        return self.value(x_TC)

    @staticmethod
    def expected(logits_TN: Tensor) -> Tensor:
        """Map ``(T, n_bins)`` logits to the ``(T,)`` values that they lead to expect."""
        bins_N = torch.arange(logits_TN.shape[1], dtype=torch.float32, device=logits_TN.device)
        # Not a matrix product, which mixed precision would round to a few bits.
        return (torch.softmax(logits_TN.float(), dim=1) * bins_N).sum(1)

    def forward(self, x_TC: Tensor) -> Tensor:
        """Map ``(T, C)`` outputs to the ``(T,)`` values to expect."""
        return self.expected(self.logits(x_TC))


class AffineExpressionHead(nn.Module):
    """Expression after a perturbation as an affine function of the input value: ``coefficient * value + bias``."""

    def __init__(self, d_in: int, d_model: int, zero: bool):
        super().__init__()
        self.coefficient = ExpressionHead(d_in, d_model, zero)
        self.bias = ExpressionHead(d_in, d_model, zero=False)

    def forward(self, x_TC: Tensor, values_T: Tensor) -> Tensor:
        """Map ``(T, C)`` outputs and ``(T,)`` input values to ``(T,)`` values."""
        return self.coefficient(x_TC) * values_T + self.bias(x_TC)

    def probability(self, x_TC: Tensor) -> Tensor:
        """Map ``(T, C)`` outputs to the ``(T,)`` probability that the gene is expressed."""
        return self.coefficient.probability(x_TC)


class CellPromptedHead(nn.Module):
    """Expression of a gene from the cell embedding: the gene's query, through a matrix, times the cell.

    Parameters
    ----------
    d_query
        Width of what the query is made of: the normalised gene embedding, with its context where there is one.
    d_cell
        Width of the cell embedding, with its context where there is one.
    zero
        Whether to predict the probability that the gene is expressed too.
    """

    def __init__(self, d_query: int, d_cell: int, zero: bool):
        super().__init__()
        self.query = nn.Linear(d_query, d_query)
        # The value head's matrix has no bias and the zero head's has one, as in the authors' model.
        self.value = nn.Linear(d_query, d_cell, bias=False)
        self.expressed = nn.Linear(d_query, d_cell) if zero else None

    def forward(self, gene_TQ: Tensor, cell_TC: Tensor) -> Tensor:
        """Map ``(T, Q)`` genes and the ``(T, C)`` embeddings of their cells to ``(T,)`` values."""
        return (self.value(torch.sigmoid(self.query(gene_TQ))) * cell_TC).sum(-1)

    def probability(self, gene_TQ: Tensor, cell_TC: Tensor) -> Tensor:
        """As :meth:`forward`, for the ``(T,)`` probability that the gene is expressed."""
        assert self.expressed is not None
        return _probability((self.expressed(torch.sigmoid(self.query(gene_TQ))) * cell_TC).sum(-1))

    def probabilities(self, gene_GQ: Tensor, cell_BC: Tensor, share: Tensor) -> Tensor:
        """Map ``(G, Q)`` genes and ``(B, C)`` cells to the ``(B, G)`` probabilities for each pair.

        The share of genes that each cell expresses, ``(B, 1)`` or ``(B, G)``, are the odds before anything is known of its
        state. Given them, the cell embedding need not tell how deeply the cell was sequenced, as with the library size of
        :cite:t:`Lopez2018`.
        """
        assert self.expressed is not None
        logits_BG = cell_BC @ self.expressed(torch.sigmoid(self.query(gene_GQ))).T
        return _probability(logits_BG + torch.logit(share, eps=0.5 / len(gene_GQ)))

    def levels(self, gene_GQ: Tensor, cell_BC: Tensor) -> Tensor:
        """As :meth:`forward`, for the ``(B, G)`` values of each pair of ``(G, Q)`` genes and ``(B, C)`` cells."""
        return cell_BC @ self.value(torch.sigmoid(self.query(gene_GQ))).T


class Classifier(nn.Sequential):
    """``(B, D)`` cell embeddings to ``(B, n_classes)`` logits: linear, activation, layer norm, and again."""

    def __init__(self, d_model: int, n_classes: int, n_layers: int, activation: type[nn.Module]):
        block = lambda: (nn.Linear(d_model, d_model), activation(), nn.LayerNorm(d_model))
        hidden = [m for _ in range(n_layers - 1) for m in block()]
        super().__init__(*hidden, nn.Linear(d_model, n_classes))


class _ReverseGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return -grad


class Adversary(nn.Module):
    """A classifier of the experimental batch behind a reversed gradient (:cite:t:`Ganin2015`)."""

    def __init__(self, d_model: int, n_batches: int, n_layers: int):
        super().__init__()
        self.classifier = Classifier(d_model, n_batches, n_layers, nn.LeakyReLU)

    def forward(self, cell_BD: Tensor) -> Tensor:
        """Map ``(B, D)`` cell embeddings to ``(B, n_batches)`` logits."""
        return self.classifier(_ReverseGradient.apply(cell_BD))
