"""What a run says of itself while it goes on."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from scgpt.data import TokenBatch
from scgpt.module import CellPrompt
from scgpt.nn import ScGPTNetwork
from scgpt.train import EpochMeans

# Dense bf16 operations of one device, in 10^12 a second, by what its name holds.
_PEAK_TFLOPS = {"A100": 312.0, "H100 PCIe": 756.0, "H100": 989.0, "H200": 989.0, "L40S": 362.0, "L4": 121.0}


class StepLog(Callback):
    """Writes losses and speed of every few steps, as means over them, to ``log.jsonl`` and to Lightning's loggers.

    Parameters
    ----------
    path
        File with one JSON object a line. Lines after the step from which a run goes on are taken out.
    every
        Steps of the optimiser between two lines.
    network
        What is trained.
    peak_tflops
        Of one device; None for those that are known.

    Attributes
    ----------
    began
        Whether there was a step to train.
    """

    def __init__(self, path: Path, every: int, network: ScGPTNetwork, peak_tflops: float | None):
        self.path, self.every, self.config, self.peak_tflops = path, every, network.config, peak_tflops
        # Looking up an embedding is no arithmetic.
        self._n_weights = sum(p.numel() for p in network.parameters()) - network.genes.embedding.weight.numel()
        self._means = EpochMeans()
        self.began = False

    def state_dict(self) -> dict[str, Any]:
        """Return the means of steps that are not written yet."""
        return self._means.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from them."""
        self._means.load_state_dict(state_dict)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take out what a run that was cut off wrote after its last state."""
        self.began = True
        if self.peak_tflops is None:
            self.peak_tflops = _peak_tflops(trainer)
        if trainer.is_global_zero and self.path.exists():
            lines = self.path.read_text(encoding="utf-8").splitlines()
            kept = [line for line in lines if line.endswith("}") and json.loads(line)["step"] <= trainer.global_step]
            self.path.write_text("".join(f"{line}\n" for line in kept), encoding="utf-8")
        self._begin(trainer)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: TokenBatch, batch_idx: int
    ) -> None:
        """Count a batch in, and write where it is time."""
        self._means.add(pl_module.step_values, batch.n_cells)  # type: ignore[arg-type]
        self._cells += batch.n_cells
        self._tokens += batch.n_tokens
        self._flops += self._flops_of(batch, pl_module)
        whole = (batch_idx + 1) % trainer.accumulate_grad_batches == 0
        if whole and trainer.global_step % self.every == 0:
            self._write(trainer, self._means.means() | self._speed(trainer))
            self._means = EpochMeans()
            self._begin(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write what validation found; its time is not training's."""
        means = {name: float(value) for name, value in trainer.callback_metrics.items() if "validation" in name}
        self._write(trainer, means)
        if trainer.state.fn == "fit":  # else training is over
            self._started += time.perf_counter() - self._validation_started

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop the clock."""
        self._validation_started = time.perf_counter()

    def _begin(self, trainer: Trainer) -> None:
        self._started, self._waited = time.perf_counter(), _waited(trainer)
        self._cells = self._tokens = 0
        self._flops = 0.0

    def _speed(self, trainer: Trainer) -> dict[str, float]:
        seconds = time.perf_counter() - self._started
        speed = {
            "cells_per_s": self._cells * trainer.world_size / seconds,
            "tokens_per_s": self._tokens * trainer.world_size / seconds,
            "loader_wait": (_waited(trainer) - self._waited) / seconds,
            "lr": trainer.optimizers[0].param_groups[0]["lr"],
        }
        if self.peak_tflops:
            speed["mfu"] = self._flops / seconds / (self.peak_tflops * 1e12)
        return speed

    def _flops_of(self, batch: TokenBatch, plan: LightningModule) -> float:
        """Operations of forward and backward passes: 6 for each weight and token, 12 for each width and pair of tokens.

        As :cite:t:`Chowdhery2023` count them, with pairs of tokens of one cell.
        """
        c = self.config
        passes = 1 + any(isinstance(o, CellPrompt) and o.counts_at(plan.global_step) for o in plan.module.objectives)  # type: ignore[union-attr]
        pairs = float((batch.lengths.double() ** 2).sum())
        return passes * (6.0 * self._n_weights * batch.n_tokens + 12.0 * c.n_layers * c.d_model * pairs)

    def _write(self, trainer: Trainer, values: Mapping[str, float]) -> None:
        step = trainer.global_step
        if trainer.is_global_zero:
            line = {"step": step, "epoch": trainer.current_epoch} | {k: _rounded(v) for k, v in values.items()}
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
        for logger in trainer.loggers:
            logger.log_metrics(dict(values), step=step)


def _waited(trainer: Trainer) -> float:
    return trainer.train_dataloader.seconds_waited  # type: ignore[union-attr]


def _rounded(value: float) -> float:
    return float(f"{value:.7g}")  # as exact as float32


def _peak_tflops(trainer: Trainer) -> float | None:
    if trainer.strategy.root_device.type != "cuda" or "bf16" not in str(trainer.precision):
        return None
    name = torch.cuda.get_device_name(trainer.strategy.root_device)
    return next((peak for part, peak in _PEAK_TFLOPS.items() if part in name), None)
