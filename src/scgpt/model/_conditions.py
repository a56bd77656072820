"""Conditions of genes and cells, as ``setup_anndata`` registers them and as a model reads them."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import rich.table
from anndata import AnnData
from scvi.data.fields import BaseAnnDataField

from scgpt._messages import listed
from scgpt.data import CellConditions, Conditions, GeneSets, GeneVocab, conditions_of_genes, in_memory
from scgpt.hub import Checkpoint

logger = logging.getLogger(__name__)

CONDITIONS_KEY = "conditions"
# Conditions of genes that are shown one by one; files of pathways have thousands.
_SHOWN = 20


class ConditionsField(BaseAnnDataField):
    """Conditions of genes, resolved into plain names, and the categories of those of cells.

    What it registers serves any data set: genes are found by name, cells by their columns of ``.obs``.

    Parameters
    ----------
    genes
        Column of ``.var``, path of a GMT file, or sets and their genes.
    cells
        Columns of ``.obs``.
    gene_key
        Column of ``.var`` with the gene names.
    gene_mapping
        From names in the data to names in the vocabulary.
    """

    registry_key = CONDITIONS_KEY
    attr_name = "obs"
    attr_key = None
    is_empty = False

    def __init__(
        self,
        genes: str | Path | Mapping[str, Any] | None,
        cells: str | Sequence[str] | None,
        gene_key: str | None,
        gene_mapping: Mapping[str, str] | None,
    ):
        super().__init__()
        self._genes, self._cells = genes, cells
        self._names = {"gene_key": gene_key, "gene_mapping": gene_mapping}
        self._state: dict[str, Any] | None = None

    @property
    def source(self) -> str | None:
        """What the conditions of genes were read from, in a few words."""
        if isinstance(self._genes, Mapping):
            return f"{len(self._genes)} sets"
        return None if self._genes is None else Path(self._genes).name

    def register_field(self, adata: AnnData) -> dict[str, Any]:
        """Resolve the conditions; once, because scvi-tools registers again what another setup has overwritten."""
        if self._state is None:
            sets = GeneSets({}, {})
            if self._genes is not None:
                sets = GeneSets.read(self._genes, in_memory(adata.var), **self._names)  # type: ignore[arg-type]
            cells = CellConditions.read(self._cells or [], in_memory(adata.obs))
            self._state = sets.to_dict() | cells.to_dict()
        return self._state

    def transfer_field(self, state_registry: dict[str, Any], adata_target: AnnData, **kwargs: Any) -> dict[str, Any]:
        """Register another data set, of any genes, whose cells have conditions that are known."""
        state = dict(state_registry)
        CellConditions.from_dict(state).codes(in_memory(adata_target.obs), 1)
        return state

    def validate_field(self, adata: AnnData) -> None:
        """Nothing is written into the AnnData that could have been lost."""

    def get_data_registry(self) -> dict[str, Any]:
        """Return nothing: no place in the AnnData holds the conditions of genes."""
        return {}

    def get_summary_stats(self, state_registry: dict[str, Any]) -> dict[str, int]:
        """Return the number of conditions, "none" included; 0 where there are none."""
        return {"n_conditions": n_conditions(state_registry)}

    def view_state_registry(self, state_registry: dict[str, Any]) -> rich.table.Table | None:
        """Return a table of the conditions and their rows in the embedding."""
        if not n_conditions(state_registry):
            return None
        table = rich.table.Table(title="conditions State Registry")
        for title, style in (("Source Location", "dodger_blue1"), ("Condition", "green"), ("Row", "dark_violet")):
            table.add_column(title, justify="center", style=style, no_wrap=True, overflow="fold")
        names = condition_names(state_registry)
        n_sets = len(state_registry["gene_sets"])
        for row, (source, name) in enumerate(names, start=1):
            if row <= _SHOWN or row > n_sets:
                table.add_row(source, name, str(row))
            elif row == _SHOWN + 1:
                table.add_row(source, f"... {n_sets - _SHOWN} more", f"{row} .. {n_sets}")
        return table


def condition_names(state: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return where each condition comes from and what it is called, in the order of their rows, "none" left out."""
    cells = zip(state["cell_columns"], state["cell_categories"], strict=True)
    return [("genes", name) for name in state["gene_sets"]] + [
        (f"adata.obs['{column}']", str(category)) for column, categories in cells for category in categories
    ]


def n_conditions(state: Mapping[str, Any]) -> int:
    """Return the rows of an embedding of all conditions, with row 0 for none; 0 where there are none."""
    n = len(condition_names(state))
    return n + 1 if n else 0


def state_of(registry: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Return what a registry holds of conditions, None if it has none or was written before there were any."""
    state = registry["field_registries"].get(CONDITIONS_KEY, {}).get("state_registry")
    return state if state and n_conditions(state) else None


def conditions_of(registry: Mapping[str, Any], adata: AnnData, vocab: GeneVocab, n_rows: int) -> Conditions | None:
    """Return the conditions of a data set's tokens, None for a network without.

    Parameters
    ----------
    registry
        The model's.
    adata
        Any data set.
    vocab
        The model's genes.
    n_rows
        Of the network's embedding of conditions.

    Raises
    ------
    KeyError
        When a column of conditions is not in ``.obs``.
    ValueError
        When the network's conditions are not those of the registry, a cell's condition is unknown to the model, or
        the vocabulary has none of the genes.
    """
    if not n_rows:
        return None
    if (state := state_of(registry)) is None:
        raise ValueError(
            "This network has conditions, but nothing says which genes and cells stand under them. Set a data set up "
            "with setup_anndata(..., gene_conditions=..., cell_conditions=...) and start them anew by "
            "from_pretrained(..., adata, fresh=['conditions']), or leave them out by n_conditions=0."
        )
    if n_conditions(state) != n_rows:
        raise ValueError(
            f"The network has {n_rows} conditions and the data {n_conditions(state)}, with one for none: leave "
            "n_conditions out, and it is that of the data."
        )
    sets, cells = GeneSets.from_dict(state), CellConditions.from_dict(state)
    members = sets.ids(vocab, registry["setup_args"].get("gene_mapping")) if sets.members else []
    if members:
        without = [name for name, own in zip(sets.members, members, strict=True) if not len(own)]
        text = "%d genes of the vocabulary have conditions" + ("; not one has: %s" if without else "")
        logger.info(text, len(set().union(*members)), *([listed(without)] if without else []))
    codes = cells.codes(in_memory(adata.obs), first=1 + len(members))
    return Conditions(conditions_of_genes(members, len(vocab)), codes)


def check_conditions(checkpoint: Checkpoint, own: Mapping[str, Any], other: Mapping[str, Any]) -> None:
    """Raise for an embedding of a checkpoint's own conditions that are not those of other data.

    Parameters
    ----------
    checkpoint
        The checkpoint.
    own
        The registry that it was saved with, decoded.
    other
        That of the other data.

    Raises
    ------
    ValueError
        When both have conditions, of other names, and the embedding is not to start from random weights.
    """
    state = state_of(other)
    if state is None or "conditions" in checkpoint.report.fresh or not checkpoint.config.n_conditions:
        return
    known = state_of(own) if own else None
    if known is None or condition_names(known) != condition_names(state):
        raise ValueError(
            "The conditions of this checkpoint are not those of the data. To train on these data, start them from "
            "random weights: fresh=['conditions']. To go on with the same conditions, use load(folder, adata)."
        )
