"""Several studies, of different genes, as one data set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import scipy.sparse as sp
from anndata import AnnData
from numpy.typing import NDArray
from pandas.api.types import is_bool_dtype

from ._aligned import aligned
from ._cells import Cells
from ._features import FeatureChoice, StudyExpression, variable_genes

MEASURED = "measured"


@dataclass(frozen=True, eq=False)
class Study:
    """One data set among several that are to be joined.

    Parameters
    ----------
    adata
        The data set.
    genes
        ``(n_vars,)`` names that all studies share; empty where a variable is to be left out.
    batches
        ``(n_obs,)`` batch of each cell; a name that stands in two studies is one batch.
    layer
        Layer with counts or log-normalised values; ``.X`` by default.
    """

    adata: AnnData
    genes: Sequence[str]
    batches: pd.Series
    layer: str | None = None

    def expression(self) -> StudyExpression:
        """Return its expression in memory, with one column for each gene.

        Raises
        ------
        ValueError
            When it holds negative, NaN or infinite values.
        """
        names = sorted({gene for gene in self.genes if gene})
        slot_of = {name: slot for slot, name in enumerate(names)}
        slots = np.array([slot_of.get(gene, -1) for gene in self.genes], np.int64)
        index = np.arange(self.adata.n_obs)
        merged = aligned(Cells(self.adata, slots, layer=self.layer).rows(index), slots, len(names), index)
        return StudyExpression(names, merged, pd.Categorical(self.batches).codes.astype(np.int64))


def join_studies(
    studies: Mapping[str, Study], n_genes: int, *, batch_key: str, choose: FeatureChoice = variable_genes
) -> AnnData:
    """Join studies over the genes that vary most within their batches.

    Parameters
    ----------
    studies
        The data sets under their names.
    n_genes
        How many genes to take.
    batch_key
        Column to write.
    choose
        How they are chosen: :func:`variable_genes`, or a function like it.

    Returns
    -------
    Cells of all studies by the union of their chosen genes. ``.obs[batch_key]`` holds the batches and
    ``.varm["measured"]`` says which batch measured which gene: what one did not is absent, not zero.
    ``.uns["scale"]`` says for each study whether it holds counts.

    Raises
    ------
    ValueError
        When values cannot be expression, none is above 0, or a study shares no gene with any other.
    """
    expression: dict[str, StudyExpression] = {}
    for name, study in studies.items():
        try:
            expression[name] = study.expression()
        except ValueError as error:
            if name:
                error.add_note(f"This is study {name!r}.")
            raise
    if not any(values.rows.data.any() for values in expression.values()):
        raise ValueError("No cell expresses any gene that has a name.")
    _check_shared({name: set(values.genes) for name, values in expression.items()})
    genes = choose(list(expression.values()), n_genes)
    blocks: list[sp.csr_matrix] = []
    measured: dict[str, NDArray[np.bool_]] = {}
    for name, values in expression.items():
        column_of = pd.Index(values.genes).get_indexer(pd.Index(genes))
        known = column_of >= 0
        blocks.append(_columns(values.rows, column_of))
        for batch in studies[name].batches.unique():
            measured[batch] = measured.get(batch, np.ones(len(genes), bool)) & known
    batches = pd.concat([study.batches for study in studies.values()]).to_numpy()
    joint = AnnData(
        sp.vstack(blocks, format="csr"),
        obs=pd.DataFrame({batch_key: pd.Categorical(batches)}, index=_names(studies)),
        var=pd.DataFrame(index=pd.Index(genes)),
    )
    joint.uns["scale"] = {name: values.scale for name, values in expression.items()}
    joint.varm[MEASURED] = pd.DataFrame(measured, index=joint.var_names)
    return joint


def _check_shared(genes: Mapping[str, set[str]]) -> None:
    """Raise for a study that no gene links to another, as of symbols beside Ensembl ids."""
    for name, own in genes.items():
        if len(genes) > 1 and own.isdisjoint(set().union(*(genes[other] for other in genes if other != name))):
            raise ValueError(
                f"Study {name!r} shares no gene with any other; it names them {sorted(own)[:3]}. Bring the names of all "
                "to one kind by gene_mapping=."
            )


def _columns(rows: sp.csr_matrix, column_of: NDArray[np.int64]) -> sp.csr_matrix:
    """Return some columns of a matrix, empty where the number is -1."""
    known = np.flatnonzero(column_of >= 0)
    chosen = rows[:, column_of[known]].tocoo()
    return sp.csr_matrix((chosen.data, (chosen.row, known[chosen.col])), shape=(rows.shape[0], len(column_of)))


def _names(studies: Mapping[str, Study]) -> pd.Index:
    return pd.Index([f"{name}:{i}" for name, s in studies.items() for i in range(s.adata.n_obs)], dtype=str)


def check_measured(adata: AnnData, measured_key: str, batches: pd.Series | None) -> None:
    """Raise where a table of measured genes does not name every one of the batches of the cells.

    Raises
    ------
    KeyError
        When there is no such table.
    ValueError
        When there are no batches, or the table is no table of bools or lacks a batch.
    """
    if measured_key not in adata.varm:
        raise KeyError(f"measured_key={measured_key!r} is not a key of .varm; there are {list(adata.varm.keys())}.")
    if batches is None:
        raise ValueError("measured_key says what each batch measured: name the batches by batch_key, too.")
    table = adata.varm[measured_key]
    if not isinstance(table, pd.DataFrame) or not all(map(is_bool_dtype, table.dtypes)):
        raise ValueError(f".varm[{measured_key!r}] must be a DataFrame of bools, a column for each batch.")
    if lacking := sorted(set(batches.astype(str)) - set(table.columns.astype(str))):
        raise ValueError(f".varm[{measured_key!r}] has no column for the batches {lacking[:5]}.")


def measured_by(adata: AnnData, measured_key: str | None, batches: Sequence[Any]) -> NDArray[np.bool_] | None:
    """Return ``(n_batches, n_vars)``, which batch measured which gene; None where nothing is said."""
    if measured_key is None or measured_key not in adata.varm:
        return None
    table: Any = adata.varm[measured_key]
    named = table.set_axis(table.columns.astype(str), axis=1)
    return named.reindex(columns=[str(batch) for batch in batches], fill_value=True).to_numpy().T
