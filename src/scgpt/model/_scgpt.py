"""The scGPT model class."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from anndata import AnnData
from scvi import REGISTRY_KEYS
from scvi.data import AnnDataManager
from scvi.data._constants import _SETUP_ARGS_KEY

from scgpt.data import (
    GeneVocab,
    check_anndata,
    check_layer,
    check_measured,
    check_name,
    column_of,
    in_memory,
    own_names,
    read_mapping,
    without_missing,
)

from ._attention import AttentionMixin
from ._base import BaseSCGPT
from ._conditions import ConditionsField
from ._fields import ExpressionField, LabelsField, NamesField
from ._gene_context import GeneContextMixin
from ._generation import GenerationMixin
from ._query import QueryMixin


class SCGPT(AttentionMixin, GeneContextMixin, GenerationMixin, QueryMixin, BaseSCGPT):
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
        Further fields of :class:`~scgpt.nn.ScGPTConfig`; ``n_batches`` and ``n_conditions`` are those of the data
        set.

    Examples
    --------
    >>> import scanpy as sc
    >>> from scgpt.model import SCGPT
    >>> adata = sc.datasets.pbmc68k_reduced()[:60].raw.to_adata()[:, :100].copy()  # log-normalised values, or counts
    >>> SCGPT.setup_anndata(adata)
    >>> model = SCGPT(adata, n_layers=2, d_model=32, n_heads=2)  # a small network, from random weights
    >>> model.train(max_epochs=1, enable_progress_bar=False)
    >>> adata.obsm["X_scGPT"] = model.get_latent_representation(progress_bar=False)
    >>> adata.obsm["X_scGPT"].shape
    (60, 32)
    >>> model.save("model")
    >>> SCGPT.load("model", adata=False).vocab == model.vocab
    True
    """

    @classmethod
    def setup_anndata(
        cls,
        adata: AnnData,
        *,
        layer: str | None = None,
        batch_key: str | None = None,
        labels_key: str | None = None,
        unlabeled_category: str | None = None,
        gene_key: str | None = None,
        gene_mapping: Mapping[str, str] | pd.Series | str | Path | None = None,
        measured_key: str | None = None,
        gene_conditions: str | Path | Mapping[str, Iterable[str]] | None = None,
        cell_conditions: str | Sequence[str] | None = None,
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
        unlabeled_category
            What stands there for cells of unknown type; by default all are known.
        gene_key
            Column of ``.var`` with the gene names, ``"index"`` for its index; by default found by itself where
            there is a vocabulary to match, else the index.
        gene_mapping
            From names in the data to names in the vocabulary, as :func:`scgpt.data.match_genes` takes it.
        measured_key
            Key of ``.varm`` with a table of bools, a column for each batch: which genes it measured. For joined
            studies of different genes; by default every batch measured every gene.
        gene_conditions
            Conditions of genes, each an embedding that is added to the gene's: a column of ``.var`` (one category for
            each gene, missing where it has none; a column of booleans is one condition), the path of a GMT file, or a
            mapping of sets to their genes. A gene may stand in any number of sets; sets without a gene of the data are
            left out. They belong to the gene's name and hold for any data set that is embedded later.
        cell_conditions
            Columns of ``.obs`` whose categories are conditions, missing where a cell has none. A cell's condition is
            added to each of its tokens, ``<cls>`` too, so data that are embedded later need the columns.
        **kwargs
            For :meth:`scvi.data.AnnDataManager.register_fields`.

        Raises
        ------
        KeyError
            When a layer or column is not there.
        ValueError
            When a cell lacks its batch or label, no gene or cell has a condition, or a GMT file is damaged.

        Examples
        --------
        >>> import scanpy as sc
        >>> from scgpt.model import SCGPT
        >>> adata = sc.datasets.pbmc68k_reduced()[:60].raw.to_adata()
        >>> SCGPT.setup_anndata(adata, batch_key="phase", labels_key="bulk_labels")
        >>> SCGPT(adata, n_layers=1, d_model=32, n_heads=2, batch_embedding=True).module.network.config.n_batches
        3
        """
        check_anndata(adata)
        if adata.is_view:
            raise ValueError("adata is a view, in which nothing can be registered; pass adata.copy().")
        if adata.n_obs == 0:
            raise ValueError("The data set has no cell.")
        gene_mapping = None if gene_mapping is None else dict(read_mapping(gene_mapping) or {})
        setup_method_args = cls._get_setup_method_args(**locals())  # before there are others than the arguments
        for argument, name in (("layer", layer), ("batch_key", batch_key), ("labels_key", labels_key)):
            check_name(name, argument)
        conditions = ConditionsField(gene_conditions, cell_conditions, gene_key, gene_mapping)
        setup_method_args[_SETUP_ARGS_KEY]["gene_conditions"] = conditions.source
        check_layer(adata, layer)
        for key, column in (("batch_key", batch_key), ("labels_key", labels_key)):
            if column is not None:
                what = key.removesuffix("_key").removesuffix("s")
                fill = f"write {unlabeled_category!r} there" if what == "label" and unlabeled_category else "fill"
                without_missing(column_of(adata.obs, column, key), column, what, fill=fill)
        # Another data set than the one of the registry may have measured all its genes.
        if measured_key is not None and (measured_key in adata.varm or kwargs.get("source_registry") is None):
            check_measured(adata, measured_key, None if batch_key is None else pd.Series(adata.obs[batch_key]))
        manager = AnnDataManager(
            fields=[
                ExpressionField(REGISTRY_KEYS.X_KEY, layer),
                NamesField(REGISTRY_KEYS.BATCH_KEY, batch_key),
                NamesField(REGISTRY_KEYS.LABELS_KEY, labels_key)
                if unlabeled_category is None
                else LabelsField(REGISTRY_KEYS.LABELS_KEY, labels_key, str(unlabeled_category)),
                conditions,
            ],
            setup_method_args=setup_method_args,
        )
        manager.register_fields(adata, **kwargs)
        cls.register_manager(manager)

    def view_anndata_setup(self, adata: AnnData | None = None, hide_state_registries: bool = False) -> None:
        """Print how a data set was registered; for a model without data, the registry that it was saved with."""
        if adata is None and self.adata is None:
            self.view_registry(hide_state_registries=hide_state_registries)
        else:
            super().view_anndata_setup(adata, hide_state_registries=hide_state_registries)

    def _vocab_of_data(self) -> GeneVocab:
        assert self.adata is not None
        args = self.registry["setup_args"]
        names = own_names(in_memory(self.adata.var), args.get("gene_key"), args.get("gene_mapping"))
        return GeneVocab.from_genes(name for name in names if name)
