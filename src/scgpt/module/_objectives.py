"""Training objectives: small objects that compose into one loss."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch.nn.functional as F
from torch import Tensor

from scgpt._token_batch import TokenBatch
from scgpt.nn import NetworkOutput, ScGPTNetwork

from ._losses import (
    bernoulli_nll,
    elastic_cell_similarity,
    masked_cross_entropy,
    masked_mse,
    mean_over_genes,
    zero_nll,
)

MeanOver = Literal["cells", "genes", "tokens"]


@dataclass(frozen=True)
class Objective(ABC):
    """One term of the loss.

    Parameters
    ----------
    weight
        Its factor in the sum.

    Examples
    --------
    >>> from dataclasses import dataclass
    >>> from scgpt.module import Objective
    >>> @dataclass(frozen=True)
    ... class Spread(Objective):
    ...     name = "spread"
    ...
    ...     def __call__(self, out, batch):
    ...         return -out.cells.var(0).mean()
    >>> Spread(weight=0.1)  # for the objectives of a model's train
    Spread(weight=0.1)
    """

    name: ClassVar[str]
    heads: ClassVar[tuple[str, ...]] = ()
    """Heads of the network that it reads."""
    part_of: ClassVar[str | None] = None
    """Name of a sum that it is a part of, which is logged beside it."""
    couples_cells: ClassVar[bool] = False
    """Whether it looks at several cells at once, so that the loss of a batch is no mean of those of its parts."""

    weight: float = 1.0

    def __post_init__(self) -> None:
        if not (isinstance(self.weight, int | float) and 0 <= self.weight < math.inf):
            raise ValueError(
                f"The weight of objective {self.name!r} must be a number of at least 0, not {self.weight!r}."
            )

    @abstractmethod
    def __call__(self, out: NetworkOutput, batch: TokenBatch) -> Tensor:
        """Return the loss of a batch, unweighted."""

    def scored_on(
        self, network: ScGPTNetwork, out: NetworkOutput, batch: TokenBatch
    ) -> tuple[NetworkOutput, TokenBatch]:
        """Return the output and the batch to call it with: those of the first pass, or of a pass of its own."""
        return out, batch

    def counts_at(self, step: int) -> bool:
        """Return whether it is part of the loss at a step of the optimiser."""
        return True

    def mean_over(self, batch: TokenBatch) -> MeanOver:
        """Return what the loss of a batch is a mean over: its cells, all their genes, or the tokens to predict."""
        return "cells"

    def needed(self, what: str, tensor: Tensor | None) -> Tensor:
        """Return a tensor, with an error that names it where it is not there."""
        if tensor is None:
            raise ValueError(f"Objective {self.name!r} needs {what}, which this batch or network does not have.")
        return tensor

    def predicted(self, batch: TokenBatch) -> tuple[Tensor, Tensor]:
        """Return the true values of a batch, and where they count."""
        return self.needed("targets", batch.targets), self.needed("predict", batch.predict)


class Gep(Objective):
    """Masked expression from each gene's own output.

    Mean squared error, as in the authors' code; where the network's head chooses among bins (``gep_bins``),
    cross-entropy, as in their preprint.

    Examples
    --------
    >>> import torch
    >>> from scgpt.data import TokenBatch, mask_values
    >>> from scgpt.module import Gep
    >>> from scgpt.nn import NetworkOutput
    >>> genes, values = torch.tensor([9, 3, 5]), torch.tensor([-2.0, 1.0, 4.0])  # 9 is <cls>
    >>> batch = mask_values(TokenBatch(genes, values, torch.tensor([0, 3]), torch.tensor([0])), 0.5)
    >>> out = NetworkOutput(tokens=None, cells=torch.zeros(1, 8), gep=values + 2)  # each prediction is 2 too high
    >>> float(Gep()(out, batch))
    4.0
    """

    name = "gep"
    heads = ("gep",)

    def __call__(self, out: NetworkOutput, batch: TokenBatch) -> Tensor:
        """Return the loss of a batch, unweighted."""
        if out.gep_logits is not None:
            return masked_cross_entropy(out.gep_logits, *self.predicted(batch))
        return masked_mse(self.needed("gep", out.gep), *self.predicted(batch))

    def mean_over(self, batch: TokenBatch) -> MeanOver:
        """Return that it is a mean over tokens."""
        return "tokens"


class Gepc(Objective):
    """The same values from the cell embedding and the gene's query.

    Examples
    --------
    >>> import torch
    >>> from scgpt.data import TokenBatch, mask_values
    >>> from scgpt.module import Gepc
    >>> from scgpt.nn import NetworkOutput
    >>> genes, values = torch.tensor([9, 3, 5]), torch.tensor([-2.0, 1.0, 4.0])  # 9 is <cls>
    >>> batch = mask_values(TokenBatch(genes, values, torch.tensor([0, 3]), torch.tensor([0])), 0.5)
    >>> out = NetworkOutput(tokens=None, cells=torch.zeros(1, 8), gepc=values + 2)  # each prediction is 2 too high
    >>> float(Gepc()(out, batch))
    4.0
    """

    name = "gepc"
    heads = ("gepc",)

    def __call__(self, out: NetworkOutput, batch: TokenBatch) -> Tensor:
        """Return the loss of a batch, unweighted."""
        return masked_mse(self.needed("gepc", out.gepc), *self.predicted(batch))

    def mean_over(self, batch: TokenBatch) -> MeanOver:
        """Return that it is a mean over tokens."""
        return "tokens"


class Zero(Objective):
    """Whether a gene is expressed at all.

    Where zeros are tokens, that of masked genes, by every expression decoder that is on. Where zeros are left out,
    every token is expressed and tells nothing: then that of all measured genes, from the cell embedding. Each modality
    that a cell has counts as much as another, however few its features.

    Examples
    --------
    >>> import torch
    >>> from scgpt.data import TokenBatch, mask_values
    >>> from scgpt.module import Zero
    >>> from scgpt.nn import NetworkOutput
    >>> genes, values = torch.tensor([9, 3, 5]), torch.tensor([-2.0, 0.0, 4.0])  # 9 is <cls>
    >>> batch = mask_values(TokenBatch(genes, values, torch.tensor([0, 3]), torch.tensor([0])), 0.5)
    >>> out = NetworkOutput(tokens=None, cells=torch.zeros(1, 8), zero=torch.full((3,), 0.5))
    >>> round(float(Zero()(out, batch)), 3)  # the logarithm of 2
    0.693
    """

    name = "zero"
    heads = ("zero",)

    def __call__(self, out: NetworkOutput, batch: TokenBatch) -> Tensor:
        """Return the loss of a batch, unweighted."""
        if batch.levels is not None:
            expressed = self.needed("expressed", out.expressed)
            measured = ~batch.levels.isnan()
            nll = bernoulli_nll(expressed, (batch.levels > 0).float())
            return mean_over_genes(nll, measured, batch.measured_modality_ids)
        loss = zero_nll(self.needed("zero", out.zero), *self.predicted(batch))
        return loss if out.zero_gepc is None else loss + zero_nll(out.zero_gepc, *self.predicted(batch))

    def mean_over(self, batch: TokenBatch) -> MeanOver:
        """Return that it is a mean over masked genes, or over all genes of each cell."""
        return "tokens" if batch.levels is None else "cells"


class Levels(Objective):
    """Values of all measured genes in the cells that express them, from the cell embedding.

    Unlike ``gepc`` it asks of genes that were dropped from the tokens, too. The error is relative to the highest value of
    the cell, so that it does not depend on the number of bins.

    Examples
    --------
    >>> import torch
    >>> from scgpt.data import TokenBatch
    >>> from scgpt.module import Levels
    >>> from scgpt.nn import NetworkOutput
    >>> genes, values = torch.tensor([9, 3]), torch.tensor([-2.0, 4.0])  # 9 is <cls>
    >>> batch = TokenBatch(genes, values, torch.tensor([0, 2]), torch.tensor([0]), levels=torch.tensor([[4.0, 0.0]]))
    >>> out = NetworkOutput(tokens=None, cells=torch.zeros(1, 8), levels=torch.tensor([[2.0, 7.0]]))
    >>> float(Levels()(out, batch))  # half of the highest value, squared; the second gene is not expressed
    0.25
    """

    name = "levels"
    heads = ("levels",)

    def __call__(self, out: NetworkOutput, batch: TokenBatch) -> Tensor:
        """Return the loss of a batch, unweighted."""
        truth = self.needed("levels", batch.levels)
        known = (truth > 0) & truth.isfinite()
        truth = truth.masked_fill(~known, 0)
        error = (self.needed("levels", out.levels).float() - truth) / truth.amax(1, keepdim=True).clamp(min=1)
        return mean_over_genes(error.square(), known, batch.measured_modality_ids)


class PerturbGep(Objective):
    """Expression of all genes after a perturbation, from the affine decoder: mean squared error.

    The true values are those of a perturbed cell, and the values read those of a control cell, another one.

    Examples
    --------
    >>> import torch
    >>> from scgpt.data import TokenBatch
    >>> from scgpt.module import PerturbGep
    >>> from scgpt.nn import NetworkOutput
    >>> genes, values = torch.tensor([9, 3]), torch.tensor([0.0, 1.5])  # 9 is <cls>
    >>> asked = {"targets": torch.tensor([0.0, 2.5]), "predict": torch.tensor([False, True])}
    >>> batch = TokenBatch(genes, values, torch.tensor([0, 2]), torch.tensor([0]), **asked)
    >>> float(PerturbGep()(NetworkOutput(tokens=None, cells=torch.zeros(1, 8), perturb_gep=values), batch))
    1.0
    """

    name = "perturb_gep"
    heads = ("perturb_gep",)

    def __call__(self, out: NetworkOutput, batch: TokenBatch) -> Tensor:
        """Return the loss of a batch, unweighted."""
        return masked_mse(self.needed("perturb_gep", out.perturb_gep), *self.predicted(batch))

    def mean_over(self, batch: TokenBatch) -> MeanOver:
        """Return that it is a mean over tokens."""
        return "tokens"


@dataclass(frozen=True)
class Ecs(Objective):
    """Elastic cell similarity.

    Parameters
    ----------
    weight
        Its factor in the sum.
    beta
        Cosine above which cells are drawn together.

    Examples
    --------
    >>> import torch
    >>> from scgpt.data import TokenBatch
    >>> from scgpt.module import Ecs
    >>> from scgpt.nn import NetworkOutput
    >>> batch = TokenBatch(torch.tensor([9, 9]), torch.zeros(2), torch.tensor([0, 1, 2]), torch.arange(2))
    >>> out = NetworkOutput(tokens=None, cells=torch.tensor([[1.0, 0.0], [2.0, 0.0]]))  # two cells of one direction
    >>> round(float(Ecs(beta=0.8)(out, batch)), 2)
    0.66
    """

    name = "ecs"
    couples_cells = True

    beta: float = 0.8

    def __call__(self, out: NetworkOutput, batch: TokenBatch) -> Tensor:
        """Return the loss of a batch, unweighted."""
        return elastic_cell_similarity(out.cells, self.beta)


class Dar(Objective):
    """The adversary's cross-entropy for the experimental batch; its gradient reaches the encoder reversed.

    Examples
    --------
    >>> import torch
    >>> from scgpt.data import TokenBatch
    >>> from scgpt.module import Dar
    >>> from scgpt.nn import NetworkOutput
    >>> genes, offsets, labels = torch.tensor([9, 9]), torch.tensor([0, 1, 2]), torch.tensor([0, 1])
    >>> batch = TokenBatch(genes, torch.zeros(2), offsets, torch.arange(2), batch_labels=labels)
    >>> out = NetworkOutput(
    ...     tokens=None, cells=torch.zeros(2, 8), dar=torch.zeros(2, 2)
    ... )  # it cannot tell the batches apart
    >>> round(float(Dar()(out, batch)), 3)
    0.693
    """

    name = "dar"
    heads = ("dar",)

    def __call__(self, out: NetworkOutput, batch: TokenBatch) -> Tensor:
        """Return the loss of a batch, unweighted."""
        return F.cross_entropy(self.needed("dar", out.dar), self.needed("batch_labels", batch.batch_labels))


@dataclass(frozen=True)
class Cls(Objective):
    """Cross-entropy of the cell type.

    Parameters
    ----------
    weight
        Its factor in the sum.
    class_weights
        Factor of each type's cells; by default 1 for all.

    Examples
    --------
    >>> import torch
    >>> from scgpt.data import TokenBatch
    >>> from scgpt.module import Cls
    >>> from scgpt.nn import NetworkOutput
    >>> genes, offsets, labels = torch.tensor([9, 9]), torch.tensor([0, 1, 2]), torch.tensor([0, 1])
    >>> batch = TokenBatch(genes, torch.zeros(2), offsets, torch.arange(2), labels=labels)
    >>> out = NetworkOutput(tokens=None, cells=torch.zeros(2, 8), cls=torch.tensor([[9.0, 0.0], [0.0, 9.0]]))
    >>> round(float(Cls()(out, batch)), 3)
    0.0
    """

    name = "cls"
    heads = ("cls",)

    class_weights: tuple[float, ...] | None = None

    def __call__(self, out: NetworkOutput, batch: TokenBatch) -> Tensor:
        """Return the loss of a batch, unweighted."""
        logits, labels = self.needed("cls", out.cls), self.needed("labels", batch.labels)
        weights = None if self.class_weights is None else logits.new_tensor(self.class_weights)
        # A mean over cells, not over weights, which would make more of a batch without rare types.
        return F.cross_entropy(logits, labels, weights, reduction="sum") / len(labels)
