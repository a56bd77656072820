"""Surgery: room in a trained model for the batches of a new data set."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd
import torch
from anndata import AnnData
from scvi import REGISTRY_KEYS
from scvi.data._constants import _FIELD_REGISTRIES_KEY, _SETUP_ARGS_KEY

from scgpt.data import TokenBatch, Tokenizer, as_text, check_anndata, derive_key, without_missing
from scgpt.hub import is_repository
from scgpt.module import Objective, ScGPTModule
from scgpt.nn import ScGPTConfig, ScGPTNetwork, add_batches, fix_all_but_new_batches, gather_statistics
from scgpt.train import CellOrder, TokenLoader

logger = logging.getLogger(__name__)

_UNLABELLED = "Unknown"
# The argument of setup_anndata that names their column, what stands there, and what to do with what is not known.
_CATEGORIES = {
    REGISTRY_KEYS.BATCH_KEY: ("batch_key", "batches", "load_query_data(adata, model) makes room for them."),
    REGISTRY_KEYS.LABELS_KEY: (
        "labels_key",
        "labels",
        "Write there that they are not known, or train on them: from_pretrained(model, adata).",
    ),
}
_CELLS_OF_A_BATCH, _CELLS_OF_A_STEP = 2048, 32  # from which the statistics of a new batch are gathered


class QueryMixin:
    """``load_query_data`` for models around an :class:`~scgpt.module.ScGPTModule`."""

    module: ScGPTModule
    tokenizer: Tokenizer
    extras: dict[str, Any]
    device: torch.device

    @classmethod
    def load_query_data(
        cls,
        adata: AnnData,
        reference_model: Self | str | Path,
        *,
        unfrozen: bool = False,
        mask_share: float | Sequence[float] | None = None,
        drop_share: float | None = None,
        accelerator: str = "auto",
        device: int | str = "auto",
    ) -> Self:
        """Build a model for new data with batches that a reference model does not know, as scArches does.

        The batches of the query that are new get embeddings and norm statistics of their own
        (:cite:t:`Lotfollahi2021`); :meth:`train` then moves these and nothing else, bit for bit, whatever its
        settings. So cells of the reference are embedded as before, and cells of the query beside them. Batches that
        the reference knows keep their numbers, embeddings and statistics.

        The model can embed at once: statistics are gathered here, from up to 2,048 cells of each new batch, and cell
        embeddings depend on nothing else that is new. The embeddings of batches, which the decoders of expression
        read, start as the mean of the old ones and need training. A reference that neither embeds nor normalises
        batches has nothing to train; it embeds the query as it is. After ``save`` and ``load`` a model is one like any
        other, and training moves all of it.

        Parameters
        ----------
        adata
            The query, of any genes: those that it did not measure are absent, not zero. It is set up as the
            reference was, without a call of ``setup_anndata``, and needs the same batch column and layer. Labels that
            the reference does not know come after those that it does; a classifier cannot name them, so the query of one
            has to lack them. Where the column of labels is lacking, it is written, filled with the category of unlabelled
            cells, or ``"Unknown"``.
        reference_model
            A trained model, which is left as it is, or the folder of a saved one, or ``"user/name"`` on the Hugging Face hub.
        unfrozen
            Let training move everything.
        mask_share
            Share of values that was hidden when the reference was trained; by default as its checkpoint says, else
            0.4. Its statistics are those of cells with hidden values; statistics of whole cells would set the new
            batches apart.
        drop_share
            Share of genes that was dropped when the reference was trained, likewise; else 0.
        accelerator
            As in Lightning.
        device
            As in Lightning.

        Returns
        -------
        The model, with the query as its data.

        Raises
        ------
        TypeError
            When ``reference_model`` is of another class.
        FileNotFoundError
            When its folder is not there.
        KeyError
            When the query lacks a column or layer that the reference was set up with.
        ValueError
            When the query is a view; when the reference does not name its batches; when no gene of the query is in its
            vocabulary; when cells have no batch.

        Examples
        --------
        >>> import scanpy as sc
        >>> from scgpt.model import SCGPT
        >>> adata = sc.datasets.pbmc68k_reduced()[:90].raw.to_adata()[:, :100].copy()
        >>> adata.obs["donor"] = ["1", "2", "3"] * 30  # made up
        >>> reference, query = adata[adata.obs["donor"] != "3"].copy(), adata[adata.obs["donor"] == "3"].copy()
        >>> SCGPT.setup_anndata(reference, batch_key="donor")
        >>> model = SCGPT(reference, n_layers=1, d_model=32, n_heads=2, batch_embedding=True, input_norm="domain")
        >>> model.train(max_epochs=1, enable_progress_bar=False)
        >>> extended = SCGPT.load_query_data(query, model)
        >>> extended.load_report.new_batches
        ('3',)
        >>> query.obsm["X_scGPT"] = extended.get_latent_representation(progress_bar=False)
        """
        check_anndata(adata)
        if adata.is_view:
            raise ValueError("The query is a view of another AnnData and cannot be set up; pass adata.copy().")
        reference: Any = _reference(cls, reference_model)
        checkpoint, registry = reference.to_checkpoint(), reference.registry
        known = _batches_of(registry, checkpoint.config)
        reference.match(adata)  # raises where no gene is shared, before anything is written
        setup_args = registry[_SETUP_ARGS_KEY]
        _check_batches(adata, setup_args["batch_key"])
        _complete_labels(adata, registry)

        cls.setup_anndata(adata, source_registry=registry, extend_categories=True, **setup_args)  # type: ignore[attr-defined]
        batches = cls._get_most_recent_anndata_manager(adata).get_state_registry(REGISTRY_KEYS.BATCH_KEY)  # type: ignore[attr-defined]
        new = batches.categorical_mapping[len(known) :]
        config, weights = checkpoint.config, checkpoint.state_dict
        if _knows_batches(config):
            config, weights = add_batches(config, weights, len(new))
        extras = {"mask_share": 0.4, "unknown": False, "drop_share": 0.0} | checkpoint.extras
        extras |= {k: v for k, v in (("mask_share", mask_share), ("drop_share", drop_share)) if v is not None}
        checkpoint = replace(
            checkpoint,
            extras=extras,
            config=config,
            state_dict=weights,
            report=checkpoint.report.of_query(str(b) for b in new),
        )
        model = cls._from_checkpoint(checkpoint, adata, None, accelerator, device)  # type: ignore[attr-defined]
        model.is_trained_ = reference.is_trained
        if not unfrozen:
            fix_all_but_new_batches(model.module.network, len(known))
        if config.input_norm == "domain":
            gather_statistics(model.module.network, model._new_cells(len(known)))
        logger.info("%s", model.load_report)
        return model

    def _new_cells(self, n_known: int) -> Iterator[TokenBatch]:
        """Cells of each new batch, as in training."""
        cells = self._registered_cells()  # type: ignore[attr-defined]
        hidden = {name: self.extras[name] for name in ("mask_share", "unknown", "drop_share")}
        for code in range(n_known, self.module.network.config.n_batches):
            order = CellOrder(np.flatnonzero(cells.batch_labels == code), _CELLS_OF_A_BATCH, shuffle=True)
            few = CellOrder(order.batch(0), _CELLS_OF_A_STEP, shuffle=False)
            loader = TokenLoader(cells, self.tokenizer, few, **hidden)
            with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
                for step, batch in enumerate(loader):
                    torch.manual_seed(derive_key(0, "dropout", code, step))
                    yield batch.to(self.device)


def check_surgery(network: ScGPTNetwork, objectives: Iterable[Objective]) -> None:
    """Raise where training could move nothing of a network whose old batches are fixed.

    Raises
    ------
    ValueError
        When the network has no part or no batch that is new, or an objective does not depend on them.
    """
    config, n_fixed = network.config, network.n_fixed_batches
    if n_fixed is None:
        return
    otherwise = "To train all of the model, pass unfrozen=True to load_query_data."
    if not config.batch_embedding and config.input_norm != "domain":
        raise ValueError(
            "This model neither embeds nor normalises batches: the surgery left nothing to train, and the model "
            f"embeds the query as it is. {otherwise}"
        )
    if n_fixed == config.n_batches:
        raise ValueError(
            "The reference knows all batches of this query: there is nothing new to train, and the model embeds the "
            f"query as it is. {otherwise}"
        )
    # Batch embeddings enter the decoders of expression; what is read from the cell alone has no gradient for them.
    if idle := [o.name for o in objectives if not {"gep", "gepc", "zero", "levels", "perturb_gep"} & set(o.heads)]:
        raise ValueError(f"Objective {idle[0]!r} cannot move the new batches, and all else is fixed. {otherwise}")


def _reference(cls: Any, given: object) -> Any:
    if not isinstance(given, str | Path):
        if type(given) is not cls:
            raise TypeError(f"reference_model must be a {cls.__name__} or its folder, not {type(given).__name__}.")
        return given
    if not Path(given).is_dir() and not is_repository(given):
        raise FileNotFoundError(f"There is no folder {given}; save the reference model first.")
    return cls.from_pretrained(given, accelerator="cpu")


def _knows_batches(config: ScGPTConfig) -> bool:
    return config.batch_embedding or config.adversary or config.input_norm == "domain"


def _batches_of(registry: dict[str, Any], config: ScGPTConfig) -> np.ndarray:
    """The names of a reference's batches."""
    state = registry[_FIELD_REGISTRIES_KEY].get(REGISTRY_KEYS.BATCH_KEY, {}).get("state_registry")
    if state is None:
        raise ValueError(
            "The reference model was never set up with data, as a checkpoint of the authors, and does not name its "
            "batches. To embed new cells with it no surgery is needed: from_pretrained(folder)"
            ".get_latent_representation(adata); to train it, from_pretrained(folder, adata, ...)."
        )
    names = state["categorical_mapping"]
    if not _knows_batches(config):
        return names
    if registry[_SETUP_ARGS_KEY].get("batch_key") is None:
        raise ValueError("The reference model was set up without batch_key; no batch can be added to one without name.")
    if len(names) != config.n_batches:
        raise ValueError(f"The reference network has {config.n_batches} batches, but its data named {len(names)}.")
    return names


def _check_batches(adata: AnnData, column: str | None) -> None:
    """Raise where the query does not name its batches."""
    if column is None:
        return
    if column not in adata.obs:
        raise KeyError(
            f"The reference was set up with batch_key={column!r}; the query lacks .obs[{column!r}]. Name the batch of "
            "each of its cells there."
        )
    without_missing(pd.Series(adata.obs[column]), column, "batch", "adata.obs")


def check_categories(
    adata: AnnData, registry: dict[str, Any], keys: Iterable[str] = (REGISTRY_KEYS.BATCH_KEY, REGISTRY_KEYS.LABELS_KEY)
) -> None:
    """Raise for batches or labels of a data set that a model was not trained on.

    Raises
    ------
    ValueError
        With their names.
    """
    for key in keys:
        argument, what, remedy = _CATEGORIES[key]
        column = registry[_SETUP_ARGS_KEY].get(argument)
        if column is None or column not in adata.obs:
            continue
        names = as_text(adata.obs[column].dropna(), column)
        known = registry[_FIELD_REGISTRIES_KEY][key]["state_registry"]["categorical_mapping"]
        if strange := sorted(set(names[~names.isin(known)])):
            raise ValueError(
                f".obs[{column!r}] names {what} that the model was not trained on: {strange[:5]}. {remedy}"
            )


def _complete_labels(adata: AnnData, registry: dict[str, Any]) -> None:
    """Write a column of unknown labels where the reference had labels and the query has none.

    A column, not codes alone, as scvi-tools does: the query must be found complete when it is saved and loaded.
    """
    column = registry[_SETUP_ARGS_KEY].get("labels_key")
    if column is None:
        return
    state = registry[_FIELD_REGISTRIES_KEY][REGISTRY_KEYS.LABELS_KEY]["state_registry"]
    unlabelled = state.get("unlabeled_category")
    if column not in adata.obs:
        adata.obs[column] = pd.Categorical([unlabelled or _UNLABELLED] * adata.n_obs)
        logger.info("The query has no labels; .obs[%r] is set to %r.", column, unlabelled or _UNLABELLED)
    elif unlabelled is not None:
        check_categories(adata, registry, [REGISTRY_KEYS.LABELS_KEY])
