"""The scGPT model class."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
from anndata import AnnData
from numpy.typing import ArrayLike, NDArray
from scvi import REGISTRY_KEYS, settings
from scvi.data import AnnDataManager
from scvi.data.fields import CategoricalObsField
from scvi.model.base import BaseModelClass
from tqdm.auto import tqdm

from scgpt.data import Cells, GeneMatch, GeneVocab, Tokenizer, match_genes
from scgpt.hub import Checkpoint, LoadReport
from scgpt.module import Objective, ScGPTModule, make_objectives
from scgpt.nn import ScGPTConfig
from scgpt.train import (
    ScGPTTrainingPlan,
    ScGPTTrainRunner,
    TokenDataModule,
    checkpoint_callback,
    latest_checkpoint,
    split_cells,
)

from ._fields import ExpressionField
from ._persistence import PersistenceMixin

logger = logging.getLogger(__name__)

Precision = Literal["auto", "float32", "bfloat16"]

# Cells read from the data set at a time when embedding.
_CELLS_AT_ONCE = 2048
# Tokens in a pass through the network; on a CPU larger temporaries cost more page faults than they save calls.
_TOKENS_PER_PASS = {"cpu": 8_192, "cuda": 262_144}


class SCGPT(PersistenceMixin, BaseModelClass):
    """scGPT, a foundation model of single cells :cite:p:`Cui2024`.

    Parameters
    ----------
    adata
        Data set registered by :meth:`setup_anndata`; its genes become the vocabulary. None for a model made by
        :meth:`from_pretrained`.
    registry
        scvi-tools registry of a model without AnnData.
    checkpoint
        Weights to start from, in place of random ones; :meth:`from_pretrained` passes them.
    n_layers
        Transformer layers.
    d_model
        Width of the transformer.
    n_heads
        Attention heads.
    n_bins
        Number of value bins.
    max_length
        Most tokens of a cell, ``<cls>`` included.
    include_zeros
        Whether genes that are not expressed are tokens too.
    seed
        Of the random weights.
    **network
        Further fields of :class:`~scgpt.nn.ScGPTConfig`.

    Examples
    --------
    >>> SCGPT.setup_anndata(adata, layer="counts")  # doctest: +SKIP
    >>> model = SCGPT(adata)  # doctest: +SKIP
    >>> model.train(max_epochs=30)  # doctest: +SKIP
    >>> adata.obsm["X_scGPT"] = model.get_latent_representation()  # doctest: +SKIP
    """

    _module_cls = ScGPTModule
    _training_plan_cls = ScGPTTrainingPlan
    _data_splitter_cls = TokenDataModule
    _train_runner_cls = ScGPTTrainRunner

    def __init__(
        self,
        adata: AnnData | None = None,
        registry: dict[str, Any] | None = None,
        *,
        checkpoint: Checkpoint | None = None,
        n_layers: int = 3,
        d_model: int = 64,
        n_heads: int = 4,
        n_bins: int = 51,
        max_length: int = 1200,
        include_zeros: bool = False,
        seed: int = 0,
        **network: Any,
    ):
        if adata is None and registry is None:
            raise ValueError(
                "SCGPT needs an AnnData set up by SCGPT.setup_anndata; without one, use SCGPT.from_pretrained."
            )
        super().__init__(adata, registry)
        self.load_report: LoadReport | None = None
        if checkpoint is None:
            self.tokenizer = Tokenizer(
                self._vocab_of_adata(), n_bins=n_bins, max_length=max_length, include_zeros=include_zeros
            )
            config = ScGPTConfig(
                n_tokens=len(self.tokenizer.vocab),
                d_model=d_model,
                n_layers=n_layers,
                n_heads=n_heads,
                **({"d_feed_forward": d_model} | network),
            )
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed)
                self.module = self._module_cls(config)
        else:
            self.tokenizer = checkpoint.tokenizer
            self.load_report = checkpoint.report
            self.module = self._module_cls(checkpoint.config)
            self.module.network.load_state_dict(checkpoint.state_dict)
            self.is_trained_ = True
        self.module.eval()
        config = self.module.network.config
        self._model_summary_string = (
            f"{type(self).__name__} with {config.n_layers} layers, d_model {config.d_model}, {config.n_heads} heads, "
            f"{len(self.vocab.genes)} genes, heads {', '.join(config.heads)}"
        )

    @classmethod
    def setup_anndata(
        cls,
        adata: AnnData,
        *,
        layer: str | None = None,
        batch_key: str | None = None,
        labels_key: str | None = None,
        gene_key: str | None = None,
        gene_mapping: Mapping[str, str] | None = None,
        **kwargs: Any,
    ) -> None:
        """Register a data set for training.

        Parameters
        ----------
        adata
            Cells by genes; ``.uns`` and ``.obs`` receive scvi-tools' bookkeeping.
        layer
            Layer with counts or log-normalised values; ``.X`` by default.
        batch_key
            Column of ``.obs`` with the experimental batch.
        labels_key
            Column of ``.obs`` with the cell type.
        gene_key
            Column of ``.var`` with the gene names, ``"index"`` for its index; by default found by itself where
            there is a vocabulary to match, else the index.
        gene_mapping
            From names in the data to names in the vocabulary.
        **kwargs
            For :meth:`scvi.data.AnnDataManager.register_fields`.

        Raises
        ------
        KeyError
            When a layer or column is not there.
        ValueError
            When a cell lacks its batch.
        """
        setup_method_args = cls._get_setup_method_args(**locals())
        for key, column in (("batch_key", batch_key), ("labels_key", labels_key)):
            if column is not None and column not in adata.obs:
                raise KeyError(f"{key}={column!r} is not a column of .obs; there are {list(adata.obs.columns)}.")
        if batch_key is not None and adata.obs[batch_key].isna().any():
            missing = int(adata.obs[batch_key].isna().sum())
            raise ValueError(f"{missing} cells have no batch in .obs[{batch_key!r}]; fill or drop them.")
        manager = AnnDataManager(
            fields=[
                ExpressionField(REGISTRY_KEYS.X_KEY, layer),
                CategoricalObsField(REGISTRY_KEYS.BATCH_KEY, batch_key),
                CategoricalObsField(REGISTRY_KEYS.LABELS_KEY, labels_key),
            ],
            setup_method_args=setup_method_args,
        )
        manager.register_fields(adata, **kwargs)
        cls.register_manager(manager)

    @property
    def vocab(self) -> GeneVocab:
        """The genes that the model knows."""
        return self.tokenizer.vocab

    def train(
        self,
        max_epochs: int = 30,
        *,
        lr: float | None = None,
        batch_size: int = 32,
        mask_share: float = 0.4,
        objectives: Iterable[str | Objective] | Mapping[str, Any] | None = None,
        ties: Literal["middle", "spread"] = "middle",
        train_size: float = 0.9,
        validation_size: float | None = None,
        early_stopping: bool = False,
        checkpoints: str | Path | None = None,
        checkpoint_every: int = 200,
        seed: int | None = None,
        accelerator: str = "auto",
        devices: int | list[int] | str = "auto",
        plan_kwargs: Mapping[str, Any] | None = None,
        **trainer_kwargs: Any,
    ) -> None:
        """Train on the data set that the model was built with.

        Order of cells, masks, ties and dropout are functions of seed, epoch and step: the same call gives the same
        weights, and so does one that was interrupted and run again with ``checkpoints``.

        Parameters
        ----------
        max_epochs
            Passes over the training cells.
        lr
            Learning rate; by default 1e-4 for a pretrained model, as the authors fine-tune, and 1e-3 from scratch.
        batch_size
            Cells of a step.
        mask_share
            Share of each cell's genes whose values are hidden.
        objectives
            Names, names with weights, or names with settings (see :func:`scgpt.module.make_objectives`); by default
            ``gep`` and, where the network has it, ``gepc``.
        ties
            How tied values are binned in training, see :func:`scgpt.data.bin_values`.
        train_size
            Share of cells to train on.
        validation_size
            Share of cells to validate on; by default the rest.
        early_stopping
            Stop when ``validation_loss`` no longer falls; ``early_stopping_patience`` epochs are waited for.
        checkpoints
            Folder for the state of training. If it holds one, training goes on from there.
        checkpoint_every
            Steps between two states.
        seed
            By default ``scvi.settings.seed``, or 0.
        accelerator
            As in Lightning.
        devices
            As in Lightning.
        plan_kwargs
            For :class:`~scgpt.train.ScGPTTrainingPlan`: ``schedule``, ``warmup_steps``, ``weight_decay``, ...
        **trainer_kwargs
            For :class:`scvi.train.Trainer`: ``gradient_clip_val``, ``precision``, ``accumulate_grad_batches``, ...

        Raises
        ------
        ValueError
            When the model has no AnnData, or a setting is out of range.
        FloatingPointError
            When an objective is no longer finite.
        """
        if self.adata is None:
            raise ValueError(
                "This model has no data to train on. Set a data set up with setup_anndata and pass it: "
                "SCGPT.from_pretrained(..., adata) or SCGPT.load(..., adata)."
            )
        seed = (settings.seed or 0) if seed is None else seed
        if objectives is not None:
            self.module.objectives = make_objectives(objectives)
        self._check_objectives()
        data = self._data_splitter_cls(
            self._registered_cells(),
            replace(self.tokenizer, ties=ties),
            split_cells(self.adata.n_obs, train_size, validation_size, seed),
            batch_size=batch_size,
            mask_share=mask_share,
            seed=seed,
        )
        lr = lr or (1e-4 if self.load_report else 1e-3)
        plan = self._training_plan_cls(self.module, lr=lr, seed=seed, **(plan_kwargs or {}))

        trainer_kwargs = {"gradient_clip_val": 1.0, "early_stopping": early_stopping} | trainer_kwargs
        trainer_kwargs.setdefault("early_stopping_monitor", "validation_loss")
        if data.n_val:
            trainer_kwargs.setdefault("check_val_every_n_epoch", 1)
        if checkpoints is not None:
            callback = checkpoint_callback(checkpoints, checkpoint_every)
            trainer_kwargs["callbacks"] = [*trainer_kwargs.get("callbacks", []), callback]
            trainer_kwargs["enable_checkpointing"] = True
            trainer_kwargs["ckpt_path"] = latest_checkpoint(checkpoints)
        runner = self._train_runner_cls(
            self, plan, data, max_epochs=max_epochs, accelerator=accelerator, devices=devices, **trainer_kwargs
        )
        with torch.random.fork_rng():  # the steps seed torch, which is the user's
            self.module.train()
            runner()

    def get_latent_representation(
        self,
        adata: AnnData | None = None,
        *,
        indices: ArrayLike | None = None,
        layer: str | None = None,
        gene_key: str | None = None,
        gene_mapping: Mapping[str, str] | pd.Series | str | Path | None = None,
        match: GeneMatch | None = None,
        max_length: int | None = None,
        precision: Precision = "auto",
        normalize: bool = True,
        progress_bar: bool = True,
    ) -> NDArray[np.float32]:
        """Embed cells.

        A cell's embedding depends on the cell alone: neither on the other cells, their number and order, nor on the
        order of the genes. Genes that the data set did not measure are absent, not zero.

        Parameters
        ----------
        adata
            Any data set, of any genes; by default the model's own.
        indices
            Rows to embed; all by default.
        layer
            Layer with counts or log-normalised values; by default the one registered by ``setup_anndata``, else
            ``.X``.
        gene_key
            See :func:`scgpt.data.match_genes`.
        gene_mapping
            See :func:`scgpt.data.match_genes`.
        match
            What :meth:`match` gave, if it was called before.
        max_length
            Most tokens of a cell, ``<cls>`` included; by default the model's. Longer cells keep genes in the order of
            a fixed hash.
        precision
            ``"float32"``, ``"bfloat16"`` (autocast), or ``"auto"``: bfloat16 on GPUs that have it, else float32.
        normalize
            Scale to length 1, as the authors do.
        progress_bar
            Show progress.

        Returns
        -------
        ``(n_cells, d_model)`` float32.

        Raises
        ------
        ValueError
            When no gene matches, or values are negative, NaN or infinite.
        KeyError
            When a layer or column is not there.
        """
        adata = self._given_or_own(adata)
        match = match or self.match(adata, gene_key=gene_key, gene_mapping=gene_mapping)
        layer = layer or self.registry.get("setup_args", {}).get("layer")
        cells = Cells(adata, match.token_ids, layer=layer, batch_labels=self._batch_labels(adata))
        index = np.arange(adata.n_obs) if indices is None else np.arange(adata.n_obs)[np.asarray(indices)]
        return self._embed(cells, index, max_length, precision, normalize, progress_bar)

    def _embed(
        self,
        cells: Cells,
        index: NDArray[np.int64],
        max_length: int | None,
        precision: Precision,
        normalize: bool,
        progress_bar: bool,
    ) -> NDArray[np.float32]:
        tokenizer = replace(self.tokenizer, max_length=max_length or self.tokenizer.max_length, ties="middle")
        self.module.eval()
        device = self.device
        result = np.empty((len(index), self.module.network.config.d_model), np.float32)
        done, n_empty = 0, 0
        with tqdm(total=len(index), desc="Embedding", unit="cell", disable=not progress_bar) as progress:
            for rows in np.array_split(index, -(-len(index) // _CELLS_AT_ONCE)) if len(index) else []:
                batch = cells.tokenize(rows, tokenizer)
                n_empty += int((batch.lengths == 1).sum())
                for part in batch.split(_TOKENS_PER_PASS.get(device.type, 65_536)):
                    with _autocast(device, precision):
                        embedding = self.module.embed(part.to(device))
                    if normalize:
                        embedding = torch.nn.functional.normalize(embedding, dim=1)
                    result[done : done + part.n_cells] = embedding.cpu().numpy()
                    done += part.n_cells
                    progress.update(part.n_cells)
        if n_empty:
            logger.warning(
                "%d cells express no gene of the vocabulary; their embedding is that of an empty cell.", n_empty
            )
        return result

    @torch.inference_mode()
    def get_gene_embeddings(self, genes: Iterable[str] | None = None) -> pd.DataFrame:
        """Return the input embeddings of genes, after their layer norm, before any cell is seen.

        Parameters
        ----------
        genes
            Names in the vocabulary; all genes by default.

        Returns
        -------
        ``(n_genes, d_model)`` float32, with the genes as index.

        Raises
        ------
        KeyError
            When a gene is not in the vocabulary.
        """
        names = list(self.vocab.genes) if genes is None else [str(g) for g in genes]
        ids = self.vocab.ids(names)
        if (ids < 0).any():
            lacking = [name for name, i in zip(names, ids, strict=True) if i < 0]
            raise KeyError(f"{len(lacking)} genes are not in the vocabulary, such as {lacking[:5]}.")
        embeddings = self.module.network.genes(torch.from_numpy(ids).to(self.device))
        return pd.DataFrame(embeddings.float().cpu().numpy(), index=pd.Index(names, name="gene"))

    def match(
        self,
        adata: AnnData | None = None,
        *,
        gene_key: str | None = None,
        gene_mapping: Mapping[str, str] | pd.Series | str | Path | None = None,
    ) -> GeneMatch:
        """Report which genes of a data set the model knows, as :func:`scgpt.data.match_genes` does."""
        adata = self._given_or_own(adata)
        args = self.registry.get("setup_args", {})
        gene_key = gene_key or args.get("gene_key")
        gene_mapping = args.get("gene_mapping") if gene_mapping is None else gene_mapping
        return match_genes(adata.var, self.vocab, gene_key=gene_key, gene_mapping=gene_mapping)

    def view_anndata_setup(self, adata: AnnData | None = None, hide_state_registries: bool = False) -> None:
        """Print how a data set was registered; for a model without data, the registry that it was saved with."""
        if adata is None and self.adata is None:
            self.view_registry(hide_state_registries=hide_state_registries)
        else:
            super().view_anndata_setup(adata, hide_state_registries=hide_state_registries)

    def _given_or_own(self, adata: AnnData | None) -> AnnData:
        adata = self.adata if adata is None else adata
        if adata is None:
            raise ValueError("This model has no data of its own; pass an AnnData.")
        return adata

    def _batch_labels(self, adata: AnnData) -> NDArray[np.int64] | None:
        """Return the batch of each cell as the model counts them, where its encoder depends on it."""
        if self.module.network.config.input_norm != "domain":
            return None
        state = self.registry["field_registries"].get(REGISTRY_KEYS.BATCH_KEY, {}).get("state_registry")
        if state is None:
            raise ValueError(
                "This model normalises each batch apart, but the checkpoint does not name its batches; "
                "fine-tune it on your data (from_pretrained(..., adata, fresh=['input_norm', ...])) first."
            )
        column, known = state["original_key"], pd.Index(state["categorical_mapping"])
        if column not in adata.obs:
            raise KeyError(f"This model normalises each batch apart: .obs[{column!r}] must name each cell's batch.")
        labels = known.get_indexer(pd.Index(adata.obs[column]))
        if (labels < 0).any():
            strange = sorted(set(adata.obs[column][labels < 0].astype(str)))
            raise ValueError(f".obs[{column!r}] names batches that the model was not trained on: {strange[:5]}.")
        return labels

    def _registered_cells(self) -> Cells:
        """The model's own data set with its batches and labels, for training."""
        assert self.adata is not None
        get = self.adata_manager.get_from_registry
        return Cells(
            self.adata,
            self.match().token_ids,
            layer=self.registry["setup_args"].get("layer"),
            batch_labels=np.asarray(get(REGISTRY_KEYS.BATCH_KEY)).ravel(),
            labels=np.asarray(get(REGISTRY_KEYS.LABELS_KEY)).ravel(),
        )

    def _vocab_of_adata(self) -> GeneVocab:
        assert self.adata is not None
        key = self.registry["setup_args"].get("gene_key")
        if key not in (None, "index") and key not in self.adata.var:
            raise KeyError(f"gene_key={key!r} is not a column of .var; there are {list(self.adata.var.columns)}.")
        return GeneVocab.from_genes(self.adata.var_names if key in (None, "index") else self.adata.var[key])

    def _check_objectives(self) -> None:
        config = self.module.network.config
        for objective in self.module.objectives:
            off = [head for head in objective.heads if head not in config.heads]
            if off:
                raise ValueError(
                    f"Objective {objective.name!r} needs head {off[0]!r}, which this network does not have; "
                    f"it has {list(config.heads)}."
                )


def _autocast(device: torch.device, precision: Precision) -> torch.autocast:
    if precision not in ("auto", "float32", "bfloat16"):
        raise ValueError(f"precision must be 'auto', 'float32' or 'bfloat16', not {precision!r}.")
    automatic = precision == "auto" and device.type == "cuda" and torch.cuda.is_bf16_supported()
    return torch.autocast(device.type, torch.bfloat16, enabled=automatic or precision == "bfloat16")
