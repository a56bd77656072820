"""A run of pretraining."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import lightning.pytorch as pl
import torch
from lightning.pytorch.loggers import Logger, TensorBoardLogger, WandbLogger
from lightning.pytorch.strategies import DDPStrategy, FSDPStrategy, Strategy
from lightning.pytorch.utilities import rank_zero_only
from torch.distributed.fsdp.wrap import ModuleWrapPolicy

from scgpt._folders import full_disk_named, read_only_named, remove_left_beside, whole_file
from scgpt._messages import inform, warn_user
from scgpt.corpus import Corpus
from scgpt.hub import Checkpoint, check_target, write_checkpoint
from scgpt.module import ScGPTModule, is_generative, make_objectives
from scgpt.nn import TransformerLayer
from scgpt.train import (
    ScGPTTrainingPlan,
    WholeCheckpoints,
    check_settings,
    checkpoint_callback,
    interrupts_raised,
    latest_checkpoint,
    lightning_quiet,
    remove_other_states,
    training_precision,
)

from ._config import PretrainingConfig
from ._data import CorpusData
from ._log import StepLog
from ._network import starting_point


def pretrain(settings: PretrainingConfig, *, callbacks: Iterable[pl.Callback] = (), progress_bar: bool = True) -> Path:
    """Pretrain a network on a corpus :cite:p:`Cui2024`, or go on with a run that was cut off.

    Order of cells, unknown genes, ties and dropout are functions of seed, epoch and step, and the loss of a step is over
    all its cells: a run that was killed ends with the weights of one that was not, and several processes train as one
    does.

    Parameters
    ----------
    settings
        Of the run. If its folder holds a state of the same run, that goes on.
    callbacks
        Further callbacks for Lightning.
    progress_bar
        Show progress.

    Returns
    -------
    Folder of the model, for :meth:`scgpt.model.SCGPT.from_pretrained`; it is written with every state, and whole at any
    time.

    Raises
    ------
    FileNotFoundError
        When corpus or model are not there.
    ValueError
        When settings do not fit the corpus, the machine, or the run that the folder holds.
    FloatingPointError
        When an objective or a weight is no longer finite. ``states`` holds the last good state.
    MemoryError
        When a batch does not fit into memory and cannot be trained on in parts.
    OSError
        When the disk is full or the folder cannot be written to; what was written before is whole.
    KeyboardInterrupt
        When it is ended by hand. The same call goes on from the last state.

    Examples
    --------
    >>> import scanpy as sc
    >>> import scgpt
    >>> from scgpt.pretraining import PretrainingConfig, pretrain
    >>> sc.datasets.pbmc68k_reduced()[:100].raw.to_adata().write_h5ad("blood.h5ad")
    >>> corpus = scgpt.corpus.build(["blood.h5ad"], "corpus.zarr")
    >>> network = {"d_model": 16, "n_heads": 2, "n_layers": 1, "d_feed_forward": 16}
    >>> settings = PretrainingConfig("corpus.zarr", "run", network=network, batch_size=16, max_steps=2, loggers=[])
    >>> folder = pretrain(settings, progress_bar=False)
    >>> scgpt.model.SCGPT.from_pretrained(folder).module.network.config.d_model
    16
    """
    out = Path(settings.out)
    corpus = Corpus(settings.corpus)
    start = starting_point(settings, corpus)
    module = ScGPTModule(start.config)
    module.network.load_state_dict(start.state_dict)
    module.objectives = make_objectives(settings.objectives)

    plan = ScGPTTrainingPlan(
        module,
        lr=settings.lr,
        weight_decay=settings.weight_decay,
        schedule=settings.schedule,
        warmup_steps=settings.warmup_steps,
        seed=settings.seed,
        compile=settings.compile,
        activation_checkpointing=settings.activation_checkpointing,
        settings=settings.of_result() | {"cells": corpus.digest},
    )
    states, model = out / "states", out / "model"
    latest = latest_checkpoint(states)
    if latest is not None:
        check_settings(latest, plan)
    check_target(model, overwrite=True)  # before the training, not at its first state
    log = StepLog(out / "log.jsonl", settings.log_every, module, settings.peak_tflops)
    own = [
        log,
        _ModelWriter(model, start, settings),
        checkpoint_callback(states, settings.checkpoint_every),
    ]
    go_on = "Free some space and run the same command again: it goes on from the last state."
    with full_disk_named(out, go_on), interrupts_raised(), lightning_quiet():
        _announce(out, settings, corpus, module)
        trainer = _trainer(settings, module, [*own, *callbacks], progress_bar)
        _check_division(settings, trainer.world_size)
        data = CorpusData(corpus, start.tokenizer, settings)
        trainer.fit(plan, datamodule=data, ckpt_path=latest, weights_only=True)
        if not log.began:
            inform(f"The run in {out} is finished; max_epochs or max_steps are reached.")
            log.keep_until(trainer.global_step)
            remove_left_beside(model)
        _keep_last(trainer, states, anew=log.began)
        # A run that was killed at its very end may lack it.
        if corpus.n_cells("held_out") and not trainer.strategy.broadcast(log.has_validation(trainer.global_step)):
            trainer.validate(plan, datamodule=data, verbose=False, weights_only=True)
    return model


class _ModelWriter(pl.Callback):
    """Writes the model beside every state of training, for use while the run goes on."""

    def __init__(self, folder: Path, start: Checkpoint, settings: PretrainingConfig):
        self.folder, self.start = folder, start
        self.extras = {
            "mask_share": settings.shares,
            "unknown": is_generative(make_objectives(settings.objectives)),
            "drop_share": settings.drop_share,
        }

    @rank_zero_only
    def on_save_checkpoint(self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict) -> None:
        """Write the weights that go into the state."""
        weights = {
            name.split("network.", 1)[1]: tensor
            for name, tensor in checkpoint["state_dict"].items()
            if "network." in name
        }
        report = self.start.report.pretrained()
        extras = self.start.extras | self.extras | {"pretraining_steps": trainer.global_step}
        # Ties as users want them: a cell has one embedding.
        tokenizer = replace(self.start.tokenizer, ties="middle")
        write_checkpoint(
            replace(self.start, state_dict=weights, report=report, extras=extras, tokenizer=tokenizer),
            self.folder,
            overwrite=True,
        )


@rank_zero_only
def _announce(out: Path, settings: PretrainingConfig, corpus: Corpus, module: ScGPTModule) -> None:
    """Say what is about to be done, and keep it."""
    with read_only_named(out):
        out.mkdir(parents=True, exist_ok=True)
        with whole_file(out / "config.yaml") as part:
            part.write_text(settings.to_yaml(), encoding="utf-8")
    n_weights = sum(p.numel() for p in module.parameters())
    inform(f"Settings, also in {out / 'config.yaml'}:\n{settings.to_yaml()}")
    inform(f"{corpus}. {n_weights:,} weights: {module.network.config}")
    if not corpus.n_cells("held_out"):
        warn_user("The corpus holds no cells out: nothing will tell whether the model learns more than its own cells.")


def _keep_last(trainer: pl.Trainer, states: Path, *, anew: bool) -> None:
    """Keep the state after the last step, which need not be a multiple of ``checkpoint_every``, in place of the others."""
    last = states / f"step={trainer.global_step}.ckpt"
    if anew or not trainer.strategy.broadcast(last.exists()):
        trainer.save_checkpoint(last, weights_only=False)  # the optimiser's state, too, from which a run goes on
    if trainer.is_global_zero:
        remove_other_states(last)


def _trainer(
    settings: PretrainingConfig, module: ScGPTModule, callbacks: list[pl.Callback], progress_bar: bool
) -> pl.Trainer:
    precision = settings.precision
    if precision == "auto":
        on_gpu = settings.accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available()
        device = torch.device("cuda" if on_gpu else "cpu")
        precision = training_precision(device, module.network.config.d_model)
    return pl.Trainer(
        max_epochs=settings.max_epochs,
        max_steps=settings.max_steps or -1,
        accelerator=settings.accelerator,
        devices=settings.devices,
        num_nodes=settings.nodes,
        strategy=_strategy(settings, module),
        precision=precision,  # type: ignore[arg-type]
        accumulate_grad_batches=settings.accumulate,
        gradient_clip_val=settings.gradient_clip,
        val_check_interval=settings.validate_every * settings.accumulate,
        check_val_every_n_epoch=None,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,  # our loaders know what is theirs
        logger=_loggers(settings),
        log_every_n_steps=settings.log_every,
        callbacks=callbacks,
        plugins=[WholeCheckpoints()],
        default_root_dir=settings.out,
        enable_progress_bar=progress_bar,
        enable_model_summary=False,
    )


def _strategy(settings: PretrainingConfig, module: ScGPTModule) -> str | Strategy:
    if settings.strategy == "fsdp":
        return FSDPStrategy(auto_wrap_policy=ModuleWrapPolicy({TransformerLayer}), state_dict_type="full")
    read = {head for o in module.objectives for head in o.heads}
    own_weights = set(module.network.config.heads) - {"levels"}  # which has those of gepc
    if settings.strategy == "ddp" and not own_weights <= read:
        return DDPStrategy(find_unused_parameters=True)  # heads that nothing trains
    return settings.strategy


def _loggers(settings: PretrainingConfig) -> list[Logger]:
    wanted = settings.loggers
    if wanted is None:
        wanted = ["tensorboard"] if find_spec("tensorboard") else []
    made: list[Logger] = []
    for name in wanted:
        if find_spec(name) is None:
            raise ImportError(f"loggers names {name}, which is not installed: pip install {name}.")
        made.append(
            TensorBoardLogger(settings.out, name="", version="tensorboard")
            if name == "tensorboard"
            else WandbLogger(save_dir=settings.out, name=Path(settings.out).name)
        )
    return made


def _check_division(settings: PretrainingConfig, world_size: int) -> None:
    n_parts = settings.accumulate * world_size
    if settings.batch_size % n_parts:
        raise ValueError(
            f"batch_size={settings.batch_size} cannot be divided among {world_size} processes with "
            f"accumulate={settings.accumulate}; take a multiple of {n_parts}."
        )
