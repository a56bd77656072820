"""Saving and loading models as safetensors and JSON, never as pickles."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import anndata
import numpy as np
import pandas as pd
from anndata import AnnData
from scvi.data import AnnDataManager
from scvi.data._constants import _MODEL_NAME_KEY, _SETUP_ARGS_KEY
from scvi.model._utils import parse_device_args
from scvi.model.base import BaseModelClass

from scgpt import hub
from scgpt.data import Tokenizer, check_anndata
from scgpt.hub import Checkpoint, LoadReport, ModelCard
from scgpt.module import ScGPTModule

from ._conditions import check_conditions
from ._query import check_categories


class PersistenceMixin:
    """``from_pretrained``, ``save`` and ``load`` for models around an :class:`~scgpt.module.ScGPTModule`."""

    module: ScGPTModule
    tokenizer: Tokenizer
    load_report: LoadReport | None
    registry_: dict[str, Any]
    extras: dict[str, Any]
    adata: AnnData | None
    history_: dict[str, pd.DataFrame] | None

    # What kinds of data differ in.
    _setup_method = "setup_anndata"
    _check_data: Callable[[Any], None] = staticmethod(check_anndata)
    _data_file, _write_data = hub.ADATA, "write_h5ad"
    _read_data: Callable[[Path], Any] = staticmethod(anndata.read_h5ad)

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
        """Build a model from a checkpoint of the authors or of ours.

        Parameters
        ----------
        model
            A folder, a name such as ``"whole-human"`` or ``"user/name"`` (see :func:`scgpt.hub.resolve`), or what
            :meth:`checkpoint_of` gave; a model is copied.
        adata
            Data set to train on, set up with ``setup_anndata``. Not needed to embed.
        fresh
            Parts of the network to start from random weights (``"gep"``, ``"cls"``, ``"batches"``, ``"dar"``, ...).
            Without it, weights that are missing or do not fit are an error, and so are parts that were made for the
            checkpoint's own batches where there is an ``adata``.
        accelerator
            As in Lightning.
        device
            As in Lightning.
        **changes
            Fields of :class:`~scgpt.nn.ScGPTConfig` to change, such as ``n_classes``; ``n_conditions`` is that of
            ``adata``, if it has conditions.

        Returns
        -------
        The model, with ``adata`` as its data; its ``load_report`` tells which parts came out of the file and which
        started anew.

        Raises
        ------
        FileNotFoundError
            When the folder, a file in it, or a download is missing.
        PermissionError, ImportError
            As :func:`scgpt.hub.resolve` does.
        ValueError
            When the files are damaged or do not fit each other.

        Examples
        --------
        >>> import scanpy as sc
        >>> from scgpt.model import SCGPT
        >>> adata = sc.datasets.pbmc68k_reduced()[:10].raw.to_adata()
        >>> model = SCGPT.from_pretrained("mini")  # or "whole-human", which is downloaded once
        >>> adata.obsm["X_scGPT"] = model.get_latent_representation(adata, progress_bar=False)

        To train on from there, on cells of one's own:

        >>> SCGPT.setup_anndata(adata)
        >>> model = SCGPT.from_pretrained("mini", adata)
        >>> model.load_report.fresh  # nothing starts from random weights
        ()
        """
        setup = None
        if adata is not None:
            cls._check_data(adata)
            setup = cls._get_most_recent_anndata_manager(adata, required=True)  # type: ignore[attr-defined]
            if n_conditions := setup.summary_stats.get("n_conditions"):
                changes.setdefault("n_conditions", n_conditions)
        checkpoint = cls.checkpoint_of(model, fresh=fresh, **changes)
        if setup is not None:
            _check_batches(checkpoint)
            check_conditions(checkpoint, decode(checkpoint.registry), setup.registry)
        registry = None if adata is not None else _own_registry(checkpoint.registry, cls.__name__)
        return cls._from_checkpoint(checkpoint, adata, registry, accelerator, device)

    def save(
        self,
        dir_path: str | Path,
        overwrite: bool = False,
        save_anndata: bool = False,
        card: ModelCard | None = None,
        **anndata_write_kwargs: Any,
    ) -> None:
        """Save the model as ``model.safetensors``, ``config.json``, ``vocab.json`` and ``registry.json``.

        Parameters
        ----------
        dir_path
            Folder; it appears whole or not at all.
        overwrite
            Replace a folder that is there.
        save_anndata
            Write the model's data into the folder too.
        card
            Write a ``README.md`` that says this of the model, and what the model itself knows.
        **anndata_write_kwargs
            For :meth:`anndata.AnnData.write_h5ad`, or :meth:`mudata.MuData.write_h5mu`.

        Raises
        ------
        FileExistsError
            When the folder is there and not to be overwritten.
        ValueError
            When there are no data to save.
        OSError
            When the disk is full or the folder cannot be written to; a model that was there stays.

        Examples
        --------
        >>> import os
        >>> from scgpt.model import SCGPT
        >>> SCGPT.from_pretrained("mini").save("copy")
        >>> sorted(os.listdir("copy"))
        ['config.json', 'model.safetensors', 'registry.json', 'vocab.json']
        """
        if anndata_write_kwargs and not save_anndata:
            raise TypeError(f"save() does not know {sorted(anndata_write_kwargs)}.")
        if save_anndata and self.adata is None:
            raise ValueError("This model has no data to save; leave out save_anndata=True.")

        def write_data(folder: Path) -> None:
            getattr(self.adata, self._write_data)(folder / self._data_file, **anndata_write_kwargs)

        if card is not None:
            epochs, losses = _training_of(self.history_ or {})
            card = replace(card, epochs=card.epochs or epochs, losses=card.losses or losses)
        hub.write_checkpoint(
            self.to_checkpoint(),
            dir_path,
            overwrite=overwrite,
            card=card,
            write_data=write_data if save_anndata else None,
        )

    def to_checkpoint(self) -> Checkpoint:
        """Return the model's weights and settings."""
        report = self.load_report or LoadReport(source="trained from scratch", sha256="", loaded=())
        return Checkpoint(
            config=self.module.network.config,
            state_dict=self.module.network.state_dict(),
            tokenizer=self.tokenizer,
            report=report,
            registry=_encode(self.registry_),
            extras=self.extras,
        )

    @classmethod
    def load(
        cls,
        dir_path: str | Path,
        adata: AnnData | bool | None = None,
        accelerator: str = "auto",
        device: int | str = "auto",
    ) -> Self:
        """Load a model that :meth:`save` wrote.

        Parameters
        ----------
        dir_path
            The folder, or the name of a repository on the Hugging Face hub (see :func:`scgpt.hub.resolve`).
        adata
            Data set to attach, of any genes, set up as the model's own was. By default the one saved with the model
            if there is one; False for none.
        accelerator
            As in Lightning.
        device
            As in Lightning.

        Returns
        -------
        The model, with its data where there are some.

        Raises
        ------
        FileNotFoundError
            When the folder or a file in it is missing.
        ValueError
            When a file is damaged, or the model is of another class; when ``adata`` has batches or labels that the
            model was not trained on.

        Examples
        --------
        >>> import scanpy as sc
        >>> from scgpt.model import SCGPT
        >>> adata = sc.datasets.pbmc68k_reduced()[:10].raw.to_adata()
        >>> SCGPT.setup_anndata(adata)
        >>> SCGPT.from_pretrained("mini", adata).save("model", save_anndata=True)
        >>> SCGPT.load("model").adata.shape
        (10, 765)
        """
        if not isinstance(adata, bool | None):
            cls._check_data(adata)
        checkpoint = _saved(dir_path)
        registry = _own_registry(checkpoint.registry, cls.__name__)
        saved = Path(dir_path) / cls._data_file
        data: Any = None if isinstance(adata, bool) else adata
        if adata is None and saved.exists():
            data = cls._read_data(saved)
            data.uns.pop("_scvi_uuid", None)  # it belongs to the data that were saved
        if data is not None:
            check_categories(data, registry)
            getattr(cls, cls._setup_method)(data, source_registry=registry, **registry[_SETUP_ARGS_KEY])
        return cls._from_checkpoint(checkpoint, data, None if data is not None else registry, accelerator, device)

    @classmethod
    def checkpoint_of(
        cls, model: str | Path | Checkpoint | BaseModelClass, *, fresh: Iterable[str] = (), **changes: Any
    ) -> Checkpoint:
        """Return the checkpoint of a model, or that which a name or folder stands for.

        Parameters
        ----------
        model
            As :meth:`from_pretrained` takes it.
        fresh
            As in :meth:`from_pretrained`.
        **changes
            As in :meth:`from_pretrained`.

        Raises
        ------
        FileNotFoundError, ValueError
            As :meth:`from_pretrained` does.
        TypeError
            When ``model`` is none of these.
        """
        if isinstance(model, str | Path):
            return hub.read(model, fresh=fresh, **changes)
        if not isinstance(model, PersistenceMixin | Checkpoint):
            raise TypeError(f"model must be a model, or the folder or name of a checkpoint, not {model!r}.")
        checkpoint = model.to_checkpoint() if isinstance(model, PersistenceMixin) else model
        return checkpoint.adapt(fresh, **changes) if fresh or changes else checkpoint

    @classmethod
    def _from_checkpoint(
        cls,
        checkpoint: Checkpoint,
        adata: AnnData | None,
        registry: dict[str, Any] | None,
        accelerator: str,
        device: int | str,
    ) -> Self:
        _, _, torch_device = parse_device_args(accelerator, device, return_device="torch", validate_single_device=True)
        model = cls(adata, registry, checkpoint=checkpoint)  # type: ignore[call-arg]
        model.to_device(torch_device)  # type: ignore[attr-defined]
        return model

    @classmethod
    def convert_legacy_save(cls, *args: Any, **kwargs: Any) -> None:
        """Refuse what scvi-tools would do here: read pickles, which can execute code.

        Raises
        ------
        NotImplementedError
            Always; no version of this package has written such files.
        """
        raise NotImplementedError(f"{cls.__name__} was never saved as a pickle: there is nothing to convert.")

    @staticmethod
    def load_registry(dir_path: str | Path) -> dict[str, Any]:
        """Return the scvi-tools registry saved with a model."""
        return decode(_saved(dir_path).registry)

    @classmethod
    def view_setup_args(cls, dir_path: str | Path) -> None:
        """Print the arguments of ``setup_anndata`` that a saved model was made with."""
        AnnDataManager.view_setup_method_args(cls.load_registry(dir_path))


def _saved(folder: str | Path) -> Checkpoint:
    """Read what :meth:`PersistenceMixin.save` or ``push_to_hub`` wrote."""
    if not Path(folder).is_dir() and hub.is_repository(folder):
        return hub.read(folder)
    return hub.read_checkpoint(folder)


def _training_of(history: Mapping[str, pd.DataFrame]) -> tuple[int | None, dict[str, float]]:
    """Return how many epochs a model was trained, and the last loss of each objective."""
    losses = {
        name: float(frame[name].iloc[-1])
        for name, frame in history.items()
        if name in ("train_loss", "validation_loss") or name.endswith(("_train", "_validation"))
    }
    return len(history.get("train_loss", ())) or None, losses


def _check_batches(checkpoint: Checkpoint) -> None:
    """Raise for parts that know the batches of a checkpoint's own data, which are not those of other data."""
    if kept := [part for part in checkpoint.config.parts_of_batches if part not in checkpoint.report.fresh]:
        raise ValueError(
            f"Parts {kept} of this checkpoint were made for the batches of its own data. To train on other data, start "
            f"them from random weights: fresh={kept}. To go on with the same batches, use load(folder, adata)."
        )


def _own_registry(saved: dict[str, Any], class_name: str) -> dict[str, Any]:
    """Return the registry of a checkpoint, a minimal one where it has none."""
    if not saved:
        return {
            "scvi_version": "",
            _MODEL_NAME_KEY: class_name,
            "setup_method_name": "setup_anndata",
            _SETUP_ARGS_KEY: {},
            "field_registries": {},
        }
    if saved.get(_MODEL_NAME_KEY) != class_name:
        raise ValueError(f"This was saved by {saved.get(_MODEL_NAME_KEY)}, not {class_name}; load it with that class.")
    return decode(saved)


def _encode(value: Any) -> Any:
    """Turn a registry into JSON; arrays keep their type."""
    if isinstance(value, dict):
        return {str(k): _encode(v) for k, v in value.items()}
    if isinstance(value, np.ndarray):
        return {"__array__": value.tolist(), "dtype": "object" if value.dtype.kind in "OUT" else str(value.dtype)}
    if isinstance(value, list | tuple):
        return [_encode(v) for v in value]
    if isinstance(value, np.generic):
        return value.item()
    return value if isinstance(value, str | int | float | bool | None) else str(value)


def decode(value: Any) -> Any:
    if isinstance(value, dict):
        if "__array__" in value:
            return np.array(value["__array__"], dtype=value["dtype"])
        return {k: decode(v) for k, v in value.items()}
    return [decode(v) for v in value] if isinstance(value, list) else value
