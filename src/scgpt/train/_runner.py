"""Runs a training through scvi-tools and Lightning, and continues one that was interrupted."""

from __future__ import annotations

import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pandas as pd
from lightning.pytorch.callbacks import ModelCheckpoint
from scvi.train import Trainer, TrainRunner

from ._quiet import lightning_quiet
from ._states import WholeCheckpoints


class _Trainer(Trainer):
    def __init__(
        self, *args: Any, checkpoint: ModelCheckpoint | None = None, plugins: Sequence[Any] = (), **kwargs: Any
    ):
        with lightning_quiet():
            super().__init__(*args, plugins=[WholeCheckpoints(), *plugins], **kwargs)
        # Handed to scvi-tools' trainer, it would be joined by SaveCheckpoint, which throws away what a resume needs.
        if checkpoint is not None:
            self.callbacks.append(checkpoint)

    def fit(self, *args: Any, **kwargs: Any) -> None:
        with interrupts_raised(), lightning_quiet():
            # Checkpoints of ours hold tensors and plain values; nothing in them needs to be executed.
            super().fit(*args, weights_only=True, **kwargs)


class ScGPTTrainRunner(TrainRunner):
    """:class:`scvi.train.TrainRunner` that keeps Lightning's checkpoints and reads them without executing code.

    Examples
    --------
    >>> import numpy as np
    >>> import scanpy as sc
    >>> from scgpt.data import Cells
    >>> from scgpt.model import SCGPT
    >>> from scgpt.module import make_objectives
    >>> from scgpt.train import ScGPTTrainingPlan, ScGPTTrainRunner, TokenDataModule, split_cells
    >>> adata = sc.datasets.pbmc68k_reduced()[:60].raw.to_adata()[:, :100].copy()
    >>> SCGPT.setup_anndata(adata)
    >>> model = SCGPT(adata, n_layers=1, d_model=32, n_heads=2)
    >>> model.module.objectives = make_objectives(["gep"])
    >>> cells = Cells(adata, model.match().token_ids)
    >>> split = split_cells(np.arange(60), train_size=0.9, validation_size=None, seed=0)
    >>> loaders = TokenDataModule(cells, model.tokenizer, split, batch_size=32, mask_share=0.4, seed=0)
    >>> runner = ScGPTTrainRunner(
    ...     model, ScGPTTrainingPlan(model.module), loaders, max_epochs=1, devices=1, enable_progress_bar=False
    ... )
    >>> runner()  # which is what model.train does, with all of this by default
    >>> model.is_trained, "train_loss" in model.history
    (True, True)
    """

    _trainer_cls = _Trainer

    def __call__(self) -> None:
        """Run or continue the training."""
        # The state to go on from holds the history of this training; the model may hold its beginning, too.
        if self.ckpt_path is not None and hasattr(self.model, "_history_before"):
            self.model.history_ = self.model._history_before
        self.model._history_before = dict(self.model.history_ or {})
        try:
            super().__call__()
        except BaseException:
            self.model.to_device(self.device)  # Lightning has moved it to the CPU
            raise

    def _update_history(self) -> None:
        """Append what was logged to the model's history; scvi-tools' own forgets keys that were not there before."""
        logged = dict(getattr(self.trainer.logger, "history", None) or {})
        history = dict(self.model.history_ or {})
        n_epochs = len(history.get("train_loss", ()))
        for key, new in logged.items():
            new = new.set_index(new.index + n_epochs)
            history[key] = pd.concat([history[key], new]) if key in history else new
        self.model.history_ = history


@contextmanager
def interrupts_raised() -> Iterator[None]:
    """Raise an interrupt by hand, in place of which Lightning ends the process, and leaves it deaf to further ones."""
    handler = signal.getsignal(signal.SIGINT)
    try:
        yield
    except SystemExit as error:
        if not isinstance(error.__context__, KeyboardInterrupt):
            raise
        signal.signal(signal.SIGINT, handler)
        raise KeyboardInterrupt from None
