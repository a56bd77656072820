"""How a module is trained: optimiser, steps, and what is logged."""

from __future__ import annotations

from typing import Any, Literal

import torch
from scvi.module.base import LossOutput
from scvi.train import TrainingPlan
from torch import nn

from scgpt._token_batch import TokenBatch
from scgpt.data import derive_key
from scgpt.module import ScGPTModule

from ._schedule import Schedule

SETTINGS = "scgpt_settings"  # key in a checkpoint of training


class ScGPTTrainingPlan(TrainingPlan):
    """Trains an :class:`~scgpt.module.ScGPTModule`.

    Logged for each epoch, as means over cells: ``train_loss`` and ``validation_loss``, and each objective under
    ``<name>_train`` and ``<name>_validation``.

    Parameters
    ----------
    module
        What is trained.
    lr
        Learning rate.
    eps
        Adam's epsilon. scvi-tools' default of 0.01 is made for variational autoencoders; a transformer hardly
        trains with it.
    weight_decay
        Decoupled weight decay, not applied to norms, biases and embeddings.
    schedule
        See :class:`Schedule`.
    warmup_steps
        See :class:`Schedule`.
    decay
        See :class:`Schedule`.
    seed
        Of dropout, which is a function of seed, epoch and step.
    compile
        Compile the module with :func:`torch.compile`.
    compile_kwargs
        For :func:`torch.compile`.
    settings
        What the training depends on beside this plan, as plain values; kept in its checkpoints.
    """

    module: ScGPTModule

    def __init__(
        self,
        module: ScGPTModule,
        *,
        lr: float = 1e-4,
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        schedule: Literal["constant", "cosine", "epoch_decay"] = "constant",
        warmup_steps: int = 0,
        decay: float = 0.9,
        seed: int = 0,
        compile: bool = False,
        compile_kwargs: dict[str, Any] | None = None,
        settings: dict[str, Any] | None = None,
    ):
        super().__init__(
            module,
            optimizer="AdamW",
            lr=lr,
            eps=eps,
            weight_decay=weight_decay,
            compile=compile,
            compile_kwargs=compile_kwargs,
        )
        self.schedule = Schedule(schedule, warmup_steps, decay)
        self.seed = seed
        plan = {"lr": lr, "eps": eps, "weight_decay": weight_decay, "seed": seed, "schedule": str(self.schedule)}
        self.settings = plan | (settings or {})

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep what the training depends on, so that it is not continued as another one."""
        checkpoint[SETTINGS] = self.settings

    def training_step(self, batch: TokenBatch, batch_idx: int) -> torch.Tensor:
        """Return the loss of a batch of cells."""
        torch.manual_seed(derive_key(self.seed, "dropout", self.current_epoch, batch_idx, self.global_rank))
        losses = self.module(batch)[-1]
        self._log_losses(losses, "train")
        # Where training gathers statistics alone, nothing has a gradient, and Lightning still goes backward.
        return losses.loss if losses.loss.requires_grad else losses.loss.requires_grad_()

    def validation_step(self, batch: TokenBatch, batch_idx: int) -> None:
        """Log the loss of a batch of cells."""
        self._log_losses(self.module(batch)[-1], "validation")

    def _log_losses(self, losses: LossOutput, mode: str) -> None:
        values = {f"{mode}_loss": losses.loss.detach()}
        values |= {f"{name}_{mode}": loss.detach() for name, loss in (losses.extra_metrics or {}).items()}
        self.log_dict(
            values,
            prog_bar=True,
            on_step=self.on_step,
            on_epoch=self.on_epoch,
            batch_size=losses.n_obs_minibatch,  # weighs the epoch's mean: a mean over cells
            sync_dist=self.use_sync_dist,
        )

    def configure_optimizers(self) -> dict[str, Any]:
        """Return AdamW with its schedule, stepped at every step."""
        # Gradients that mixed precision scales cannot be clipped in a fused optimiser.
        self.fused_optimizer = "mixed" not in str(self.trainer.precision)
        nothing = [{"params": [torch.zeros(1)]}]  # where training gathers statistics alone; torch refuses an empty list
        optimizer = self.get_optimizer_creator()(parameter_groups(self.module, self.weight_decay) or nothing)
        # Not trainer.estimated_stepping_batches: it makes Lightning set its loader up before it has read the loader's
        # state from a checkpoint, which is then never used.
        n_batches = len(self.trainer.datamodule.train_dataloader())
        steps_per_epoch = -(-n_batches // self.trainer.accumulate_grad_batches)
        total_steps = steps_per_epoch * (self.trainer.max_epochs or 1)
        scheduler = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: self.schedule.factor(step, total_steps, steps_per_epoch)
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}


def parameter_groups(module: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Split the trainable parameters into those that decay, the matrices of linear layers, and the others."""
    decaying = {
        id(parameter)
        for layer in module.modules()
        if isinstance(layer, nn.Linear)
        for name, parameter in layer.named_parameters(recurse=False)
        if name == "weight"
    }
    trainable = [p for p in module.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in trainable if id(p) in decaying], "weight_decay": weight_decay},
        {"params": [p for p in trainable if id(p) not in decaying], "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]
