"""How a module is trained: optimiser, steps, and what is logged."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from lightning.pytorch.strategies import FSDPStrategy, SingleDeviceStrategy
from scvi.module.base import LossOutput
from scvi.train import TrainingPlan
from torch import nn

from scgpt._messages import listed
from scgpt._token_batch import TokenBatch
from scgpt.data import derive_key
from scgpt.module import MeanOver, MemoryLimit, ScGPTModule, is_out_of_memory

from ._history import EpochMeans, history_to_plain, log_again
from ._parts import PartOfStep, all_gradients_or_none, counts, shares
from ._schedule import Schedule
from ._speed import Speed, known_peak

# Keys in a checkpoint of training.
SETTINGS, HISTORY, STOPPED, MOST = "scgpt_settings", "scgpt_history", "scgpt_stopped", "scgpt_most_tokens"

# What is said where memory runs out.
_EFFECT = (
    "Longer batches are cut into parts, whose gradients are summed to that of the whole batch; dropout draws other numbers. "
    "Half the batch_size with accumulate_grad_batches=2 asks for that from the start (in pretraining accumulate=2 alone); "
    "activation_checkpointing=True needs less memory."
)
_REMEDY = "shorter cells (max_length=), activation_checkpointing=True or precision='bf16-mixed'"


class ScGPTTrainingPlan(TrainingPlan):
    """Trains an :class:`~scgpt.module.ScGPTModule`.

    Logged for each epoch, as means over cells: ``train_loss`` and ``validation_loss``, and each objective under
    ``<name>_train`` and ``<name>_validation``; of one that counts only after a warm-up, the mean is over cells from then
    on, while validation always has it. What was logged is kept in checkpoints. The progress bar shows ``cells_per_s`` and
    ``tokens_per_s`` of the latest epoch, and ``mfu`` where the device's peak is known; ``speeds`` has those of all epochs.

    Several batches for one step of the optimiser (``accumulate_grad_batches``, several processes) have the gradient of
    one large batch: the means of objectives are over all its predicted tokens or cells. What looks at several cells at
    once, ``ecs`` and a norm of the input embeddings, sees those of a batch only.

    A batch that the memory does not suffice for is done again in parts with the same gradient, and those that follow begin
    with such parts; where cells are looked at at once, or several processes train, a ``MemoryError`` says what to do.

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
    gene_l2
        Penalty of the squares of the gene embeddings, as part of the gradient that Adam scales: genes whose gradient is
        little else shrink beside the others. For networks with ``gene_norm="joint"``; a layer norm of each undoes it.
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
    activation_checkpointing
        Compute the inside of layers again in the backward pass rather than keep it: less memory, a third more time, the
        same gradient.
    peak_tflops
        What the device could compute, in 10^12 operations a second, for ``mfu``; by default what is known of it.
    settings
        What the training depends on beside this plan, as plain values; kept in its checkpoints.

    Examples
    --------
    >>> from scgpt.module import ScGPTModule
    >>> from scgpt.nn import ScGPTConfig
    >>> from scgpt.train import ScGPTTrainingPlan
    >>> module = ScGPTModule(ScGPTConfig(n_tokens=100, d_model=16, n_heads=2, n_layers=1, d_feed_forward=16))
    >>> plan = ScGPTTrainingPlan(module, lr=1e-3, schedule="cosine", warmup_steps=100)
    >>> plan.lr
    0.001

    A model makes its own: ``model.train(lr=1e-3, plan_kwargs={"schedule": "cosine", "warmup_steps": 100})``.
    """

    module: ScGPTModule

    def __init__(
        self,
        module: ScGPTModule,
        *,
        lr: float = 1e-4,
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        gene_l2: float = 0.0,
        schedule: Literal["constant", "cosine", "epoch_decay"] = "constant",
        warmup_steps: int = 0,
        decay: float = 0.9,
        seed: int = 0,
        compile: bool = False,
        compile_kwargs: dict[str, Any] | None = None,
        activation_checkpointing: bool = False,
        peak_tflops: float | None = None,
        settings: dict[str, Any] | None = None,
    ):
        super().__init__(
            module,
            optimizer="Adam",  # decoupled from decay where a group of parameters says so
            lr=lr,
            eps=eps,
            weight_decay=weight_decay,
            compile=compile,
            compile_kwargs=compile_kwargs,
        )
        self.schedule = Schedule(schedule, warmup_steps, decay)
        self.seed, self.gene_l2 = seed, gene_l2
        plan = {"lr": lr, "eps": eps, "weight_decay": weight_decay, "gene_l2": gene_l2, "seed": seed}
        self.settings = plan | {"schedule": str(self.schedule)} | (settings or {})
        self.step_values: dict[str, float] = {}  # of the latest batch, over all processes
        self._epoch = EpochMeans()
        self._ended: dict[str, float] = {}  # means of an epoch that is over but not logged yet
        self.activation_checkpointing = activation_checkpointing
        self.speeds: list[dict[str, float]] = []
        self._speed = Speed(module, peak_tflops)
        self._limit = MemoryLimit(effect=_EFFECT, remedy=_REMEDY)
        self._validation_limit = MemoryLimit(effect="What is logged does not depend on it.", remedy=_REMEDY)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep what the training depends on, so that it is not continued as another one, and what was logged."""
        self._check_weights()
        checkpoint[SETTINGS] = self.settings
        logged = history_to_plain(getattr(self.trainer.logger, "history", {}))
        for name, value in self._ended.items():
            logged.setdefault(name, {})[self.current_epoch] = value
        checkpoint[HISTORY] = {"logged": logged, "epoch": self._epoch.state_dict()}
        checkpoint[MOST] = self._limit.most  # decides in which parts dropout draws
        checkpoint[STOPPED] = self.trainer.should_stop and self.trainer.early_stopping_callback is not None

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Go on with the history of the training."""
        history = checkpoint[HISTORY]
        if hasattr(self.trainer.logger, "history"):
            log_again(self.trainer.logger, history["logged"])
        self._epoch.load_state_dict(history["epoch"])
        self._limit.most = checkpoint.get(MOST, math.inf)  # what older versions wrote has none
        self.trainer.should_stop = checkpoint[STOPPED]

    def on_train_start(self) -> None:
        """Set the network up for this training alone."""
        super().on_train_start()
        self.module.network.recomputes = self.activation_checkpointing
        self._speed.n_processes = self.trainer.world_size
        if self._speed.peak_tflops is None:
            self._speed.peak_tflops = known_peak(self.device, self.trainer.precision)

    def training_step(self, batch: TokenBatch, batch_idx: int) -> torch.Tensor:
        """Return the loss of a batch of cells.

        A process that trains alone goes backward here: only then can a batch be done again, in parts, whose memory does
        not suffice on the way back either. The loss that it returns passes no gradient on.
        """
        of_batch = self._over_processes(counts(batch))
        of_step = of_batch
        if isinstance(batch, PartOfStep):
            assert batch.of_step is not None
            of_step = self._over_processes(batch.of_step)
        if self._alone and batch_idx % self.trainer.accumulate_grad_batches == 0:
            self.optimizers(use_pl_optimizer=False).zero_grad()
        done = 0

        def with_gradient(part: TokenBatch) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
            # Of parts but the first, also a function of where they begin, and not of what failed before.
            place = (self.current_epoch, batch_idx, self.global_rank, *([done] if done else []))
            torch.manual_seed(derive_key(self.seed, "dropout", *place))
            losses, own = self._losses(part, "training", self.global_step), counts(part)
            loss = losses.loss
            if losses.extra_metrics:
                loss, _ = self.module.total(self._weighed(losses, part, shares(own, of_step)))
            if self._alone:
                self._go_back(loss)
                loss = loss.detach()
            return loss, {name: x.detach() for name, x in self._weighed(losses, part, shares(own, of_batch)).items()}

        results = []
        for part, result in self._limit.run(batch, with_gradient, self._why_whole()):
            done += part.n_cells
            results.append(result)
        self.step_values = self._values([values for _, values in results], "train")
        self._epoch.add(self.step_values, int(of_batch[0]))
        loss = torch.stack([loss for loss, _ in results]).sum()
        # times that by which Lightning and the exchange of gradients divide
        return _with_gradient(loss * self.trainer.accumulate_grad_batches * self.trainer.world_size)

    @property
    def _alone(self) -> bool:
        """Whether no other process waits for this one's gradients."""
        return isinstance(self.trainer.strategy, SingleDeviceStrategy)

    def _why_whole(self) -> str | None:
        """Return why a batch must not be divided, None where it may be."""
        if not self._alone:
            return "several processes train together"
        coupling = self.module.couples_cells
        return f"{' and '.join(coupling)} sees all cells of a batch at once" if coupling else None

    def _go_back(self, loss: torch.Tensor) -> None:
        """Add a loss's gradient, as Lightning does it: scaled as the precision wants it, and not in it."""
        with all_gradients_or_none(self.module.parameters()), torch.autocast(self.device.type, enabled=False):
            self.trainer.strategy.backward(_with_gradient(loss), None)

    def optimizer_zero_grad(self, epoch: int, batch_idx: int, optimizer: torch.optim.Optimizer) -> None:
        """Forget the gradients of the step before, where the new ones are not there yet."""
        if not self._alone:
            super().optimizer_zero_grad(epoch, batch_idx, optimizer)

    def backward(self, loss: torch.Tensor, *args: Any, **kwargs: Any) -> None:
        """Go backward; out of memory, a process among several stops, as the others would wait for it."""
        try:
            super().backward(loss, *args, **kwargs)
        except RuntimeError as error:
            if self._alone or not is_out_of_memory(error):
                raise
            raise self._limit.failure(
                "The way back of a batch does not fit into memory. Take a smaller batch_size", str(error)
            ) from None

    def _values(self, parts: Sequence[Mapping[str, torch.Tensor]], mode: str) -> dict[str, float]:
        """Return total and objectives of a batch over its parts and all processes, under the names that they are logged by."""
        sums = {name: torch.stack([part[name] for part in parts]).sum() for name in parts[0]}
        total, metrics = torch.zeros(()), sums
        if sums:
            over_all = self._over_processes(torch.stack(list(sums.values())))
            total, metrics = self.module.total(dict(zip(sums, over_all, strict=True)))
        values = {f"{mode}_loss": total} | {f"{name}_{mode}": value for name, value in metrics.items()}
        # One transfer from the device for all.
        return dict(zip(values, torch.stack([x.detach().float() for x in values.values()]).tolist(), strict=True))

    def _weighed(
        self, losses: LossOutput, batch: TokenBatch, share: Mapping[MeanOver, torch.Tensor]
    ) -> dict[str, torch.Tensor]:
        """Return the objectives, each times the share of what it is a mean over."""
        values = losses.extra_metrics or {}
        return {o.name: share[o.mean_over(batch)] * values[o.name] for o in self.module.objectives if o.name in values}

    def _over_processes(self, tensor: torch.Tensor) -> torch.Tensor:
        """Return the sum over all processes; with one, the tensor itself."""
        if self.trainer.world_size == 1:
            return tensor
        return self.trainer.strategy.reduce(tensor.clone(), reduce_op="sum")

    def on_train_epoch_start(self) -> None:
        """Begin new means."""
        self._ended = {}
        self._speed.begin()

    def on_train_batch_end(self, outputs: Any, batch: TokenBatch, batch_idx: int) -> None:
        """Count a batch in."""
        self._speed.add(batch, self.global_step)

    def on_validation_start(self) -> None:
        """Stop the clock: validation's time is not training's."""
        self._speed.pause()

    def on_validation_end(self) -> None:
        """Let the clock run again."""
        self._speed.go_on()

    def on_train_epoch_end(self) -> None:
        """Log the epoch's means."""
        self._ended = self._epoch.means()
        self._epoch = EpochMeans()
        self.log_dict(self._ended, prog_bar=True)  # the same in all processes
        # No part of the history, which is the same for the same training.
        self.speeds.append(self._speed.rates())
        self.log_dict(self.speeds[-1], prog_bar=True, logger=False)

    def on_train_end(self) -> None:
        """Make sure that the last step did no harm."""
        super().on_train_end()
        self.module.network.recomputes = False
        self._check_weights()

    def validation_step(self, batch: TokenBatch, batch_idx: int) -> None:
        """Log the loss of a batch of cells."""
        of_batch = self._over_processes(counts(batch))

        def scored(part: TokenBatch) -> dict[str, torch.Tensor]:
            return self._weighed(self._losses(part, "validation"), part, shares(counts(part), of_batch))

        parts = self._validation_limit.run(batch, scored, self._why_whole())
        values = self._values([values for _, values in parts], "validation")
        # The number of cells weighs the epoch's mean; it is the same in all processes.
        self.log_dict(values, prog_bar=True, on_step=False, on_epoch=True, batch_size=int(of_batch[0]))

    def _losses(self, batch: TokenBatch, mode: str, step: int | None = None) -> LossOutput:
        try:
            return self.module(batch, step=step)[-1]
        except FloatingPointError as error:
            raise FloatingPointError(f"Epoch {self.current_epoch}, step {self.global_step}, {mode}: {error}") from None

    def _check_weights(self) -> None:
        """Raise for weights that a last step has ruined, before they are taken for good ones."""
        bad = [name for name, parameter in self.module.named_parameters() if not parameter.isfinite().all()]
        if bad:
            raise FloatingPointError(
                f"Epoch {self.current_epoch}, step {self.global_step}: weights are no longer finite, those of "
                f"{listed(bad)}; lower the learning rate."
            )

    def configure_gradient_clipping(
        self, optimizer: Any, gradient_clip_val: float | None = None, gradient_clip_algorithm: str | None = None
    ) -> None:
        """Clip the gradient by its norm.

        Lightning does not know that of one that is spread over GPUs, and refuses a fused optimiser in any mixed precision,
        though in bfloat16 nothing is scaled.
        """
        if not gradient_clip_val or gradient_clip_algorithm == "value":
            super().configure_gradient_clipping(optimizer, gradient_clip_val, gradient_clip_algorithm)
        elif isinstance(self.trainer.strategy, FSDPStrategy):
            self.trainer.strategy.model.clip_grad_norm_(gradient_clip_val)  # type: ignore[union-attr, operator]
        elif "bf16" in str(self.trainer.precision):
            nn.utils.clip_grad_norm_(self.module.parameters(), gradient_clip_val)
        else:
            super().configure_gradient_clipping(optimizer, gradient_clip_val, gradient_clip_algorithm)

    def configure_optimizers(self) -> dict[str, Any]:
        """Return Adam with decoupled weight decay and its schedule, stepped at every step."""
        # Gradients that float16 scales cannot be clipped in a fused optimiser.
        self.fused_optimizer = str(self.trainer.precision) != "16-mixed"
        nothing = [{"params": [torch.zeros(1)]}]  # where training gathers statistics alone; torch refuses an empty list
        optimizer = self.get_optimizer_creator()(
            parameter_groups(self.module, self.weight_decay, self.gene_l2) or nothing
        )
        # Not trainer.estimated_stepping_batches: it makes Lightning set its loader up before it has read the loader's
        # state from a checkpoint, which is then never used.
        n_batches = len(self.trainer.datamodule.train_dataloader())
        steps_per_epoch = -(-n_batches // self.trainer.accumulate_grad_batches)
        total_steps = steps_per_epoch * (self.trainer.max_epochs or 1)
        if self.trainer.max_steps > 0:
            total_steps = min(total_steps, self.trainer.max_steps)
        scheduler = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: self.schedule.factor(step, total_steps, steps_per_epoch)
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}


def _with_gradient(loss: torch.Tensor) -> torch.Tensor:
    # Where training gathers statistics alone, nothing has a gradient, and Lightning still goes backward.
    return loss if loss.requires_grad else loss.requires_grad_()


def parameter_groups(module: ScGPTModule, weight_decay: float, gene_l2: float) -> list[dict[str, Any]]:
    """Split the trainable parameters into those that decay, the matrices of linear layers, genes, and the others.

    Torch's AdamW would take the groups, but forget with every state it loads which of them are penalised in the gradient.

    Parameters
    ----------
    module
        What is trained.
    weight_decay
        As in :class:`ScGPTTrainingPlan`.
    gene_l2
        As in :class:`ScGPTTrainingPlan`; genes have a group of their own unless it is 0.

    Returns
    -------
    Groups for :class:`torch.optim.Adam`; those without a parameter are left out.

    Examples
    --------
    >>> from scgpt.module import ScGPTModule
    >>> from scgpt.nn import ScGPTConfig
    >>> from scgpt.train import parameter_groups
    >>> module = ScGPTModule(ScGPTConfig(n_tokens=100, d_model=16, n_heads=2, n_layers=1, d_feed_forward=16))
    >>> [group["weight_decay"] for group in parameter_groups(module, weight_decay=0.1, gene_l2=0.0)]
    [0.1, 0.0]
    """
    decaying = {
        id(parameter)
        for layer in module.modules()
        if isinstance(layer, nn.Linear)
        for name, parameter in layer.named_parameters(recurse=False)
        if name == "weight"
    }
    genes = {id(module.network.genes.embedding.weight)} if gene_l2 else set()
    trainable = [p for p in module.parameters() if p.requires_grad]
    groups = [
        ([p for p in trainable if id(p) in decaying], weight_decay, True),
        ([p for p in trainable if id(p) not in decaying | genes], 0.0, True),
        ([p for p in trainable if id(p) in genes], 2 * gene_l2, False),  # the gradient of gene_l2 times their squares
    ]
    names = ("params", "weight_decay", "decoupled_weight_decay")
    return [dict(zip(names, group, strict=True)) for group in groups if group[0]]
