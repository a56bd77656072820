"""Runs a training through scvi-tools and Lightning, and continues one that was interrupted."""

from __future__ import annotations

import logging
import pickle
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from scvi.train import Trainer, TrainRunner

logger = logging.getLogger(__name__)


class _Trainer(Trainer):
    def fit(self, *args: Any, **kwargs: Any) -> None:
        # Checkpoints of ours hold tensors and plain values; nothing in them needs to be executed.
        super().fit(*args, weights_only=True, **kwargs)


class ScGPTTrainRunner(TrainRunner):
    """:class:`scvi.train.TrainRunner` whose checkpoints are read without executing code."""

    _trainer_cls = _Trainer


def checkpoint_callback(folder: str | Path, every_n_steps: int) -> ModelCheckpoint:
    """Return a callback that keeps the latest state of training in a folder.

    It is Lightning's own, which keeps what a resume needs; scvi-tools' ``SaveCheckpoint`` throws that away.
    """
    return ModelCheckpoint(
        dirpath=folder, filename="{step}", every_n_train_steps=every_n_steps, enable_version_counter=False
    )


def latest_checkpoint(folder: str | Path) -> Path | None:
    """Return the newest readable state of training in a folder, None if there is none.

    A process that was killed while it wrote leaves an unreadable file, and the one before it.
    """
    for path in sorted(Path(folder).glob("*.ckpt"), key=lambda p: p.stat().st_mtime_ns, reverse=True):
        try:
            torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        except (RuntimeError, EOFError, OSError, pickle.UnpicklingError):
            logger.warning("%s is incomplete and is passed over.", path)
        else:
            return path
    return None
