"""What a run says of itself while it goes on."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from scgpt._folders import whole_file
from scgpt.data import TokenBatch
from scgpt.module import ScGPTModule
from scgpt.train import EpochMeans, Speed, known_peak


class StepLog(Callback):
    """Writes losses and speed of every few steps, as means over them, to ``log.jsonl`` and to Lightning's loggers.

    Parameters
    ----------
    path
        File with one JSON object a line. Lines after the step from which a run goes on are taken out.
    every
        Steps of the optimiser between two lines.
    module
        What is trained.
    peak_tflops
        Of one device; None for those that are known.

    Attributes
    ----------
    began
        Whether there was a step to train.
    """

    def __init__(self, path: Path, every: int, module: ScGPTModule, peak_tflops: float | None):
        self.path, self.every = path, every
        self._speed = Speed(module, peak_tflops)
        self._means = EpochMeans()
        self.began = False

    def state_dict(self) -> dict[str, Any]:
        """Return the means of steps that are not written yet."""
        return self._means.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from them."""
        self._means.load_state_dict(state_dict)

    def has_validation(self, step: int) -> bool:
        """Return whether validation after a step is in the file."""
        return any(line["step"] == step and "validation_loss" in line for line in self._lines())

    def keep_until(self, step: int) -> None:
        """Take out what a run that was cut off wrote after a step, or wrote in part."""
        kept = [json.dumps(line) + "\n" for line in self._lines() if line["step"] <= step]
        with whole_file(self.path) as part:
            part.write_text("".join(kept), encoding="utf-8")

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Go on from the last state of a run that was cut off."""
        self.began = True
        self._speed.n_processes = trainer.world_size
        if self._speed.peak_tflops is None:
            self._speed.peak_tflops = known_peak(trainer.strategy.root_device, trainer.precision)
        if trainer.is_global_zero:
            self.keep_until(trainer.global_step)
        self._begin(trainer)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: TokenBatch, batch_idx: int
    ) -> None:
        """Count a batch in, and write where it is time."""
        self._means.add(pl_module.step_values, batch.n_cells)  # type: ignore[arg-type]
        self._speed.add(batch, pl_module.global_step)
        whole = (batch_idx + 1) % trainer.accumulate_grad_batches == 0
        if whole and trainer.global_step % self.every == 0:
            self._write(trainer, self._means.means() | self._rates(trainer))
            self._means = EpochMeans()
            self._begin(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write what validation found; its time is not training's."""
        means = {name: float(value) for name, value in trainer.callback_metrics.items() if "validation" in name}
        self._write(trainer, means)
        self._speed.go_on()

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop the clock."""
        self._speed.pause()

    def _lines(self) -> list[dict[str, Any]]:
        """Return the lines of the file that are whole."""
        found = []
        for line in self.path.read_text(encoding="utf-8").splitlines() if self.path.exists() else ():
            with suppress(json.JSONDecodeError):
                found.append(json.loads(line))
        return found

    def _begin(self, trainer: Trainer) -> None:
        self._waited = _waited(trainer)
        self._speed.begin()

    def _rates(self, trainer: Trainer) -> dict[str, float]:
        waited = (_waited(trainer) - self._waited) / self._speed.seconds
        return self._speed.rates() | {"loader_wait": waited, "lr": trainer.optimizers[0].param_groups[0]["lr"]}

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
