"""The network with its objectives, as scvi-tools trains it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from scvi.module.base import BaseModuleClass, LossOutput

from scgpt._token_batch import TokenBatch
from scgpt.nn import NetworkOutput, ScGPTConfig, ScGPTNetwork

from ._generation import generate
from ._make import default_objectives
from ._objectives import Objective


class ScGPTModule(BaseModuleClass):
    """An :class:`~scgpt.nn.ScGPTNetwork` and the objectives that it is trained with.

    Parameters
    ----------
    config
        The network's config.

    Attributes
    ----------
    objectives
        What :meth:`loss` sums; set by training.

    Examples
    --------
    >>> import torch
    >>> from scgpt.data import TokenBatch, mask_values
    >>> from scgpt.module import ScGPTModule, make_objectives
    >>> from scgpt.nn import ScGPTConfig
    >>> module = ScGPTModule(ScGPTConfig(n_tokens=100, d_model=16, n_heads=2, n_layers=1, d_feed_forward=16))
    >>> module.objectives = make_objectives({"gep": 1, "gepc": 1})
    >>> genes, values = torch.tensor([99, 3, 5]), torch.tensor([-2.0, 1.0, 4.0])  # 99 is <cls>
    >>> batch = TokenBatch(genes, values, offsets=torch.tensor([0, 3]), cell_index=torch.tensor([0]))
    >>> _, _, losses = module(mask_values(batch, 0.5))
    >>> sorted(losses.extra_metrics)
    ['gep', 'gepc']
    """

    def __init__(self, config: ScGPTConfig):
        super().__init__()
        self.network = ScGPTNetwork(config)
        self.objectives: tuple[Objective, ...] = default_objectives(config)

    def forward(
        self, tensors: TokenBatch, step: int | None = None, **kwargs: Any
    ) -> tuple[NetworkOutput, NetworkOutput, LossOutput]:
        """Run network and objectives; the triple is what scvi-tools expects of a module."""
        heads = dict.fromkeys(head for objective in self.objectives for head in objective.heads)
        output = self.inference(tensors, tuple(heads))
        return output, output, self.loss(tensors, output, step)

    def inference(self, batch: TokenBatch, heads: tuple[str, ...] = ()) -> NetworkOutput:
        """Run the network; outputs of tokens are given only where a head reads them."""
        return self.network(batch, heads=heads, tokens=False)

    def loss(self, batch: TokenBatch, output: NetworkOutput, step: int | None = None) -> LossOutput:
        """Return the weighted sum of the objectives, and each of them unweighted as an extra metric.

        Objectives that are parts of another are in the extra metrics together with their sum. Of those that begin
        later, only what counts at ``step`` is there; without it, as in validation, where epochs are compared, all.

        Raises
        ------
        FloatingPointError
            When an objective is NaN or infinite.
        """
        counting = [o for o in self.objectives if step is None or o.counts_at(step)]
        losses = {o.name: o(*o.scored_on(self.network, output, batch)) for o in counting}
        total, values = self.total(losses) if losses else (output.cells.new_zeros(()), losses)
        if not torch.isfinite(total):
            bad = [name for name, loss in losses.items() if not torch.isfinite(loss)]
            raise FloatingPointError(f"Objective {', '.join(bad)} is not finite; lower the learning rate.")
        return LossOutput(loss=total, extra_metrics=values, n_obs_minibatch=batch.n_cells)

    @property
    def couples_cells(self) -> list[str]:
        """What looks at several cells of a batch at once: objectives, and a norm of the input that gathers statistics."""
        norm = self.network.input_norm
        names = [o.name for o in self.objectives if o.couples_cells]
        return names + (["input_norm"] if norm is not None and norm.training else [])

    def total(self, losses: Mapping[str, torch.Tensor]) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Return the weighted sum of objectives, and all of them with the sums that they are parts of."""
        counting = [o for o in self.objectives if o.name in losses]
        wholes = dict.fromkeys(o.part_of for o in counting if o.part_of is not None)
        sums = {name: torch.stack([losses[o.name] for o in counting if o.part_of == name]).sum() for name in wholes}
        return torch.stack([o.weight * losses[o.name] for o in counting]).sum(), sums | dict(losses)

    @torch.inference_mode()
    def classify(self, batch: TokenBatch) -> torch.Tensor:
        """Return ``(B, n_classes)`` logits in float32."""
        logits = self.inference(batch, ("cls",)).cls
        assert logits is not None  # the network raises where it has no classifier
        return logits.float()

    @torch.inference_mode()
    def embed(self, batch: TokenBatch) -> torch.Tensor:
        """Return ``(B, D)`` cell embeddings in float32, not normalised."""
        return self.inference(batch).cells.float()

    @torch.inference_mode()
    def generate(
        self,
        batch: TokenBatch,
        n_rounds: int,
        *,
        cell_prompt: torch.Tensor | None = None,
        bounds: tuple[float, float] = (0.0, math.inf),
        share: torch.Tensor | None = None,
        thresholds: torch.Tensor | float = 0.5,
    ) -> torch.Tensor:
        """Return ``(T,)`` values in float32, those of unknown genes as :func:`~scgpt.module.generate` gives them."""
        return generate(
            self.network, batch, n_rounds, cell_prompt=cell_prompt, bounds=bounds, share=share, thresholds=thresholds
        )
