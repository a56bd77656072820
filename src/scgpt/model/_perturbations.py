"""Which perturbation cells stand under, as ``setup_anndata`` registers it and as a model reads it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
import rich.table
from anndata import AnnData
from numpy.typing import NDArray
from scvi.data.fields import BaseAnnDataField

from scgpt._messages import listed, warn_user
from scgpt.data import GeneVocab, Marks, Pairing, as_text, check_name, column_of, ids_of, in_memory, without_missing
from scgpt.metrics import perturbed_by

PERTURBATIONS_KEY = "perturbations"
# Rows of the condition embedding: of tokens without condition, of perturbed genes, and then of directions and treatments.
_PERTURBED, _FIRST = 1, 2
_FEW_CELLS = 5


@dataclass(frozen=True)
class PerturbationNames:
    """How the perturbations of a data set are written, and what they are made of.

    Parameters
    ----------
    column
        Column of ``.obs``.
    control
        What stands there for cells that were not perturbed.
    sep
        Between the names of what acts together.
    treatments
        Names that are no genes, and act on the whole cell.
    direction_column
        Column of ``.obs`` with the direction in which genes were perturbed.
    directions
        Its categories.

    Examples
    --------
    >>> from scgpt.model import PerturbationNames
    >>> names = PerturbationNames(column="perturbation", control="ctrl", sep="+", treatments=("IFNB",))
    >>> names.genes("KLF1+CEBPA"), names.genes("KLF1+ctrl"), names.n_conditions
    (['CEBPA', 'KLF1'], ['KLF1'], 3)
    """

    column: str
    control: str
    sep: str
    treatments: tuple[str, ...] = ()
    direction_column: str | None = None
    directions: tuple[str, ...] = ()

    @property
    def n_conditions(self) -> int:
        """Rows of an embedding of all conditions."""
        return _FIRST + len(self.directions) + len(self.treatments)

    def genes(self, name: str) -> list[str]:
        """Return the genes that a perturbation is made of."""
        return [part for part in self._parts(name) if part not in self.treatments]

    def _parts(self, name: str) -> tuple[str, ...]:
        return perturbed_by(name, control=self.control, sep=self.sep)

    def unknown(self, names: Sequence[str], vocab: GeneVocab, mapping: Mapping[str, str]) -> list[str]:
        """Return what perturbations are made of that is neither a gene of the vocabulary nor a treatment."""
        genes = sorted({gene for name in names for gene in self.genes(name)})
        return [gene for gene, i in zip(genes, ids_of(genes, vocab, mapping), strict=True) if i < 0]

    def marks(self, name: str, direction: str, vocab: GeneVocab, mapping: Mapping[str, str]) -> Marks:
        """Return the tokens that a perturbation puts under conditions; the direction may be "", for none.

        Raises
        ------
        KeyError
            When a gene is not in the vocabulary, or there is no such direction.
        """
        if lacking := self.unknown([name], vocab, mapping):
            raise KeyError(
                f"Perturbation {name!r} names {lacking}, neither genes of the model nor treatments that it was trained "
                f"on ({listed(self.treatments) or 'none'})."
            )
        if direction and direction not in self.directions:
            raise KeyError(f"The model was not trained on direction {direction!r}; it knows {list(self.directions)}.")
        genes = self.genes(name)
        acting = [part for part in self._parts(name) if part in self.treatments]
        tokens = ids_of(genes, vocab, mapping)
        of_genes = np.zeros((len(genes), 2), np.int64)
        of_genes[:, 0] = _PERTURBED
        if direction:
            of_genes[:, 1] = _FIRST + self.directions.index(direction)
        width = max(2 if self.directions else 1, len(acting))
        conditions = np.zeros((len(genes) + bool(acting), width), np.int64)
        conditions[: len(genes), : min(width, 2)] = of_genes[:, :width]
        if acting:
            first = _FIRST + len(self.directions)
            conditions[-1, : len(acting)] = [first + self.treatments.index(part) for part in acting]
            tokens = np.append(tokens, vocab.cls_id)
        return Marks(tokens, conditions)

    def of(self, obs: pd.DataFrame) -> pd.DataFrame:
        """Return perturbation and direction of each cell, columns ``name`` and ``direction``; "" stands for none.

        Raises
        ------
        KeyError
            When a column is not there.
        ValueError
            When cells have no perturbation, a name no sense, or a direction is not known.
        """
        check_name(self.column, "perturbation_key")
        given = without_missing(column_of(obs, self.column, "perturbation_key"), self.column, "perturbation")
        given = as_text(given, self.column)
        canonical = {name: self.sep.join(self._parts(name)) or self.control for name in given.unique()}
        names = given.map(canonical)
        directions = pd.Series("", index=names.index)
        if self.direction_column is not None:
            has_genes = names.map({name: bool(self.genes(name)) for name in names.unique()})
            given = as_text(column_of(obs, self.direction_column, "direction_key"), self.direction_column)
            directions = given.where(given.notna() & has_genes, "")
            if strange := sorted(set(directions) - {"", *self.directions}):
                raise ValueError(f".obs[{self.direction_column!r}] has directions that are not known: {strange}.")
        return pd.DataFrame({"name": names, "direction": directions})


class PerturbationField(BaseAnnDataField):
    """The perturbation of each cell, and which cells are paired.

    Parameters
    ----------
    names
        How perturbations are written; treatments ``"all"`` and directions are read from the data.
    treatments
        Names that are no genes, or ``"all"``.
    paired_within
        Columns of ``.obs``.
    """

    registry_key = PERTURBATIONS_KEY
    attr_name = "obs"
    attr_key = None
    is_empty = False

    def __init__(self, names: PerturbationNames, treatments: str | Sequence[str], paired_within: Sequence[str]):
        super().__init__()
        self._names, self._treatments, self._within = names, treatments, list(paired_within)
        self._state: dict[str, Any] | None = None

    def register_field(self, adata: AnnData) -> dict[str, Any]:
        """Read the names; once, because scvi-tools registers again what another setup has overwritten."""
        if self._state is None:
            self._state = self._read(in_memory(adata.obs))
        return self._state

    def _read(self, obs: pd.DataFrame) -> dict[str, Any]:
        names = self._names
        if names.direction_column is not None:
            check_name(names.direction_column, "direction_key")
            given = as_text(column_of(obs, names.direction_column, "direction_key"), names.direction_column)
            perturbed = replace(names, direction_column=None).of(obs)["name"].to_numpy() != names.control
            directions = sorted(set(given[perturbed].dropna()))
            names = replace(names, directions=tuple(directions))
        cells = names.of(obs)
        counts = cells["name"].value_counts()
        if names.control not in counts:
            raise ValueError(
                f"No cell of .obs[{names.column!r}] is {names.control!r}: name what stands for control cells by control=. "
                f"There are {listed([str(n) for n in pd.Series(obs[names.column]).value_counts().index])}."
            )
        counts = counts.drop(names.control)
        if not len(counts):
            raise ValueError(f"All cells of .obs[{names.column!r}] are {names.control!r}; there is nothing to learn.")
        if few := [str(name) for name, n in counts.items() if n < _FEW_CELLS]:
            warn_user(f"Perturbations of fewer than {_FEW_CELLS} cells are hard to learn: {listed(few)}.")
        parts = sorted({part for name in counts.index for part in perturbed_by(name, sep=names.sep)})
        treatments = parts if self._treatments == "all" else [str(name) for name in self._treatments]
        if strange := sorted(set(treatments) - set(parts)):
            raise ValueError(f"treatments= names {strange}, which no cell stands under; there are {listed(parts)}.")
        names = replace(names, treatments=tuple(treatments))
        pairing_of(obs, cells["name"].to_numpy() == names.control, self._within)
        return plain(names) | {"paired_within": self._within, "trained_on": list(counts.index)}

    def transfer_field(self, state_registry: dict[str, Any], adata_target: AnnData, **kwargs: Any) -> dict[str, Any]:
        """Register another data set, whose perturbations are written and made of the same."""
        state = dict(state_registry)
        obs = in_memory(adata_target.obs)
        names = names_of(state)
        pairing_of(obs, names.of(obs)["name"].to_numpy() == names.control, state["paired_within"])
        return state

    def validate_field(self, adata: AnnData) -> None:
        """Nothing is written into the AnnData that could have been lost."""

    def get_data_registry(self) -> dict[str, Any]:
        """Return nothing: what a perturbation marks depends on the vocabulary."""
        return {}

    def get_summary_stats(self, state_registry: dict[str, Any]) -> dict[str, int]:
        """Return the number of conditions, "none" included, and of perturbations."""
        return {
            "n_conditions": names_of(state_registry).n_conditions,
            "n_perturbations": len(state_registry["trained_on"]),
        }

    def view_state_registry(self, state_registry: dict[str, Any]) -> rich.table.Table:
        """Return a table of what cells stand under."""
        table = rich.table.Table(title="perturbations State Registry")
        for title, style in (("Source Location", "dodger_blue1"), ("What", "green"), ("Names", "dark_violet")):
            table.add_column(title, justify="center", style=style, no_wrap=True, overflow="fold")
        source = f"adata.obs['{state_registry['column']}']"
        table.add_row(source, "control", state_registry["control"])
        table.add_row(source, "perturbations", listed(state_registry["trained_on"]))
        for what in ("treatments", "directions"):
            if state_registry[what]:
                table.add_row(source, what, listed(state_registry[what]))
        return table


def plain(names: PerturbationNames) -> dict[str, Any]:
    """Return names as plain values."""
    return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(names).items()}


def names_of(state: Mapping[str, Any]) -> PerturbationNames:
    """Return what :func:`plain` was given."""
    values: dict[str, Any] = {key: state[key] for key in PerturbationNames.__dataclass_fields__}
    values |= {key: tuple(value) for key, value in values.items() if isinstance(value, list | np.ndarray)}
    return PerturbationNames(**values)


def pairing_of(obs: pd.DataFrame, is_control: NDArray[np.bool_], within: Sequence[str]) -> Pairing:
    """Return which cells are paired.

    Raises
    ------
    KeyError
        When a column is not there.
    ValueError
        When there is no control cell, or none of a group, or cells have no group.
    """
    if not is_control.any():
        raise ValueError("There is no control cell that others could be paired with.")
    groups = np.zeros(len(obs), np.int64)
    if within:
        columns = [without_missing(column_of(obs, key, "paired_within"), key, "value") for key in within]
        named = pd.concat([as_text(c, key) for c, key in zip(columns, within, strict=True)], axis=1).agg(
            ", ".join, axis=1
        )
        groups = pd.factorize(named)[0].astype(np.int64)
        if without := sorted(set(named) - set(named[is_control])):
            raise ValueError(
                f"No control cell in {listed(without)}: cells are paired within {list(within)}. Drop these cells, or "
                "pair within fewer columns."
            )
    return Pairing(is_control, groups)
