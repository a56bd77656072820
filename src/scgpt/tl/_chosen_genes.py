"""The genes that programs and networks are made of."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from anndata import AnnData

    from scgpt.data import GeneMatch
    from scgpt.model import SCGPT


@dataclass(frozen=True, eq=False)
class ChosenGenes:
    """Variables of a data set, a gene of the model each.

    Parameters
    ----------
    rows
        ``(n,)`` rows in ``.var``, rising.
    ids
        ``(n,)`` ids in the vocabulary, each once.
    names
        Their names there.
    """

    rows: NDArray[np.int64]
    ids: NDArray[np.int64]
    names: list[str]

    @classmethod
    def of(cls, rows: NDArray[np.int64], match: GeneMatch, model: SCGPT) -> ChosenGenes:
        """Name variables as the model does."""
        ids = match.token_ids[rows]
        return cls(rows, ids, [model.vocab.tokens[i] for i in ids])

    def __len__(self) -> int:
        return len(self.rows)


def choose_genes(
    adata: AnnData,
    model: SCGPT,
    match: GeneMatch,
    genes: str | Iterable[str],
    *,
    n_top_genes: int,
    layer: str | None,
    also: Iterable[str] = (),
) -> ChosenGenes:
    """Return the genes that a user asks for.

    Parameters
    ----------
    adata
        Cells by genes.
    model
        The model.
    match
        Which variable is which of its genes.
    genes
        ``"hvg"``, those in ``.var["highly_variable"]`` or as many as ``n_top_genes``; ``"all"``; or names, of which those
        that the model does not know are left out with a warning.
    n_top_genes
        How many highly variable genes.
    layer
        Expression that these are found in.
    also
        Names of genes that have to be there.

    Raises
    ------
    KeyError
        When a name is no gene of ``adata``, or one of ``also`` no gene of the model.
    ValueError
        When fewer than two genes are left.
    """
    from scgpt._messages import listed, warn_user

    known = match.token_ids >= 0
    if isinstance(genes, str) and genes == "hvg":
        rows = _variable(adata, known, n_top_genes, model.layer_of(layer))
    elif isinstance(genes, str) and genes == "all":
        rows = np.flatnonzero(known)
    else:
        names = [genes] if isinstance(genes, str) else list(genes)
        rows = rows_of(adata, names)
        if unknown := [name for name, row in zip(names, rows, strict=True) if not known[row]]:
            warn_user(f"{len(unknown)} genes are not known to the model and left out: {listed(unknown)}.")
    needed = list(also)
    required = rows_of(adata, needed)
    if lacking := [name for name, row in zip(needed, required, strict=True) if not known[row]]:
        raise KeyError(f"The model does not know {listed(lacking)}; take another model, or leave them out.")
    rows = np.unique(np.append(rows, required)).astype(np.int64)
    rows = rows[known[rows]]
    ids, first = np.unique(match.token_ids[rows], return_index=True)
    if len(ids) < 2:
        raise ValueError(f"There are {len(ids)} genes to work on, and at least two are needed; pass other genes=.")
    rows = np.sort(rows[first])  # of several variables of one gene the first stands for it
    return ChosenGenes.of(rows, match, model)


def rows_of(adata: AnnData, names: Sequence[str]) -> NDArray[np.int64]:
    """Return the variables that are called so, in the index of ``.var`` or in a column with names of genes.

    Raises
    ------
    KeyError
        When there is none, with the gene that is meant if only the case of letters differs.
    """
    from scgpt._messages import listed
    from scgpt.data import gene_names, in_memory, name_keys

    rows = np.full(len(names), -1, np.int64)
    forms: dict[str, str] = {}
    var = in_memory(adata.var)
    for key in name_keys(var):
        own = gene_names(var, key)
        place = {name: row for row, name in reversed(list(enumerate(own)))}
        rows = np.array([row if row >= 0 else place.get(str(n), -1) for n, row in zip(names, rows, strict=True)], int)
        if (rows >= 0).all():
            return rows
        forms |= {name.casefold(): name for name in reversed(own)}
    lacking = [str(name) for name, row in zip(names, rows, strict=True) if row < 0]
    meant = [forms[name.casefold()] for name in lacking if name.casefold() in forms]
    hint = f"; names of genes are told apart by case: {listed(meant)}" if meant else ""
    raise KeyError(f"{listed(lacking)} {'is' if len(lacking) == 1 else 'are'} not among the genes of adata{hint}.")


def _variable(adata: AnnData, known: NDArray[np.bool_], n_top_genes: int, layer: str) -> NDArray[np.int64]:
    from scgpt.data import StudyExpression, expression_of, variable_genes

    if "highly_variable" in adata.var:
        rows = np.flatnonzero(np.asarray(adata.var["highly_variable"], dtype=bool))
        if len(rows):
            return rows[known[rows]]
    columns = np.flatnonzero(known)
    values = expression_of(adata, layer)[:, columns]
    study = StudyExpression([str(c) for c in columns], values, np.zeros(adata.n_obs, np.int64))
    return np.sort([int(name) for name in variable_genes([study], n_top_genes)])
