"""States of training on disk: the latest of each training, whole, and read without executing code."""

from __future__ import annotations

import io
import logging
import pickle
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.plugins import TorchCheckpointIO

from scgpt._folders import full_disk_named, read_only_named, whole_file

from ._plan import SETTINGS, ScGPTTrainingPlan

logger = logging.getLogger(__name__)


class WholeCheckpoints(TorchCheckpointIO):
    """Writes checkpoints beside their place, where Lightning writes to the disk of temporary files first."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Write a checkpoint, whole or not at all.

        Raises
        ------
        OSError
            When the disk is full or the folder cannot be written to.
        """
        path = Path(path)
        content = io.BytesIO()
        torch.save(checkpoint, content)
        what_now = "Free some space and repeat the call: training goes on from the last state."
        with full_disk_named(path.parent, what_now), read_only_named(path.parent):
            path.parent.mkdir(parents=True, exist_ok=True)
            with whole_file(path) as part:
                part.write_bytes(content.getvalue())  # a buffer of it that is part of an error would crash Python


class _StateOfTraining(ModelCheckpoint):
    """Saves between steps of the optimiser alone, and where there is a validation after it."""

    _waits = False

    def on_train_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Any = None, batch_idx: int = 0
    ) -> None:
        # Where gradients wait for more batches, a state would lose them. Before validation, it would lose that.
        is_last = batch_idx + 1 == trainer.num_training_batches
        if not is_last and (batch_idx + 1) % trainer.accumulate_grad_batches == 0:
            self._waits = _validates_now(trainer)
            if not self._waits:
                self._save_if_due(trainer, pl_module, outputs, batch, batch_idx)

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        if self._waits:
            self._waits = False
            self._save_if_due(trainer, pl_module, None, None, 0)

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        self._save_if_due(trainer, pl_module, None, None, trainer.num_training_batches - 1)

    def _save_if_due(self, trainer: Any, *args: Any) -> None:
        before = self.best_model_path
        super().on_train_batch_end(trainer, *args)
        if self.best_model_path != before and trainer.is_global_zero:
            remove_other_states(Path(self.best_model_path))


def _validates_now(trainer: Any) -> bool:
    """Whether this batch, which is not the last of its epoch, is one that validation follows."""
    if trainer.check_val_every_n_epoch is not None or not sum(trainer.num_val_batches):
        return False
    return (trainer.fit_loop.total_batch_idx + 1) % trainer.val_check_batch == 0


def checkpoint_callback(folder: str | Path, every_n_steps: int) -> ModelCheckpoint:
    """Return a callback that keeps the latest state of training in a folder, with all that a resume needs.

    Parameters
    ----------
    folder
        Where the state is written, as ``step=<n>.ckpt``; the one before is removed then.
    every_n_steps
        Steps of the optimiser between two states.

    Returns
    -------
    A callback for Lightning's trainer.

    Examples
    --------
    >>> from scgpt.train import checkpoint_callback
    >>> callback = checkpoint_callback("run", every_n_steps=200)  # among the callbacks of a Lightning trainer
    >>> callback.dirpath.endswith("run")
    True
    """
    return _StateOfTraining(
        dirpath=folder, filename="{step}", every_n_train_steps=every_n_steps, enable_version_counter=False
    )


def remove_other_states(latest: Path) -> None:
    """Remove all states of a folder but one: Lightning keeps that which it went on from, and killed processes leave theirs."""
    for path in {*latest.parent.glob("step=*.ckpt"), *latest.parent.glob(".step=*.ckpt.part")} - {latest}:
        path.unlink()


def check_settings(checkpoint: Path, plan: ScGPTTrainingPlan) -> None:
    """Raise where a state of training belongs to another training than the one planned.

    Raises
    ------
    ValueError
        When data, network or settings differ.
    """
    state = torch.load(checkpoint, map_location="cpu", weights_only=True, mmap=True)
    saved = state.get(SETTINGS, {}) if isinstance(state, dict) else {}
    differing = sorted(k for k in saved.keys() | plan.settings.keys() if saved.get(k) != plan.settings.get(k))
    if differing:
        raise ValueError(
            f"{checkpoint.parent} holds the state of another training: {', '.join(differing)} differ. Pass the same "
            "data and settings to go on, or another folder of checkpoints to start anew."
        )
    logger.info("Training goes on from %s.", checkpoint)


def latest_checkpoint(folder: str | Path) -> Path | None:
    """Return the newest readable state of training in a folder, None if there is none.

    One that is damaged, as by a copy that was cut off, is passed over.

    Parameters
    ----------
    folder
        What :func:`checkpoint_callback` wrote into.

    Returns
    -------
    Path of the state, for the ``ckpt_path`` of a trainer.

    Examples
    --------
    >>> from scgpt.train import latest_checkpoint
    >>> latest_checkpoint("run") is None  # nothing was trained there
    True
    """
    for path in sorted(Path(folder).glob("*.ckpt"), key=lambda p: p.stat().st_mtime_ns, reverse=True):
        try:
            torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        except pickle.UnpicklingError:
            logger.warning(
                "%s holds more than tensors and plain values; as it could execute code, it is passed over.", path
            )
        except (RuntimeError, EOFError, OSError):
            logger.warning("%s is incomplete and is passed over.", path)
        else:
            return path
    return None
