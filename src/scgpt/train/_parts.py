"""What a batch counts for in a step of the optimiser that is made of several."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields

import torch
from torch import Tensor, nn

from scgpt.data import TokenBatch
from scgpt.module import MeanOver

UNITS: tuple[MeanOver, ...] = ("cells", "genes", "tokens")


@dataclass(frozen=True, eq=False)
class PartOfStep(TokenBatch):
    """A batch whose gradient is summed with that of others before the optimiser steps.

    A mean over all cells or predicted tokens of the step is the sum of the parts' own means, each times the part's
    share.

    Parameters
    ----------
    of_step
        ``(3,)`` float32, cells, genes of these cells, and predicted tokens of all parts of the step.

    Examples
    --------
    >>> import torch
    >>> from scgpt.train import PartOfStep
    >>> genes, values = torch.tensor([9, 3]), torch.tensor([-2.0, 4.0])  # 9 is <cls>
    >>> whole = torch.tensor([2.0, 7.0, 3.0])  # this cell and another, of 7 genes, 3 of which are to be predicted
    >>> PartOfStep(genes, values, torch.tensor([0, 2]), torch.tensor([0]), of_step=whole).n_cells
    1
    """

    of_step: Tensor | None = None


def counts(batch: TokenBatch) -> Tensor:
    """Return ``(3,)`` float32: how many cells, genes of these cells, and predicted tokens a batch has."""
    n_predicted = batch.offsets.new_zeros(()) if batch.predict is None else batch.predict.sum()
    n_cells, n_genes = batch.n_cells, batch.n_tokens - batch.n_cells
    return torch.stack([n_predicted.new_tensor(n_cells), n_predicted.new_tensor(n_genes), n_predicted]).float()


def shares(part: Tensor, whole: Tensor) -> dict[MeanOver, Tensor]:
    """Return which share of a whole a part is, in cells, genes and predicted tokens, from the counts of both."""
    return dict(zip(UNITS, part / whole.clamp(min=1), strict=True))


def parts_of_step(batches: Sequence[TokenBatch]) -> list[PartOfStep]:
    """Return batches that know of what whole they are parts."""
    of_step = torch.stack([counts(batch) for batch in batches]).sum(0)
    return [PartOfStep(**{f.name: getattr(b, f.name) for f in fields(b)}, of_step=of_step) for b in batches]


@contextmanager
def all_gradients_or_none(parameters: Iterable[nn.Parameter]) -> Iterator[None]:
    """Add to the gradients of parameters what is computed inside; if that fails, leave them as they were."""
    before = [(parameter, parameter.grad) for parameter in parameters]
    for parameter, _ in before:
        parameter.grad = None
    try:
        yield
    except BaseException:
        for parameter, gradient in before:
            parameter.grad = gradient
        raise
    for parameter, gradient in before:
        if gradient is not None:
            parameter.grad = gradient if parameter.grad is None else gradient.add_(parameter.grad)
