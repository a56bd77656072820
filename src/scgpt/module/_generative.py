"""The generative objective: values of unknown genes, from the known ones and from the cell embedding."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from scgpt._token_batch import TokenBatch
from scgpt.nn import NetworkOutput, ScGPTNetwork

from ._objectives import Gep, Gepc, MeanOver, Objective


class GenePrompt(Gep):
    """Values of unknown genes from the known genes of the cell.

    Examples
    --------
    >>> import torch
    >>> from scgpt.data import TokenBatch, mark_unknown
    >>> from scgpt.module import GenePrompt
    >>> from scgpt.nn import NetworkOutput
    >>> genes, values = torch.tensor([9, 3, 5]), torch.tensor([-2.0, 1.0, 4.0])  # 9 is <cls>
    >>> batch = mark_unknown(TokenBatch(genes, values, torch.tensor([0, 3]), torch.tensor([0])), 0.5)
    >>> float(GenePrompt()(NetworkOutput(tokens=None, cells=torch.zeros(1, 8), gep=values + 2), batch))
    4.0
    """

    name = "gen_gene_prompt"
    part_of = "gen"


class GenGepc(Gepc):
    """The same values from the cell embedding and the gene's query.

    Examples
    --------
    >>> import torch
    >>> from scgpt.data import TokenBatch, mark_unknown
    >>> from scgpt.module import GenGepc
    >>> from scgpt.nn import NetworkOutput
    >>> genes, values = torch.tensor([9, 3, 5]), torch.tensor([-2.0, 1.0, 4.0])  # 9 is <cls>
    >>> batch = mark_unknown(TokenBatch(genes, values, torch.tensor([0, 3]), torch.tensor([0])), 0.5)
    >>> float(GenGepc()(NetworkOutput(tokens=None, cells=torch.zeros(1, 8), gepc=values + 2), batch))
    4.0
    """

    name = "gen_gepc"
    part_of = "gen"


@dataclass(frozen=True)
class CellPrompt(Gep):
    """Values of unknown genes in a second pass, with the cell embedding of the first in the place of ``<cls>``.

    The embedding passes no gradient on.

    Parameters
    ----------
    weight
        Its factor in the sum.
    warmup_steps
        Steps of the optimiser after which it counts: before, embeddings say little.
    all_unknown
        Whether all genes are unknown in the second pass, as they are where cells are generated from an embedding
        alone; else the known ones stay, as in the authors' code.

    Examples
    --------
    >>> from scgpt.module import CellPrompt
    >>> objective = CellPrompt(warmup_steps=1000)
    >>> objective.counts_at(999), objective.counts_at(1000)
    (False, True)
    """

    name = "gen_cell_prompt"
    part_of = "gen"

    warmup_steps: int = 1000
    all_unknown: bool = False

    def counts_at(self, step: int) -> bool:
        """Return whether the warm-up is over."""
        return step >= self.warmup_steps

    def scored_on(
        self, network: ScGPTNetwork, out: NetworkOutput, batch: TokenBatch
    ) -> tuple[NetworkOutput, TokenBatch]:
        """Run the second pass."""
        if self.all_unknown:
            genes = torch.ones_like(batch.values, dtype=torch.bool).index_fill(0, batch.first, False)
            batch = replace(batch, unknown=genes, predict=genes)
        return network(batch, self.heads, cell_prompt=out.cells.detach()), batch

    def mean_over(self, batch: TokenBatch) -> MeanOver:
        """Return what is predicted: all genes, or those that are unknown."""
        return "genes" if self.all_unknown else "tokens"


def gen(weight: float = 1.0, warmup_steps: int = 1000, all_unknown: bool = False) -> tuple[Objective, ...]:
    """Return the three parts of the generative objective (:cite:t:`Cui2024`, Methods).

    Parameters
    ----------
    weight
        Of each part.
    warmup_steps
        See :class:`CellPrompt`.
    all_unknown
        See :class:`CellPrompt`.

    Returns
    -------
    A :class:`GenePrompt`, a :class:`GenGepc` and a :class:`CellPrompt`.

    Examples
    --------
    >>> from scgpt.module import gen
    >>> [part.name for part in gen(weight=0.5)]
    ['gen_gene_prompt', 'gen_gepc', 'gen_cell_prompt']
    """
    return GenePrompt(weight), GenGepc(weight), CellPrompt(weight, warmup_steps, all_unknown)
