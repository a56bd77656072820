"""Training a model."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from anndata import AnnData
from numpy.typing import NDArray
from scvi import REGISTRY_KEYS, settings
from scvi.data import AnnDataManager
from scvi.model._utils import parse_device_args
from scvi.train import SaveCheckpoint
from torch import nn

from scgpt._messages import warn_user
from scgpt.data import Cells, Tokenizer, check_whole, derive_key, measured_by
from scgpt.hub import LoadReport
from scgpt.module import Objective, ScGPTModule, default_objectives, is_generative, make_objectives, reads_levels
from scgpt.train import (
    Lora,
    ScGPTTrainingPlan,
    ScGPTTrainRunner,
    TokenDataModule,
    adapted,
    check_settings,
    check_trainable,
    checkpoint_callback,
    frozen,
    latest_checkpoint,
    parts_of,
    split_cells,
    training_precision,
)

from ._query import check_surgery

UNKNOWN_SHARES = (0.25, 0.5, 0.75)  # as the authors pretrain


class TrainingMixin:
    """``train`` for models around an :class:`~scgpt.module.ScGPTModule`."""

    _training_plan_cls = ScGPTTrainingPlan
    _data_splitter_cls = TokenDataModule
    _train_runner_cls = ScGPTTrainRunner

    module: ScGPTModule
    tokenizer: Tokenizer
    load_report: LoadReport | None
    extras: dict[str, Any]
    is_trained: bool
    registry: dict[str, Any]
    adata: AnnData | None
    adata_manager: AnnDataManager
    summary_stats: Any

    def train(
        self,
        max_epochs: int = 30,
        *,
        lr: float | None = None,
        batch_size: int = 32,
        mask_share: float | Sequence[float] | None = None,
        drop_share: float | None = None,
        drop_modality: float = 0.0,
        objectives: Iterable[str | Objective] | Mapping[str, Any] | None = None,
        ties: Literal["middle", "spread"] = "middle",
        freeze: Iterable[str] = (),
        lora: int | Mapping[str, Any] | None = None,
        train_size: float = 0.9,
        validation_size: float | None = None,
        early_stopping: bool = False,
        checkpoints: str | Path | None = None,
        checkpoint_every: int = 200,
        seed: int | None = None,
        accelerator: str = "auto",
        devices: int | list[int] = 1,
        precision: str | int = "auto",
        plan_kwargs: Mapping[str, Any] | None = None,
        **trainer_kwargs: Any,
    ) -> None:
        """Train on the data set that the model was built with.

        Order of cells, masks, ties and dropout are functions of seed, epoch and step: the same call gives the same
        weights, and so does one that was interrupted and run again with ``checkpoints``. Epochs count from 0 in every
        call: to train longer in a second call, give it another seed.

        Parameters
        ----------
        max_epochs
            Passes over the training cells.
        lr
            Learning rate; by default 1e-4 for a model loaded from a checkpoint, as the authors fine-tune, 1e-3 for one
            that started from random weights, and 1e-2 where only new batches are trained (``load_query_data``).
        batch_size
            Cells of a step.
        mask_share
            Share of each cell's genes whose values are hidden, or several, of which one is drawn for each step; 0.4 by
            default, and 0.25, 0.5 and 0.75 for the objective ``gen``.
        drop_share
            Share of each cell's genes that are left out of its tokens first; 0 by default. Steps take less time, and
            what is asked of the cell embedding (``zero``) can no longer be read off the input.
        drop_modality
            Chance of each cell of several modalities that one of them is left out of its tokens, so that the others learn
            to tell what it would (``zero``, ``levels``).
        objectives
            Names, names with weights, or names with settings (see :func:`scgpt.module.make_objectives`); by default
            ``gep`` and, where the network has it, ``gepc``: values of masked genes. ``gen`` asks for those of unknown
            genes, which no other gene sees.
        ties
            How tied values are binned in training, see :func:`scgpt.data.bin_values`.
        freeze
            Parts of the network that stay bit for bit as they are, by the beginning of their names in its state dict:
            ``"genes"``, ``"layers.0"``, ``"layers.0.attention"``, ``"gep"``, ...; ``"embeddings"`` is all that a token
            is made of. A frozen ``input_norm`` normalises with the statistics that it has.
        lora
            Rank of low-rank adapters :cite:p:`Hu2022`, or a mapping of :class:`~scgpt.train.Lora`'s settings. Only
            they and the parts made for a task are trained (``gep``, ``gepc``, ``cls``, ``dar``, ``batches``,
            ``modalities``, and those that started ``fresh``); at the end they are merged into the weights. Needs
            ``pip install 'scgpt-tools[peft]'``.
        train_size
            Share of cells to train on.
        validation_size
            Share of cells to validate on; by default the rest.
        early_stopping
            Stop when ``validation_loss`` no longer falls; ``early_stopping_patience`` epochs are waited for.
        checkpoints
            Folder for the state of training. If it holds one of the same training, that goes on from there.
        checkpoint_every
            Steps between two states.
        seed
            By default ``scvi.settings.seed``, or 0.
        accelerator
            As in Lightning.
        devices
            The one device to train on: 1, or a list with its number.
        precision
            As in Lightning, or ``"auto"``: ``"bf16-mixed"`` on devices that compute in bfloat16, on a CPU for networks of
            a width of 256 or more; else ``"32-true"``.
        plan_kwargs
            For :class:`~scgpt.train.ScGPTTrainingPlan`: ``schedule``, ``warmup_steps``, ``weight_decay``, ...
        **trainer_kwargs
            For :class:`scvi.train.Trainer`: ``gradient_clip_val`` (1 by default), ``accumulate_grad_batches`` (see
            :class:`~scgpt.train.ScGPTTrainingPlan`), ``callbacks``, ...

        Raises
        ------
        ValueError
            When the model has no AnnData, a setting is out of range, a part of the network is unknown, or all that an
            objective could train is frozen.
        ImportError
            When ``lora`` is asked for and peft is not installed.
        FloatingPointError
            When an objective or a weight is no longer finite. ``checkpoints`` holds the last good state.
        OSError
            When the disk of ``checkpoints`` is full or cannot be written to; the last state stays.
        KeyboardInterrupt
            When it is ended by hand. The model has learnt what it has, and can be used and saved; the same call goes on
            from the last state in ``checkpoints``.
        MemoryError
            When a batch does not fit into memory and cannot be trained on in parts.

        Examples
        --------
        >>> import scanpy as sc
        >>> from scgpt.model import SCGPT
        >>> adata = sc.datasets.pbmc68k_reduced()[:60].raw.to_adata()[:, :100].copy()
        >>> SCGPT.setup_anndata(adata)
        >>> model = SCGPT(adata, n_layers=1, d_model=32, n_heads=2)
        >>> model.train(max_epochs=2, objectives={"gep": 1, "ecs": 10}, checkpoints="run", enable_progress_bar=False)
        >>> model.history["validation_loss"].shape  # the same call after a crash goes on from "run"
        (2, 1)
        """
        if self.adata is None:
            raise ValueError(
                f"This model has no data to train on. Set a data set up with {self._setup_method} and pass it to "  # type: ignore[attr-defined]
                f"{type(self).__name__}.from_pretrained or .load."
            )
        if devices != 1 and not (isinstance(devices, list) and len(devices) == 1):
            raise ValueError(f"devices={devices!r}: training on several devices is not supported yet; pass 1.")
        if any(isinstance(callback, SaveCheckpoint) for callback in trainer_kwargs.get("callbacks", [])):
            raise ValueError("SaveCheckpoint cannot be resumed from; pass checkpoints='folder' instead.")
        if "ckpt_path" in trainer_kwargs:
            raise TypeError(
                "ckpt_path is chosen here: pass checkpoints='folder', and training goes on from what it holds."
            )
        if precision == "auto":
            device = parse_device_args(accelerator, devices, return_device="torch", validate_single_device=True)[-1]
            precision = training_precision(device, self.module.network.config.d_model)
        seed = (settings.seed or 0) if seed is None else seed
        if not isinstance(max_epochs, int | np.integer) or max_epochs < 0:  # Lightning takes -1 for no end
            raise ValueError(f"max_epochs must be a whole number of at least 0, not {max_epochs!r:.50}.")
        max_epochs = int(max_epochs)
        chosen = default_objectives(self.module.network.config) if objectives is None else make_objectives(objectives)
        self._check_objectives(chosen)
        check_surgery(self.module.network, chosen)
        if lora and self.module.network.n_fixed_batches is not None:
            raise ValueError("Adapters would change weights that load_query_data fixed; pass unfrozen=True there.")
        n_fixed = self.module.network.n_fixed_batches
        self.module.objectives = chosen
        network = self.module.network
        freeze, adapters = parts_of(network, freeze), Lora.of(lora)
        if adapters is not None and not self.is_trained:
            warn_user("lora adapts weights that were trained; those of this model are random.")
        accumulate = trainer_kwargs.get("accumulate_grad_batches") or 1
        tokenizer = replace(self.tokenizer, ties=ties)
        # What load_query_data left to train goes on under the conditions that the model was trained under.
        before = {} if n_fixed is None else self.extras
        unknown = is_generative(chosen)
        if mask_share is None:
            mask_share = before.get("mask_share", UNKNOWN_SHARES if unknown else 0.4)
        if isinstance(mask_share, Sequence):
            mask_share = tuple(mask_share)
        drop_share = before.get("drop_share", 0.0) if drop_share is None else drop_share
        split = split_cells(self._cells_to_train_on(chosen), train_size, validation_size, seed)
        cells = self._registered_cells()
        data = self._data_splitter_cls(
            cells,
            tokenizer,
            split,
            batch_size=batch_size,
            mask_share=mask_share,
            unknown=unknown,
            drop_share=drop_share,
            drop_modality=drop_modality,
            seed=seed,
            levels=reads_levels(chosen, include_zeros=tokenizer.include_zeros),
            accumulate=accumulate,
        )
        if early_stopping and not data.n_val:
            raise ValueError("early_stopping watches validation cells, but there are none; lower train_size.")
        if lr is None:
            lr = 1e-2 if n_fixed is not None else 1e-4 if self.load_report else 1e-3
        depends_on = {
            "network": str(self.module.network.config),
            "fixed_batches": n_fixed,
            "objectives": str(chosen),
            "tokenizer": str(tokenizer.settings()),
            "vocabulary": _digest("\n".join(self.tokenizer.vocab)),
            "cells": _digest("\n".join(self.adata.obs_names[split.train])),
            "conditions": cells.conditions.digest(split.train) if cells.conditions else None,
            # the schedule that depends on it
            "max_epochs": max_epochs if (plan_kwargs or {}).get("schedule") == "cosine" else None,
            "precision": str(precision),
            "gradient_clip_val": trainer_kwargs.get("gradient_clip_val", 1.0),
            "batch_size": batch_size,
            "mask_share": mask_share,
            "drop_share": drop_share,
            "drop_modality": drop_modality,
            "accumulate_grad_batches": accumulate,
            "freeze": sorted(freeze),
            "lora": str(adapters),
        }
        check_whole(max_epochs, "max_epochs", 0)
        plan_settings: dict[str, Any] = {"lr": lr, "seed": seed} | dict(plan_kwargs or {})
        trainer_kwargs = {"gradient_clip_val": 1.0, "early_stopping": early_stopping} | trainer_kwargs
        trainer_kwargs.setdefault("early_stopping_monitor", "validation_loss")
        if data.n_val:
            trainer_kwargs.setdefault("check_val_every_n_epoch", 1)
        latest = None if checkpoints is None else latest_checkpoint(checkpoints)
        if checkpoints is not None:
            trainer_kwargs["checkpoint"] = checkpoint_callback(checkpoints, checkpoint_every)
            trainer_kwargs["ckpt_path"] = latest
        with (
            _in_training(self.module),
            # The steps seed torch, which is the user's.
            torch.random.fork_rng(devices=range(torch.cuda.device_count())),
            frozen(network, freeze),
            adapted(network, adapters, seed=derive_key(seed, "adapters"), frozen=freeze, fresh=self._fresh_parts()),
        ):
            if freeze:  # without it, surgery may leave nothing but statistics to gather
                check_trainable(network, chosen)
            plan = self._training_plan_cls(self.module, settings=depends_on, **plan_settings)
            if latest is not None:
                check_settings(latest, plan)
            runner = self._train_runner_cls(
                self,
                plan,
                data,
                max_epochs=max_epochs,
                accelerator=accelerator,
                devices=devices,
                precision=precision,
                **trainer_kwargs,
            )
            try:
                runner()
            finally:
                if (
                    runner.trainer.global_step
                ):  # also where it was ended by hand or an error: the weights are others now
                    self.is_trained_ = True
                    self.extras |= {"mask_share": mask_share, "unknown": unknown, "drop_share": drop_share}
                    if self.load_report is not None:
                        self.load_report = self.load_report.fine_tuned()

    def _fresh_parts(self) -> tuple[str, ...]:
        return () if self.load_report is None else self.load_report.fresh

    def _cells_to_train_on(self, objectives: tuple[Objective, ...]) -> NDArray[np.int64]:
        """Return the rows of the data set to train and validate on: those with a label where types are to be learnt."""
        assert self.adata is not None
        state = self.adata_manager.get_state_registry(REGISTRY_KEYS.LABELS_KEY)
        if "cls" not in [o.name for o in objectives] or "unlabeled_category" not in state:
            return np.arange(self.adata.n_obs)
        labels = np.asarray(self.adata_manager.get_from_registry(REGISTRY_KEYS.LABELS_KEY)).ravel()
        return np.flatnonzero(labels < len(state.categorical_mapping) - 1)

    def _registered_cells(self) -> Cells:
        """The model's own data set with its batches and labels, for training."""
        assert self.adata is not None
        self.adata_manager.validate()  # another setup of the same AnnData may have written its own codes
        get = self.adata_manager.get_from_registry
        batches = self.adata_manager.get_state_registry(REGISTRY_KEYS.BATCH_KEY).categorical_mapping
        return Cells(
            self.adata,
            self.match().token_ids,  # type: ignore[attr-defined]
            layer=self.registry["setup_args"].get("layer"),
            batch_labels=np.asarray(get(REGISTRY_KEYS.BATCH_KEY)).ravel(),
            labels=np.asarray(get(REGISTRY_KEYS.LABELS_KEY)).ravel(),
            measured=measured_by(self.adata, self.registry["setup_args"].get("measured_key"), batches),
            conditions=self._conditions(self.adata),  # type: ignore[attr-defined]
        )

    def _check_objectives(self, objectives: tuple[Objective, ...]) -> None:
        """Raise where the network lacks a head of an objective, or the head does not fit the data."""
        config, stats = self.module.network.config, self.summary_stats
        for objective in objectives:
            off = [head for head in objective.heads if head not in config.heads]
            if off:
                raise ValueError(
                    f"Objective {objective.name!r} needs head {off[0]!r}, which this network does not have; "
                    f"it has {list(config.heads)}."
                )
        names = [o.name for o in objectives]
        if "cls" in names:
            state = self.adata_manager.get_state_registry(REGISTRY_KEYS.LABELS_KEY)
            # The unlabelled category is no class; cells of it would be taught one that the network lacks.
            n_labels = stats.n_labels - ("unlabeled_category" in state)
            if config.n_classes != n_labels:
                raise ValueError(
                    f"The network has {config.n_classes} classes and the data {n_labels}: pass n_classes=."
                )
        uses_batches = config.batch_embedding or config.input_norm == "domain" or "dar" in names
        if uses_batches and config.n_batches != stats.n_batch:
            raise ValueError(
                f"The network has {config.n_batches} batches and the data {stats.n_batch}: pass n_batches=, or "
                "setup_anndata(..., batch_key=...)."
            )
        if "gep" in names and config.gep_bins and config.gep_bins != self.tokenizer.n_bins:
            raise ValueError(
                f"The network chooses among gep_bins={config.gep_bins} bins and the tokenizer makes "
                f"n_bins={self.tokenizer.n_bins}: cross-entropy needs binned values, and as many bins."
            )
        if is_generative(objectives) and not config.n_flags:
            raise ValueError(
                "Objective 'gen' needs an embedding of unknown genes, which this network does not have: pass n_flags=2, "
                "and fresh=['flags'] where the weights come from a checkpoint."
            )
        if "levels" in names and self.tokenizer.include_zeros:
            raise ValueError("Objective 'levels' is for models without zeros as tokens; with them use 'gepc'.")
        if "zero" in names and not self.tokenizer.include_zeros and not config.gepc:
            raise ValueError("Objective 'zero' asks the cell embedding where zeros are left out: it needs gepc=True.")


@contextmanager
def _in_training(module: nn.Module) -> Iterator[None]:
    module.train()
    try:
        yield
    finally:
        module.eval()


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
