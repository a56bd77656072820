"""What models register of their data."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import rich.table
from anndata import AnnData
from mudata import MuData
from scvi import REGISTRY_KEYS
from scvi.data.fields import BaseAnnDataField, CategoricalObsField, LabelsWithUnlabeledObsField, LayerField

from scgpt.data import as_categories, check_linked, rows_of_modality


class ExpressionField(LayerField):
    """The expression matrix, of any genes.

    scvi-tools' own field demands the genes of the training data again; here genes are matched by the vocabulary.
    """

    def __init__(self, registry_key: str, layer: str | None):
        super().__init__(registry_key, layer, is_count_data=False, correct_data_format=False)

    def transfer_field(self, state_registry: dict, adata_target: AnnData, **kwargs: Any) -> dict:
        """Register another data set, whatever its genes."""
        return self.register_field(adata_target)


class NamesField(CategoricalObsField):
    """A column whose values are names: those of another data set are known again, whatever their type."""

    def register_field(self, adata: AnnData | MuData) -> dict[str, Any]:
        """Number the names."""
        with _in_text(adata, self._original_attr_key):
            return super().register_field(adata)

    def transfer_field(self, state_registry: dict, adata_target: AnnData | MuData, **kwargs: Any) -> dict[str, Any]:
        """Number the names of another data set alike."""
        with _in_text(adata_target, self._original_attr_key):
            return super().transfer_field(state_registry, adata_target, **kwargs)


class LabelsField(NamesField, LabelsWithUnlabeledObsField):
    """Such a column, of which one name says that a cell's is not known."""


@contextmanager
def _in_text(adata: AnnData | MuData, column: str) -> Iterator[None]:
    """Let a column hold text for as long as scvi-tools reads it."""
    if column not in adata.obs:
        yield
        return
    given: Any = adata.obs[column]
    adata.obs[column] = as_categories(given, column)
    try:
        yield
    finally:
        adata.obs[column] = given


class ModalitiesField(BaseAnnDataField):
    """Modalities of a MuData, whose features are matched by the vocabulary.

    Parameters
    ----------
    modalities
        Kinds and names in ``mdata.mod``.
    layers
        Layer of each kind; ``.X`` by default.
    """

    registry_key = REGISTRY_KEYS.X_KEY
    attr_name = "obs"
    attr_key = None
    is_empty = False

    def __init__(self, modalities: Mapping[str, str], layers: Mapping[str, str]):
        super().__init__()
        self._modalities, self._layers = modalities, layers

    def validate_field(self, mdata: MuData) -> None:
        """Raise for values that cannot be expression, and for groups of cells that nothing links."""
        rows = {k: rows_of_modality(mdata, name, self._layers.get(k)) for k, name in self._modalities.items()}
        check_linked({self._modalities[kind]: of_kind >= 0 for kind, of_kind in rows.items()})

    def register_field(self, mdata: MuData) -> dict[str, Any]:
        """Remember the sizes of the modalities."""
        self.validate_field(mdata)
        sizes = {kind: int(mdata.mod[name].n_vars) for kind, name in self._modalities.items()}
        return {"n_obs": int(mdata.n_obs), "n_features": sizes}

    def transfer_field(self, state_registry: dict, mdata: MuData, **kwargs: Any) -> dict[str, Any]:
        """Register another data set, whatever its features."""
        return self.register_field(mdata)

    def get_data_registry(self) -> dict[str, Any]:
        """Return nothing: what a cell has stands in several places."""
        return {}

    def get_summary_stats(self, state_registry: dict[str, Any]) -> dict[str, int]:
        """Return the number of cells and of features."""
        return {"n_cells": state_registry["n_obs"], "n_vars": sum(state_registry["n_features"].values())}

    def view_state_registry(self, state_registry: dict[str, Any]) -> rich.table.Table:
        """Return a table of the modalities."""
        table = rich.table.Table(title="modalities State Registry")
        for title, style in (("Kind", "dodger_blue1"), ("Source Location", "green"), ("Features", "dark_violet")):
            table.add_column(title, justify="center", style=style, no_wrap=True, overflow="fold")
        for kind, n_features in state_registry["n_features"].items():
            layer = self._layers.get(kind)
            table.add_row(
                kind,
                f"mdata.mod['{self._modalities[kind]}']" + (f".layers['{layer}']" if layer else ".X"),
                str(n_features),
            )
        return table
