"""The model of perturbations."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import NDArray
from scvi import REGISTRY_KEYS
from scvi.data import AnnDataManager
from scvi.model.base import BaseModelClass

from scgpt._messages import inform, listed
from scgpt.data import (
    Cells,
    Conditions,
    GeneVocab,
    PerturbedCells,
    check_anndata,
    check_log_normalised,
    ids_of,
    in_memory,
    own_names,
    read_mapping,
)
from scgpt.hub import Checkpoint
from scgpt.module import Objective
from scgpt.nn import start_unchanged
from scgpt.train import PairDataModule

from ._base import BaseSCGPT
from ._fields import ExpressionField
from ._persistence import decode
from ._perturbations import PERTURBATIONS_KEY, PerturbationField, PerturbationNames, names_of, pairing_of
from ._recipe import epochs_of
from ._response import ResponseMixin

# Chosen on the pairs of two synthetic sets (benchmarks/_synthetic_perturbations.py) that no benchmark uses.
FROM_SCRATCH: dict[str, Any] = {
    "network": {"norm": "pre", "dropout": 0.0, "gepc": False, "condition_context": True},
    "training": {"lr": 3e-3, "batch_size": 32, "plan_kwargs": {"schedule": "cosine", "warmup_steps": 100}},
    "cells_seen": 70_000,
    "epochs": (5, 20),
}
# The authors' settings.
FINE_TUNING: dict[str, Any] = {
    "training": {"lr": 1e-4, "batch_size": 64, "plan_kwargs": {"schedule": "epoch_decay", "decay": 0.9}},
    "max_epochs": 15,
}
# A pretrained network with pre-norm, such as "mini", learns little at that rate, as was seen for cell types.
FINE_TUNING_PRE_NORM: dict[str, Any] = FINE_TUNING | {
    "training": FINE_TUNING["training"] | {"lr": 1e-3, "plan_kwargs": {"schedule": "cosine", "warmup_steps": 100}}
}

# Of a network without a decoder of perturbations; what it knows of batches and modalities of other data goes, and with it
# the other decoder, which read that.
ANEW: dict[str, Any] = {
    "expression": "affine",
    "gepc": False,
    "zero": False,
    "gep_bins": 0,
    "condition_context": True,
    "batch_embedding": False,
    "adversary": False,
    "n_modalities": 0,
}


class SCGPTPerturbation(ResponseMixin, BaseSCGPT):
    """Predicts the expression of perturbed cells from that of control cells :cite:p:`Cui2024`.

    Every gene is a token with its log-normalised value in a control cell; the tokens of perturbed genes, or ``<cls>`` for
    what acts on the whole cell, carry a condition.

    Parameters
    ----------
    adata
        Data set registered by :meth:`setup_anndata`. None for a model made by :meth:`from_pretrained`.
    registry
        As in :class:`SCGPT`.
    checkpoint
        As in :class:`SCGPT`.
    n_layers
        Transformer layers.
    max_length
        Tokens of a cell in a step of training, ``<cls>`` included; where there are more genes, other ones are drawn for each
        step, and those perturbed are always among them. All genes are predicted at once.
    **kwargs
        As in :class:`SCGPT`. From random weights the network begins by predicting no change.

    Examples
    --------
    >>> import scanpy as sc
    >>> from scgpt.model import SCGPTPerturbation
    >>> adata = sc.datasets.pbmc68k_reduced()[:60].raw.to_adata()[:, ["CD79A", "NKG7", "LYZ", "CD74", "CD3D"]].copy()
    >>> adata.obs["perturbation"] = ["control", "CD79A", "NKG7"] * 20  # made up
    >>> SCGPTPerturbation.setup_anndata(adata, "perturbation")
    >>> model = SCGPTPerturbation(adata, d_model=32, n_heads=2)
    >>> model.train(max_epochs=1, enable_progress_bar=False)
    >>> model.predict(["CD79A", "CD79A+LYZ"], progress_bar=False).shape
    (2, 5)
    >>> model.trained_on
    ['CD79A', 'NKG7']
    """

    _data_splitter_cls = PairDataModule

    def __init__(
        self,
        adata: AnnData | None = None,
        registry: dict[str, Any] | None = None,
        *,
        checkpoint: Checkpoint | None = None,
        n_layers: int = 1,
        max_length: int = 1537,
        **kwargs: Any,
    ):
        super().__init__(adata, registry, checkpoint=checkpoint, n_layers=n_layers, max_length=max_length, **kwargs)
        if self.module.network.config.expression != "affine":
            raise ValueError(
                "This network has no decoder of perturbations: pass adata to from_pretrained, and it starts anew."
            )
        if self.tokenizer.n_bins is not None:  # not one of this kind that was saved
            self.tokenizer = replace(self.tokenizer, n_bins=None, include_zeros=True, max_length=max_length)
        if self.module.network.config.value_encoder == "categorical":
            raise ValueError("value_encoder='categorical' reads bins, and perturbations are predicted in log values.")
        if checkpoint is None:
            start_unchanged(self.module.network)

    @classmethod
    def setup_anndata(
        cls,
        adata: AnnData,
        perturbation_key: str,
        *,
        control: str = "control",
        sep: str = "+",
        treatments: Literal["all"] | Iterable[str] = (),
        direction_key: str | None = None,
        paired_within: str | Sequence[str] = (),
        layer: str | None = None,
        gene_key: str | None = None,
        gene_mapping: Mapping[str, str] | pd.Series | str | Path | None = None,
        **kwargs: Any,
    ) -> None:
        """Register a data set for training.

        Parameters
        ----------
        adata
            Log-normalised values of perturbed and control cells; ``.uns`` and ``.obs`` receive scvi-tools' bookkeeping.
        perturbation_key
            Column of ``.obs`` with the names of perturbed genes, joined by ``sep``. Their order has no meaning, and
            ``control`` among them is left out.
        control
            What stands there for control cells.
        sep
            See there.
        treatments
            Names in this column that are no genes, such as drugs and cytokines, or ``"all"`` when none is. They act on
            the whole cell and may stand beside genes. So can genes that neither data nor vocabulary have; of a treatment
            that no training cell stands under nothing can be predicted.
        direction_key
            Column of ``.obs`` with the direction in which a cell's genes were perturbed (activation, inhibition, knock-out),
            missing where there is none.
        paired_within
            Columns of ``.obs``, such as the cell type or donor: cells are paired with control cells of the same ones.
        layer
            Layer with log-normalised values; ``.X`` by default.
        gene_key
            As in :meth:`SCGPT.setup_anndata`.
        gene_mapping
            As in :meth:`SCGPT.setup_anndata`; it holds for the names of perturbed genes, too.
        **kwargs
            For :meth:`scvi.data.AnnDataManager.register_fields`.

        Raises
        ------
        KeyError
            When a layer or column is not there.
        ValueError
            When there are no control cells, all cells or those of a group lack them, cells have no perturbation, a gene
            stands twice in a combination, or values are raw counts.
        """
        check_anndata(adata)
        gene_mapping = None if gene_mapping is None else dict(read_mapping(gene_mapping) or {})
        paired_within = [paired_within] if isinstance(paired_within, str) else list(paired_within)
        if treatments != "all":
            treatments = [treatments] if isinstance(treatments, str) else list(treatments)
        setup_method_args = cls._get_setup_method_args(**locals())
        check_log_normalised(adata, layer)
        names = PerturbationNames(perturbation_key, control, sep, direction_column=direction_key)
        manager = AnnDataManager(
            fields=[
                ExpressionField(REGISTRY_KEYS.X_KEY, layer),
                PerturbationField(names, treatments, paired_within),
            ],
            setup_method_args=setup_method_args,
        )
        manager.register_fields(adata, **kwargs)
        cls.register_manager(manager)

    @classmethod
    def from_pretrained(
        cls,
        model: str | Path | Checkpoint | BaseModelClass,
        adata: AnnData | None = None,
        *,
        fresh: Iterable[str] = (),
        accelerator: str = "auto",
        device: int | str = "auto",
        **changes: Any,
    ) -> Self:
        """Build a model from a checkpoint of any kind; with ``adata`` what it lacks starts anew.

        That is the decoder, unless it is one of perturbations, and the conditions, unless directions and treatments are the
        same. What a network knows of the batches and modalities of other data is left out. All else is as in
        :meth:`SCGPT.from_pretrained`.
        """
        if adata is not None:
            # Conditions that start anew may be such as cannot be read.
            without = cls.checkpoint_of(model, fresh=["conditions"], n_conditions=1)
            if not cls._has_conditions_of(without, adata):
                model, fresh = without, dict.fromkeys([*fresh, "conditions"])
            changes = {"dropout": 0.0} | changes
            if without.config.expression != "affine":
                fresh = dict.fromkeys([*fresh, "gep"])
                changes = ANEW | changes
                if without.config.input_norm == "domain" and "input_norm" not in changes:
                    fresh, changes = dict.fromkeys([*fresh, "input_norm"]), {"input_norm": "batch"} | changes
        made = super().from_pretrained(model, adata, fresh=fresh, accelerator=accelerator, device=device, **changes)
        if adata is not None and "gep" in fresh:
            start_unchanged(made.module.network)
        return made

    @classmethod
    def _has_conditions_of(cls, checkpoint: Checkpoint, adata: AnnData) -> bool:
        """Whether the conditions of a checkpoint stand for the same as those of a data set."""
        if not checkpoint.registry:
            return False
        fields = (decode(checkpoint.registry), cls._get_most_recent_anndata_manager(adata, required=True).registry)
        states = [x["field_registries"].get(PERTURBATIONS_KEY, {}).get("state_registry") for x in fields]
        if not all(states):
            return False
        own, other = (names_of(state) for state in states)
        return (own.directions, own.treatments) == (other.directions, other.treatments)

    def train(
        self,
        max_epochs: int | None = None,
        *,
        objectives: Iterable[str | Objective] | Mapping[str, Any] | None = None,
        train_size: float = 0.9,
        plan_kwargs: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Train on pairs: a control cell, drawn anew in each epoch, is to become a perturbed cell.

        Control cells are among those to predict, as cells under no perturbation. Pairs and genes are functions of seed,
        epoch, step and cell.

        Parameters
        ----------
        max_epochs
            Passes over the training cells; by default 15 from pretrained weights, as the authors fine-tune, and from scratch
            as many as it takes to see 70,000 cells, but between 5 and 20.
        objectives
            As in :meth:`SCGPT.train`; ``perturb_gep`` by default.
        train_size
            As in :meth:`SCGPT.train`: share of cells, of all perturbations. To hold perturbations out, leave their cells out
            of the data set, see :class:`scgpt.metrics.PerturbationSplit`.
        plan_kwargs
            As in :meth:`SCGPT.train`.
        **kwargs
            As in :meth:`SCGPT.train`, apart from what hides values (``mask_share``, ``drop_share``, ``drop_modality``,
            ``ties``).

        Raises
        ------
        ValueError
            As in :meth:`SCGPT.train`; when values are to be hidden.
        """
        if hiding := sorted({"mask_share", "drop_share", "drop_modality", "ties"} & set(kwargs)):
            raise ValueError(f"{listed(hiding)}: of perturbed cells all values are predicted, and none is hidden.")
        recipe = self._recipe
        if max_epochs is None:
            max_epochs = epochs_of(recipe, train_size * (0 if self.adata is None else self.adata.n_obs))
        defaults = recipe["training"]
        super().train(
            max_epochs,
            objectives=["perturb_gep"] if objectives is None else objectives,
            mask_share=0.0,
            train_size=train_size,
            plan_kwargs=defaults["plan_kwargs"] | dict(plan_kwargs or {}),
            **({"lr": defaults["lr"], "batch_size": defaults["batch_size"]} | kwargs),
        )

    @property
    def _recipe(self) -> dict[str, Any]:
        if self.load_report is None:
            return FROM_SCRATCH
        return FINE_TUNING_PRE_NORM if self.module.network.config.norm == "pre" else FINE_TUNING

    def _registered_cells(self) -> PerturbedCells:  # type: ignore[override]
        assert self.adata is not None
        names, mapping = self.names, self._gene_mapping
        obs = in_memory(self.adata.obs)
        of_cells = names.of(obs)
        keys = list(zip(of_cells["name"], of_cells["direction"], strict=True))
        codes, kinds = pd.factorize(pd.Series(keys))
        return PerturbedCells(
            Cells(self.adata, self.match().token_ids, layer=self.registry["setup_args"].get("layer")),
            cls_id=self.vocab.cls_id,
            cls_value=self.tokenizer.cls_value,
            marks=[names.marks(name, direction, self.vocab, mapping) for name, direction in kinds],
            perturbation_of=codes.astype(np.int64),
            pairing=pairing_of(obs, of_cells["name"].to_numpy() == names.control, self._state["paired_within"]),
        )

    def _cells_to_train_on(self, objectives: tuple[Objective, ...]) -> NDArray[np.int64]:
        assert self.adata is not None
        return np.arange(self.adata.n_obs)

    def _conditions(self, adata: AnnData) -> Conditions:
        """Check what the network's conditions stand for; those of pairs are their own, and cells are embedded under none."""
        names = self.names
        n_rows = self.module.network.config.n_conditions
        if n_rows != names.n_conditions:
            raise ValueError(
                f"The network has {n_rows} conditions and the data {names.n_conditions}, with one for none: start them from "
                "random weights, from_pretrained(..., adata, fresh=['conditions'])."
            )
        trained_on = self._state["trained_on"]
        if lacking := names.unknown(trained_on, self.vocab, self._gene_mapping):
            raise ValueError(
                f"Perturbations name {listed(lacking, 10)}, neither genes of the data nor of the vocabulary. Name the "
                "column of .var that has such names by gene_key=, map them with gene_mapping=, drop these cells, or name "
                "what is no gene, or was not measured, in treatments=."
            )
        known = self.match(adata).token_ids
        genes = sorted({gene for name in trained_on for gene in names.genes(name)})
        ids = ids_of(genes, self.vocab, self._gene_mapping)
        if unmeasured := [gene for gene, i in zip(genes, ids, strict=True) if i not in known]:
            inform(f"Perturbed genes that were not measured are tokens without a value: {listed(unmeasured)}.")
        return Conditions(np.zeros((len(self.vocab), 1), np.int64), np.zeros((adata.n_obs, 0), np.int64))

    def _default_network(self) -> dict[str, Any]:
        return super()._default_network() | {"expression": "affine"} | FROM_SCRATCH["network"]

    def _vocab_of_data(self) -> GeneVocab:
        assert self.adata is not None
        args = self.registry["setup_args"]
        names = own_names(in_memory(self.adata.var), args.get("gene_key"), args.get("gene_mapping"))
        return GeneVocab.from_genes(name for name in names if name)
