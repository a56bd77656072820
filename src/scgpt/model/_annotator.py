"""The model that names cell types."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import ArrayLike, NDArray
from scipy.special import softmax
from scvi import REGISTRY_KEYS
from scvi.model.base import BaseModelClass

from scgpt._messages import inform, warn_user
from scgpt.data import GeneMatch, as_text
from scgpt.hub import Checkpoint
from scgpt.module import Cls, Objective, make_objectives
from scgpt.nn import start_from_genes

from ._calibration import fit_temperature
from ._embedding import _rows
from ._passes import Precision
from ._recipe import epochs_of
from ._scgpt import SCGPT

# Chosen on inner folds of the training cells of pbmc_facs. Few cells are learnt by heart long before attention has learnt
# anything. What keeps a network from it is a cell embedding that begins as a mean of genes (``start_from_genes``,
# "weighted"), in which those that tell nothing shrink ("joint", ``gene_l2``), as they do in a logistic regression. That mean
# is nearly the same for all cells: hence its norm.
FROM_SCRATCH: dict[str, Any] = {
    "network": {
        "norm": "pre",
        "gene_norm": "joint",
        "dropout": 0.0,
        "pooling": "weighted",
        "classifier_norm": True,
    },
    "training": {
        "lr": 2e-3,
        "mask_share": 0.0,
        "objectives": {"cls": 1},
        # A larger eps: what only a few cells express moves less.
        "plan_kwargs": {"schedule": "cosine", "warmup_steps": 100, "eps": 1e-4, "gene_l2": 0.01},
    },
    "cells_seen": 25_000,
    "epochs": (3, 40),
}
# The authors' settings.
FINE_TUNING: dict[str, Any] = {
    "training": {
        "lr": 1e-4,
        "mask_share": 0.0,
        "objectives": {"cls": 1},
        "plan_kwargs": {"schedule": "epoch_decay", "decay": 0.9},
    },
    "max_epochs": 10,
}
# A pretrained network with pre-norm, such as "mini", learns little at that rate: macro F1 .70 on an inner fold of
# kang_8donors, against .77 with these.
FINE_TUNING_PRE_NORM: dict[str, Any] = FINE_TUNING | {
    "training": FINE_TUNING["training"] | {"lr": 1e-3, "plan_kwargs": {"schedule": "cosine", "warmup_steps": 100}},
}


class SCGPTAnnotator(SCGPT):
    """Names the types of cells, after those of cells that are known :cite:p:`Cui2024`.

    Parameters
    ----------
    adata
        Data set registered by :meth:`setup_anndata`, with the labels.
    registry
        As in :class:`SCGPT`.
    checkpoint
        As in :class:`SCGPT`.
    n_layers
        Transformer layers.
    **kwargs
        As in :class:`SCGPT`. From random weights the network begins as a mean of gene embeddings
        (:func:`scgpt.nn.start_from_genes`).

    Examples
    --------
    >>> import scanpy as sc
    >>> from scgpt.model import SCGPTAnnotator
    >>> adata = sc.datasets.pbmc68k_reduced().raw.to_adata()[:, :100]
    >>> known, query = adata[:80].copy(), adata[80:90].copy()
    >>> SCGPTAnnotator.setup_anndata(known, labels_key="bulk_labels")
    >>> model = SCGPTAnnotator(known, d_model=32, n_heads=2)  # or from_pretrained("whole-human", known)
    >>> model.train(max_epochs=1, enable_progress_bar=False)
    >>> query.obs["cell_type"] = model.predict(query, progress_bar=False)
    >>> model.predict(query, soft=True, progress_bar=False).shape, len(model.labels)
    ((10, 9), 9)
    """

    def __init__(
        self,
        adata: AnnData | None = None,
        registry: dict[str, Any] | None = None,
        *,
        checkpoint: Checkpoint | None = None,
        n_layers: int = 1,
        **kwargs: Any,
    ):
        super().__init__(adata, registry, checkpoint=checkpoint, n_layers=n_layers, **kwargs)
        if checkpoint is None and self.module.network.config.norm == "pre":
            start_from_genes(self.module.network)
        self._labels = _labels_of(self.registry)
        n_classes = self.module.network.config.n_classes
        if len(self._labels) != n_classes:
            raise ValueError(
                f"The network has {n_classes} classes and its data name {len(self._labels)} types: start the classifier "
                "from random weights, from_pretrained(..., adata, fresh=['cls'])."
            )

    @classmethod
    def setup_anndata(  # type: ignore[override]
        cls, adata: AnnData, *, labels_key: str, unlabeled_category: str = "Unknown", **kwargs: Any
    ) -> None:
        """Register a data set for training.

        Parameters
        ----------
        adata
            As in :meth:`SCGPT.setup_anndata`.
        labels_key
            Column of ``.obs`` with the cell type.
        unlabeled_category
            What stands there for cells of unknown type.
        **kwargs
            As in :meth:`SCGPT.setup_anndata`.

        Raises
        ------
        KeyError
            When a layer or column is not there.
        ValueError
            When a cell's label is missing, or the known cells are of fewer than two types.
        """
        if labels_key in adata.obs and "source_registry" not in kwargs:
            known = set(as_text(pd.Series(adata.obs[labels_key]), labels_key).dropna()) - {str(unlabeled_category)}
            if len(known) < 2:
                raise ValueError(
                    f".obs[{labels_key!r}] names {len(known)} cell types beside {unlabeled_category!r} (the "
                    "unlabeled_category); to tell types apart takes two."
                )
        super().setup_anndata(adata, labels_key=labels_key, unlabeled_category=unlabeled_category, **kwargs)

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
        """Build a model from a checkpoint of any kind; its classifier starts anew where there is an ``adata``.

        All else is as in :meth:`SCGPT.from_pretrained`.
        """
        if adata is not None:
            manager = cls._get_most_recent_anndata_manager(adata, required=True)
            fresh = dict.fromkeys([*fresh, "cls"])
            changes.setdefault("n_classes", manager.summary_stats.n_labels - 1)
        return super().from_pretrained(model, adata, fresh=fresh, accelerator=accelerator, device=device, **changes)

    @property
    def labels(self) -> list[str]:
        """The cell types that the model can name, in the order of its probabilities."""
        return self._labels

    @property
    def temperature(self) -> float:
        """By which logits are divided before they become probabilities (:cite:t:`Guo2017`)."""
        return self.extras.get("temperature", 1.0)

    def train(
        self,
        max_epochs: int | None = None,
        *,
        class_weight: Literal["balanced"] | Mapping[str, float] | None = None,
        objectives: Iterable[str | Objective] | Mapping[str, Any] | None = None,
        train_size: float = 0.9,
        validation_size: float | None = None,
        seed: int | None = None,
        plan_kwargs: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Train on the cells whose type is known, then calibrate the probabilities on the validation cells.

        Parameters
        ----------
        max_epochs
            Passes over the training cells; by default 10 from pretrained weights, as the authors fine-tune, and from
            scratch as many as it takes to see 25,000 cells, but between 3 and 40.
        class_weight
            ``"balanced"`` gives all types the same say in ``cls``, however few their cells; or a factor for each
            type. It finds more cells of rare types and takes some others for them; probabilities are then those of
            cells drawn evenly from all types.
        objectives
            As in :meth:`SCGPT.train`; by default ``cls``.
        train_size
            As in :meth:`SCGPT.train`.
        validation_size
            As in :meth:`SCGPT.train`. Without validation cells probabilities are not calibrated.
        seed
            As in :meth:`SCGPT.train`.
        plan_kwargs
            As in :meth:`SCGPT.train`.
        **kwargs
            As in :meth:`SCGPT.train`.

        Raises
        ------
        ValueError
            As in :meth:`SCGPT.train`; when ``class_weight`` lacks a type, names one that is none, or has a factor below 0.
        """
        defaults = self._recipe["training"]
        chosen = make_objectives(defaults["objectives"] if objectives is None else objectives)
        weights = self._class_weights(class_weight)
        chosen = tuple(Cls(o.weight, weights) if weights and o.name == "cls" else o for o in chosen)
        own = {name: defaults[name] for name in ("lr", "mask_share", "drop_share") if name in defaults}
        super().train(
            self._epochs(train_size) if max_epochs is None else max_epochs,
            objectives=chosen,
            train_size=train_size,
            validation_size=validation_size,
            seed=seed,
            plan_kwargs=defaults["plan_kwargs"] | dict(plan_kwargs or {}),
            **(own | kwargs),
        )
        self._calibrate()

    @property
    def _recipe(self) -> dict[str, Any]:
        if self.load_report is None:
            return FROM_SCRATCH
        return FINE_TUNING_PRE_NORM if self.module.network.config.norm == "pre" else FINE_TUNING

    def _epochs(self, train_size: float) -> int:
        return epochs_of(self._recipe, train_size * np.sum(self._codes() < len(self._labels)))

    def predict(
        self,
        adata: AnnData | None = None,
        *,
        indices: ArrayLike | None = None,
        soft: bool = False,
        layer: str | None = None,
        gene_key: str | None = None,
        gene_mapping: Mapping[str, str] | pd.Series | str | Path | None = None,
        match: GeneMatch | None = None,
        precision: Precision = "auto",
        progress_bar: bool = True,
    ) -> pd.Series | pd.DataFrame:
        """Name the type of cells.

        Parameters
        ----------
        adata
            Any data set, of any genes; by default the model's own.
        indices
            Rows; all by default.
        soft
            Return the probability of every type.
        layer
            As in :meth:`SCGPT.get_latent_representation`, as all that follow.
        gene_key
            See there.
        gene_mapping
            See there.
        match
            See there.
        precision
            See there.
        progress_bar
            See there.

        Returns
        -------
        The types, a categorical Series with the names of the cells as index; or ``(n_cells, n_types)`` float32
        probabilities.

        Raises
        ------
        KeyError, ValueError
            As in :meth:`SCGPT.get_latent_representation`.
        """
        adata = self._given_or_own(adata)
        rows = _rows(adata, indices)
        match = match or self.match(adata, gene_key=gene_key, gene_mapping=gene_mapping)
        if not self.is_trained:
            warn_user("The model is not trained; its predictions mean nothing yet.")
        logits = self._logits(adata, rows, match, layer, precision, progress_bar)
        names = adata.obs_names[rows]
        if not soft:
            best = pd.Categorical(np.array(self._labels)[logits.argmax(1)], categories=self._labels)
            return pd.Series(best, index=names, name="label")
        probabilities = softmax(logits / self.temperature, axis=1)
        return pd.DataFrame(probabilities, index=names, columns=self._labels)

    def _logits(
        self,
        adata: AnnData,
        rows: NDArray[np.int64],
        match: GeneMatch,
        layer: str | None,
        precision: Precision,
        progress_bar: bool,
    ) -> NDArray[np.float32]:
        return self._of_cells(
            self.module.classify,
            len(self._labels),
            self._cells(adata, match, layer),
            rows,
            max_length=None,
            precision=precision,
            progress_bar=progress_bar,
            doing="Annotating",
        )

    def _calibrate(self) -> None:
        """Choose the temperature on the cells that were kept for validation."""
        assert self.adata is not None
        held_out = np.asarray(self.validation_indices, dtype=np.int64)
        if not len(held_out):
            self.extras["temperature"] = 1.0
            inform("There were no validation cells: the confidence is that of the network, not calibrated.")
            return
        logits = self._logits(self.adata, held_out, self.match(), None, "auto", progress_bar=False)
        self.extras["temperature"] = fit_temperature(logits, self._codes()[held_out])

    def _codes(self) -> NDArray[np.int64]:
        """Return the type of each cell of the model's own data, the unlabelled last."""
        return np.asarray(self.adata_manager.get_from_registry(REGISTRY_KEYS.LABELS_KEY), dtype=np.int64).ravel()

    def _class_weights(self, given: Literal["balanced"] | Mapping[str, float] | None) -> tuple[float, ...] | None:
        if given is None:
            return None
        n_cells = np.bincount(self._codes(), minlength=len(self._labels))[: len(self._labels)]
        if isinstance(given, Mapping):
            if lacking := [label for label in self._labels if label not in given]:
                raise ValueError(f"class_weight has no factor for {lacking}.")
            if strange := [label for label in given if label not in self._labels]:
                raise ValueError(f"class_weight names {strange}, which are no types of this model: {self._labels}.")
            if wrong := {label: factor for label, factor in given.items() if not 0 <= factor < np.inf}:
                raise ValueError(f"Factors of class_weight must be 0 or more, and finite, not {wrong}.")
            return tuple(float(given[label]) for label in self._labels)
        if given != "balanced":
            raise ValueError(f"class_weight must be 'balanced', a factor for each type, or None, not {given!r}.")
        return tuple(float(x) for x in n_cells.sum() / len(n_cells) / np.maximum(n_cells, 1))

    def _default_network(self) -> dict[str, Any]:
        return super()._default_network() | FROM_SCRATCH["network"] | {"n_classes": self.summary_stats.n_labels - 1}


def _labels_of(registry: Mapping[str, Any]) -> list[str]:
    """Return the names of types in a registry, the unlabelled category left out."""
    state = registry["field_registries"].get(REGISTRY_KEYS.LABELS_KEY, {}).get("state_registry")
    if not state or "unlabeled_category" not in state:
        raise ValueError(
            "This model does not name cell types. Set the labelled data up with SCGPTAnnotator.setup_anndata and pass "
            "them: SCGPTAnnotator.from_pretrained(model, adata)."
        )
    return [str(name) for name in state["categorical_mapping"][:-1]]
