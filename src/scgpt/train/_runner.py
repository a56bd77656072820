"""Runs a training through scvi-tools and Lightning, and continues one that was interrupted."""

from __future__ import annotations

import logging
import pickle
import signal
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from scvi.train import Trainer, TrainRunner

from ._plan import SETTINGS, ScGPTTrainingPlan

logger = logging.getLogger(__name__)


class _Trainer(Trainer):
    def __init__(self, *args: Any, checkpoint: ModelCheckpoint | None = None, **kwargs: Any):
        super().__init__(*args, **kwargs)
        # Handed to scvi-tools' trainer, it would be joined by SaveCheckpoint, which throws away what a resume needs.
        if checkpoint is not None:
            self.callbacks.append(checkpoint)

    def fit(self, *args: Any, **kwargs: Any) -> None:
        # Lightning ends the process when it is interrupted by hand, and leaves it deaf to further interrupts.
        handler = signal.getsignal(signal.SIGINT)
        try:
            # Checkpoints of ours hold tensors and plain values; nothing in them needs to be executed.
            super().fit(*args, weights_only=True, **kwargs)
        except SystemExit as error:
            if not isinstance(error.__context__, KeyboardInterrupt):
                raise
            signal.signal(signal.SIGINT, handler)
            raise KeyboardInterrupt from None


class _StateOfTraining(ModelCheckpoint):
    """Saves between steps of the optimiser alone, and at the end of an epoch after its validation."""

    def on_train_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Any = None, batch_idx: int = 0
    ) -> None:
        # Where gradients wait for more batches, a state would lose them. Before validation, it would lose that.
        is_last = batch_idx + 1 == trainer.num_training_batches
        if not is_last and (batch_idx + 1) % trainer.accumulate_grad_batches == 0:
            super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        super().on_train_batch_end(trainer, pl_module, None, None, trainer.num_training_batches - 1)


class ScGPTTrainRunner(TrainRunner):
    """:class:`scvi.train.TrainRunner` that keeps Lightning's checkpoints and reads them without executing code."""

    _trainer_cls = _Trainer

    def __call__(self) -> None:
        """Run or continue the training."""
        # The state to go on from holds the history of this training; the model may hold its beginning, too.
        if self.ckpt_path is not None and hasattr(self.model, "_history_before"):
            self.model.history_ = self.model._history_before
        self.model._history_before = dict(self.model.history_ or {})
        super().__call__()

    def _update_history(self) -> None:
        """Append what was logged to the model's history; scvi-tools' own forgets keys that were not there before."""
        logged = dict(getattr(self.trainer.logger, "history", None) or {})
        history = dict(self.model.history_ or {})
        n_epochs = len(history.get("train_loss", ()))
        for key, new in logged.items():
            new = new.set_index(new.index + n_epochs)
            history[key] = pd.concat([history[key], new]) if key in history else new
        self.model.history_ = history


def checkpoint_callback(folder: str | Path, every_n_steps: int) -> ModelCheckpoint:
    """Return a callback that keeps the latest state of training in a folder, with all that a resume needs."""
    return _StateOfTraining(
        dirpath=folder, filename="{step}", every_n_train_steps=every_n_steps, enable_version_counter=False
    )


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

    A process that was killed while it wrote leaves an unreadable file, and the one before it.
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
