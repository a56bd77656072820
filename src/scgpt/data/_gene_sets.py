"""Which genes stand under which conditions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from scgpt._messages import listed, warn_user

from ._gmt import read_gmt
from ._matching import INDEX, best_match, gene_names, ids_of, name_forms, name_keys
from ._vocab import GeneVocab


@dataclass(frozen=True, eq=False)
class GeneSets:
    """Named sets of genes, found by name in any vocabulary.

    Parameters
    ----------
    names
        Names of the ``n`` genes under each key: a data set may have symbols in one column and Ensembl ids in another,
        and which of them a model knows shows only when there is one.
    members
        Rows of each set's genes in these names.
    """

    names: Mapping[str, list[str]]
    members: Mapping[str, list[int]]

    @classmethod
    def read(
        cls,
        conditions: str | Path | Mapping[str, Any],
        var: pd.DataFrame,
        *,
        gene_key: str | None = None,
        gene_mapping: Mapping[str, str] | None = None,
    ) -> Self:
        """Read what ``setup_anndata`` takes as ``gene_conditions``.

        Parameters
        ----------
        conditions
            Column of ``var``, path of a GMT file, or sets and their genes.
        var
            ``adata.var``. Sets of a file or mapping that have no gene in it are left out.
        gene_key
            Column of ``var`` with the gene names, ``"index"`` for its index; by default the usual places.
        gene_mapping
            From names in the data to names in the vocabulary.

        Raises
        ------
        KeyError
            When ``conditions`` is neither a column nor a file, or ``gene_key`` is no column.
        ValueError
            When no gene of the data stands in a set, or the file is damaged.
        TypeError
            When ``conditions`` is something else.
        """
        if isinstance(conditions, str) and conditions in var:
            return cls._of_column(conditions, var, gene_key, gene_mapping)
        if isinstance(conditions, str) and not Path(conditions).is_file():
            raise KeyError(
                f"gene_conditions={conditions!r} is neither a column of .var, which has {list(map(str, var.columns))}, "
                "nor a GMT file."
            )
        if isinstance(conditions, str | Path):
            return cls._of_sets(read_gmt(conditions))._of_data(var, gene_key, gene_mapping)
        if not isinstance(conditions, Mapping):
            raise TypeError(
                "gene_conditions must be a column of .var, the path of a GMT file, or a mapping of sets to their genes, "
                f"not {type(conditions).__name__}."
            )
        return cls._of_sets(conditions)._of_data(var, gene_key, gene_mapping)

    @classmethod
    def _of_column(
        cls, column: str, var: pd.DataFrame, gene_key: str | None, mapping: Mapping[str, str] | None
    ) -> Self:
        values = var[column]
        given = values.notna().to_numpy(copy=True)
        if all(isinstance(value, bool | np.bool_) for value in values[given]):
            given[given] = values[given].to_numpy(dtype=bool)
            values = pd.Series(column, index=values.index)
        if not given.any():
            raise ValueError(f"No gene has a condition in .var[{column!r}].")
        codes = np.full(len(values), -1)
        codes[given], categories = pd.factorize(values[given].map(str), sort=True)
        members = {name: np.flatnonzero(codes == i) for i, name in enumerate(categories)}
        rows = np.flatnonzero(given)
        names = {key: gene_names(var.iloc[rows], key) for key in name_keys(var, gene_key)}
        return cls(
            # What the data call a gene, the vocabulary may know by the name that it is mapped to.
            {key: [name_forms(name, mapping)[0] for name in those] for key, those in names.items()},
            {name: np.searchsorted(rows, own).tolist() for name, own in members.items()},
        )

    @classmethod
    def _of_sets(cls, sets: Mapping[str, Any]) -> Self:
        for name, genes in sets.items():
            if isinstance(genes, str):
                raise TypeError(f"gene_conditions[{name!r}] must be several genes, not the text {genes!r}.")
        genes_of = {str(name): [str(gene) for gene in genes] for name, genes in sets.items()}
        row = {gene: i for i, gene in enumerate(dict.fromkeys(gene for genes in genes_of.values() for gene in genes))}
        members = {name: sorted({row[gene] for gene in genes}) for name, genes in genes_of.items()}
        return cls({INDEX: list(row)}, members)

    def _of_data(self, var: pd.DataFrame, gene_key: str | None, mapping: Mapping[str, str] | None) -> Self:
        """Leave out the sets that have no gene in a data set, and say so."""
        there = {
            form
            for key in name_keys(var, gene_key)
            for name in gene_names(var, key)
            for form in name_forms(name, mapping)
        }
        genes = self.names[INDEX]
        found = [not there.isdisjoint(name_forms(gene, mapping)) for gene in genes]
        kept = {name: rows for name, rows in self.members.items() if any(found[row] for row in rows)}
        if not kept:
            raise ValueError(
                f"None of the {len(genes)} genes of gene_conditions is in the data: such as {genes[:3]}, where the data "
                f"have {gene_names(var, name_keys(var, gene_key)[0])[:3]}. Name the column of .var that holds the same "
                "names by gene_key=..., or pass gene_mapping=."
            )
        left_out = [name for name in self.members if name not in kept]
        if left_out or not all(found):
            text = f"{sum(found)} of the {len(genes)} genes of gene_conditions are in the data"
            if left_out:
                text += f"; {len(left_out)} of {len(self.members)} sets have none of these and are left out"
                text += f": {listed(left_out)}"
            warn_user(f"{text}.")
        return replace(self, members=kept)

    def ids(self, vocab: GeneVocab, mapping: Mapping[str, str] | None = None) -> list[NDArray[np.int64]]:
        """Return the ids of each set's genes in a vocabulary, each once; some sets may have none.

        Raises
        ------
        ValueError
            When the vocabulary knows no gene of any set.
        """
        known = {}
        for key, names in self.names.items():
            direct = vocab.ids(names)
            known[key] = np.where(direct >= 0, direct, ids_of(names, vocab, mapping))
        key, ids = best_match(known)
        if not (ids >= 0).any():
            raise ValueError(
                f"None of the {len(ids)} genes with conditions is in the vocabulary: such as {self.names[key][:3]}; the "
                f"vocabulary has {list(vocab.genes[:3])}. Name the column of .var that holds the vocabulary's names by "
                "setup_anndata(..., gene_key=...), or pass gene_mapping=."
            )
        return [np.unique(own[own >= 0]) for own in (ids[rows] for rows in self.members.values())]

    def to_dict(self) -> dict[str, list]:
        """Return plain values, ready for JSON and for a scvi-tools registry, whose keys must not have dots."""
        return {
            "gene_keys": list(self.names),
            "gene_names": list(self.names.values()),
            "gene_sets": list(self.members),
            "gene_members": list(self.members.values()),
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, list]) -> Self:
        """Build from what :meth:`to_dict` gave."""
        return cls(
            dict(zip(values["gene_keys"], values["gene_names"], strict=True)),
            dict(zip(values["gene_sets"], values["gene_members"], strict=True)),
        )
