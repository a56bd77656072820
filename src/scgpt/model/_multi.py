"""The model of several modalities."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Self

import mudata
import numpy as np
import pandas as pd
from anndata import AnnData
from mudata import MuData
from numpy.typing import ArrayLike, NDArray
from scvi import REGISTRY_KEYS
from scvi.data import AnnDataManager
from scvi.data._manager import AnnDataManagerValidationCheck
from scvi.model.base import BaseModelClass

from scgpt import hub
from scgpt._messages import warn_user
from scgpt.data import (
    MODALITIES,
    N_MODALITIES,
    Cells,
    GeneMatch,
    GeneVocab,
    ModalityCells,
    MultiCells,
    check_measured,
    check_mudata,
    in_memory,
    match_genes,
    measured_by,
    name_modalities,
    obs_column,
    own_names,
    read_mapping,
    rows_of_modality,
    without_missing,
)
from scgpt.hub import Checkpoint

from ._base import BaseSCGPT
from ._embedding import _rows
from ._fields import ModalitiesField, NamesField
from ._passes import Precision
from ._translation import TranslationMixin, token_name

# Parts of a network that a checkpoint of one modality has not, or of another shape.
_OF_MODALITIES = ("modalities", "gep", "gepc")


class MultiSCGPT(TranslationMixin, BaseSCGPT):
    """scGPT over several modalities of the same cells, or of some of them :cite:p:`Cui2024`.

    Peaks and proteins are tokens beside genes. A modality that a cell lacks is absent from its tokens, not zero.

    Parameters
    ----------
    mdata
        Data set registered by :meth:`setup_mudata`; its features become the vocabulary. None for a model made by
        :meth:`from_pretrained`.
    registry
        scvi-tools registry of a model without data.
    checkpoint
        Weights to start from, in place of random ones; :meth:`from_pretrained` passes them.
    max_length
        Most tokens that a cell has of each modality, ``<cls>`` included.
    **kwargs
        As in :class:`SCGPT`.

    Examples
    --------
    >>> import anndata
    >>> import mudata
    >>> import numpy as np
    >>> from scgpt.model import MultiSCGPT
    >>> rng = np.random.default_rng(0)
    >>> rna = anndata.AnnData(rng.poisson(1.0, (40, 30)).astype("float32"))  # made up
    >>> rna.var_names = [f"GENE{i}" for i in range(30)]
    >>> protein = anndata.AnnData(rng.poisson(5.0, (40, 6)).astype("float32"))
    >>> protein.var_names = [f"CD{i}" for i in range(6)]
    >>> mdata = mudata.MuData({"rna": rna, "prot": protein})
    >>> MultiSCGPT.setup_mudata(mdata)
    >>> model = MultiSCGPT(mdata, n_layers=1, d_model=32, n_heads=2)
    >>> model.train(max_epochs=1, enable_progress_bar=False)
    >>> mdata.obsm["X_scGPT"] = model.get_latent_representation(progress_bar=False)
    >>> mdata.obsm["X_scGPT"].shape, model.get_latent_representation(modality="rna", progress_bar=False).shape
    ((40, 32), (40, 32))
    """

    _setup_method = "setup_mudata"
    _check_data = staticmethod(check_mudata)
    _data_file, _write_data = hub.MDATA, "write_h5mu"
    _read_data = staticmethod(mudata.read_h5mu)

    def __init__(
        self,
        mdata: MuData | None = None,
        registry: dict[str, Any] | None = None,
        *,
        checkpoint: Checkpoint | None = None,
        max_length: int = 4001,
        **kwargs: Any,
    ):
        super().__init__(mdata, registry, checkpoint=checkpoint, max_length=max_length, **kwargs)

    @classmethod
    def setup_anndata(cls, *args: Any, **kwargs: Any) -> None:
        """Raise: modalities come in a MuData, see :meth:`setup_mudata`."""
        raise TypeError("MultiSCGPT takes a MuData: call setup_mudata, or use SCGPT for an AnnData.")

    @classmethod
    def setup_mudata(
        cls,
        mdata: MuData,
        *,
        modalities: Mapping[str, str] | None = None,
        layers: Mapping[str, str] | None = None,
        batch_key: str | None = None,
        gene_key: str | None = None,
        gene_mapping: Mapping[str, str] | pd.Series | str | Path | None = None,
        measured_key: str | None = None,
        **kwargs: Any,
    ) -> None:
        """Register a data set for training.

        Parameters
        ----------
        mdata
            Its ``.uns`` and ``.obs`` receive scvi-tools' bookkeeping. A cell may lack modalities: it is not among their
            cells there, or all its values are NaN.
        modalities
            Which of ``mdata.mod`` is ``"rna"``, ``"atac"`` and ``"protein"``; by default those with usual names.
        layers
            Layer of each kind with the values to read; ``.X`` by default. Values of a cell become bins, for which only
            their order counts: counts and log-normalised values are the same, while what weighs features against each
            other, as ``muon.prot.pp.clr`` and ``muon.atac.pp.tfidf`` do, is not.
        batch_key
            Column with the experimental batch, of ``mdata.obs`` or, if it is not there, of modalities: then it is put
            together in ``mdata.obs``.
        gene_key
            Column of the genes' ``.var`` with their names, as in :meth:`SCGPT.setup_anndata`. Peaks and proteins have
            those of the index.
        gene_mapping
            From names of genes to names in the vocabulary, as :func:`scgpt.data.match_genes` takes it.
        measured_key
            Key of each modality's ``.varm`` with a table of bools, a column for each batch: which features it measured.
            By default every batch measured all.
        **kwargs
            For :meth:`scvi.data.AnnDataManager.register_fields`.

        Raises
        ------
        KeyError
            When a modality, layer or column is not there.
        ValueError
            When a modality is empty, a cell lacks its batch, values cannot be expression, or nothing links two groups
            of cells.
        """
        check_mudata(mdata)
        gene_mapping = None if gene_mapping is None else dict(read_mapping(gene_mapping) or {})
        modalities = name_modalities(mdata, modalities)
        layers = dict(layers or {})
        setup_method_args = cls._get_setup_method_args(**locals())
        if unknown := [kind for kind in layers if kind not in modalities]:
            raise ValueError(f"layers= names {unknown}; the modalities are {list(modalities)}.")
        if batch_key is not None and batch_key not in mdata.obs:
            mdata.obs[batch_key] = obs_column(mdata, batch_key)
        if batch_key is not None:
            without_missing(mdata.obs[batch_key], batch_key, "batch", "mdata.obs")
        if measured_key is not None and kwargs.get("source_registry") is None:
            for name in modalities.values():
                part = mdata.mod[name]
                batches = None if batch_key is None else mdata.obs.loc[part.obs_names, batch_key]
                check_measured(part, measured_key, batches)
        manager = AnnDataManager(
            fields=[
                ModalitiesField(modalities, layers),
                NamesField(REGISTRY_KEYS.BATCH_KEY, batch_key),
                NamesField(REGISTRY_KEYS.LABELS_KEY, None),
            ],
            setup_method_args=setup_method_args,
            validation_checks=AnnDataManagerValidationCheck(check_fully_paired_mudata=False),
        )
        manager.register_fields(mdata, **kwargs)
        cls.register_manager(manager)

    @classmethod
    def from_pretrained(  # type: ignore[override]
        cls,
        model: str | Path | Checkpoint | BaseModelClass,
        mdata: MuData | None = None,
        *,
        fresh: Iterable[str] = (),
        accelerator: str = "auto",
        device: int | str = "auto",
        **changes: Any,
    ) -> Self:
        """Build a model from a checkpoint; its vocabulary grows by the peaks and proteins of the data.

        Parameters
        ----------
        model
            As in :meth:`SCGPT.from_pretrained`. Of one that knows no modalities the genes' embeddings and the
            transformer are kept; the decoders, which read modalities, start anew.
        mdata
            Data set to train on, set up with :meth:`setup_mudata`. Not needed to embed.
        fresh
            As in :meth:`SCGPT.from_pretrained`.
        accelerator
            As in Lightning.
        device
            As in Lightning.
        **changes
            As in :meth:`SCGPT.from_pretrained`.

        Raises
        ------
        FileNotFoundError, ValueError
            As in :meth:`SCGPT.from_pretrained`.
        """
        if mdata is not None:
            check_mudata(mdata)
            manager = cls._get_most_recent_anndata_manager(mdata, required=True)
            if not cls.checkpoint_of(model).config.n_modalities:
                changes.setdefault("n_modalities", N_MODALITIES)
                fresh = dict.fromkeys([*fresh, *_OF_MODALITIES])
            names = _names_of_features(mdata, manager.registry["setup_args"])
            model = cls.checkpoint_of(model, fresh=fresh, **changes).with_genes(
                name for kind, of_kind in names.items() if kind != "rna" for name in of_kind
            )
            fresh, changes = (), {}
        return super().from_pretrained(model, mdata, fresh=fresh, accelerator=accelerator, device=device, **changes)

    def train(self, max_epochs: int = 30, **kwargs: Any) -> None:
        """Train as :meth:`SCGPT.train` does, and keep what :meth:`predict_modality` needs to know of the cells."""
        super().train(max_epochs, **kwargs)
        self._keep_profiles()

    def match(self, mdata: MuData | None = None) -> dict[str, GeneMatch]:  # type: ignore[override]
        """Report which features of each modality the model knows, as :func:`scgpt.data.match_genes` does."""
        mdata = self._given_or_own(mdata)
        args = self.registry["setup_args"]
        matches = {}
        for kind, names in _modalities_of(mdata, args).items():
            var = in_memory(mdata.mod[names].var)
            if kind == "rna":
                key = args.get("gene_key") if args.get("gene_key") in var else None
                matches[kind] = match_genes(var, self.vocab, gene_key=key, gene_mapping=args.get("gene_mapping"))
            else:
                own = pd.DataFrame(index=pd.Index([token_name(kind, name) for name in var.index]))
                matches[kind] = match_genes(own, self.vocab, gene_key="index")
        return matches

    def get_latent_representation(  # type: ignore[override]
        self,
        mdata: MuData | None = None,
        *,
        modality: str | Iterable[str] | None = None,
        indices: ArrayLike | None = None,
        precision: Precision = "auto",
        normalize: bool = True,
        progress_bar: bool = True,
    ) -> NDArray[np.float32]:
        """Embed cells by all modalities that they have, or by some.

        A cell's embedding depends on the cell alone, see :meth:`SCGPT.get_latent_representation`.

        Parameters
        ----------
        mdata
            Any data set with modalities of the same kinds; by default the model's own.
        modality
            Kinds of modalities to look at; all by default.
        indices
            Rows to embed; all by default.
        precision
            See :meth:`SCGPT.get_latent_representation`, as what follows.
        normalize
            See there.
        progress_bar
            See there.

        Returns
        -------
        ``(n_cells, d_model)`` float32. Cells that lack all modalities looked at have NaN.

        Raises
        ------
        KeyError
            When there is no such modality.
        ValueError
            When no feature is known; when values cannot be expression; when cells have batches that the model was not
            trained on and that it reads.
        """
        mdata = self._given_or_own(mdata)
        rows = _rows(mdata, indices)
        if not self.is_trained:
            warn_user("The model is not trained; its embeddings mean nothing yet.")
        cells = self._cells_of(mdata, modality, self._batch_labels(mdata, decodes=False))
        present = cells.present[rows]
        result = np.full((len(rows), self.module.network.config.d_model), np.nan, np.float32)
        result[present] = self._of_cells(
            self._embedder(normalize),
            result.shape[1],
            cells,
            rows[present],
            max_length=None,
            precision=precision,
            progress_bar=progress_bar,
            doing="Embedding",
        )
        return result

    def _cells_of(
        self,
        mdata: MuData,
        kinds: str | Iterable[str] | None = None,
        batch_labels: NDArray[np.int64] | None = None,
    ) -> MultiCells:
        """Return cells as the network reads them, by some kinds of modalities, with the batches that they are of."""
        args = self.registry["setup_args"]
        there = _modalities_of(mdata, args)
        wanted = list(there) if kinds is None else [kinds] if isinstance(kinds, str) else list(kinds)
        if lacking := [kind for kind in wanted if kind not in there]:
            raise KeyError(f"modality= names {lacking}; there are {list(there)}.")
        matches, layers = self.match(mdata), args.get("layers") or {}
        parts = {}
        for kind in wanted:
            part = mdata.mod[there[kind]]
            rows = rows_of_modality(mdata, there[kind], layers.get(kind))
            parts[kind] = ModalityCells(
                Cells(
                    part,
                    matches[kind].token_ids,
                    layer=layers.get(kind),
                    **self._measured_in(part, rows, batch_labels),
                ),
                rows,
            )
        return MultiCells(parts, batch_labels=batch_labels)

    def _measured_in(
        self, part: AnnData, rows: NDArray[np.int64], batch_labels: NDArray[np.int64] | None
    ) -> dict[str, Any]:
        """Return which batch measured which feature of a modality, and the batch of each of its cells."""
        key = self.registry["setup_args"].get("measured_key")
        if key is None or batch_labels is None:
            return {}
        names = self.registry["field_registries"][REGISTRY_KEYS.BATCH_KEY]["state_registry"]["categorical_mapping"]
        labels = np.zeros(part.n_obs, np.int64)
        labels[rows[rows >= 0]] = batch_labels[rows >= 0]
        measured = measured_by(part, key, names)
        return {} if measured is None else {"measured": measured, "batch_labels": labels}

    def _kinds_of(self, mdata: MuData) -> list[str]:
        return list(_modalities_of(mdata, self.registry["setup_args"]))

    def _registered_cells(self) -> MultiCells:  # type: ignore[override]
        assert self.adata is not None
        self.adata_manager.validate()  # another setup of the same MuData may have written its own codes
        labels = np.asarray(self.adata_manager.get_from_registry(REGISTRY_KEYS.BATCH_KEY)).ravel()
        return self._cells_of(self.adata, batch_labels=labels)

    def _default_network(self) -> dict[str, Any]:
        return super()._default_network() | {"n_modalities": N_MODALITIES}

    def _vocab_of_data(self) -> GeneVocab:
        names = _names_of_features(self.adata, self.registry["setup_args"])
        return GeneVocab.from_genes(name for of_kind in names.values() for name in of_kind if name)


def _modalities_of(mdata: MuData, args: Mapping[str, Any]) -> dict[str, str]:
    """Return the modalities of a data set that a model reads: those that it was set up with, as far as they are there.

    A checkpoint that was never set up reads those with usual names.
    """
    given = args.get("modalities") or name_modalities(mdata, None)
    there = {kind: given[kind] for kind in MODALITIES if given.get(kind) in mdata.mod}
    if not there:
        raise KeyError(f"mdata has none of the modalities {given}; there are {list(mdata.mod)}.")
    return there


def _names_of_features(mdata: MuData, args: Mapping[str, Any]) -> dict[str, list[str]]:
    names = {}
    for kind, name in _modalities_of(mdata, args).items():
        var = in_memory(mdata.mod[name].var)
        if kind == "rna":
            names[kind] = list(own_names(var, args.get("gene_key"), args.get("gene_mapping")))
        else:
            names[kind] = [token_name(kind, name) for name in var.index]
    return names
