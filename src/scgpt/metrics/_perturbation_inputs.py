"""What scores of perturbations are read from, and what is wrong with it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ._messages import listed, warn_user
from ._moments import LogValues, Moments
from ._perturbations import PerturbationGroups, perturbed_by
from ._profiles import Profiles
from ._significance import significant_genes

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData


def targets_of(names: list[str], genes: pd.Index, control: str, sep: str) -> list[NDArray[np.intp]]:
    """Return for each perturbation the columns of the genes that it perturbs, as far as there are."""
    perturbed = [perturbed_by(name, control=control, sep=sep) for name in names]
    return [np.flatnonzero(genes.isin(list(parts))) for parts in perturbed]


def shared_genes(observed: AnnData, predicted: AnnData) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return the columns of genes that are in both, in the order of the observed."""
    for adata, what in ((observed, "observed"), (predicted, "predicted")):
        check_unique_genes(adata, what)
    columns_predicted = predicted.var_names.get_indexer(observed.var_names)
    columns = np.flatnonzero(columns_predicted >= 0)
    n = len(columns)
    if not n:
        raise ValueError(
            f"No gene is in both: the observed cells have {listed(observed.var_names, 3)}, the predicted "
            f"{listed(predicted.var_names, 3)}, in .var_names."
        )
    if n < observed.n_vars or n < predicted.n_vars:
        warn_user(
            f"{n} genes are scored: {observed.n_vars - n} of those observed are not predicted, and "
            f"{predicted.n_vars - n} of those predicted are not observed."
        )
    return columns, columns_predicted[columns]


def check_unique_genes(adata: AnnData, what: str) -> None:
    """Raise a ValueError where genes cannot be told apart by their names."""
    if not adata.var_names.is_unique:
        twice = sorted(set(adata.var_names[adata.var_names.duplicated()]))
        raise ValueError(
            f".var_names of the {what} cells are not unique: {listed(twice)} stand there twice. Call "
            "`.var_names_make_unique()`, or leave columns out."
        )


def check_n_top(n_top: int) -> None:
    if n_top < 2:
        raise ValueError(f"n_top has to be 2 or more, for a correlation over so many genes, and is {n_top}.")


def check_finite(moments: Moments, names: list[str], what: str) -> None:
    if bad := [name for name, row in zip(names, moments.mean, strict=True) if not np.isfinite(row).all()]:
        raise ValueError(f"There are NaN or infinite values in what is {what} of {listed(bad)}.")


def centre_of(
    reference: AnnData, genes: pd.Index, perturbation_key: str, control: str, sep: str, layer: str | None
) -> NDArray[np.float64]:
    """Return the mean of the centroids of perturbations."""
    check_unique_genes(reference, "reference")
    groups = PerturbationGroups.of(reference, perturbation_key, control, sep, needs_control=False)
    if not groups.names:
        raise ValueError("No cell of the reference is perturbed.")
    columns = reference.var_names.get_indexer(genes)
    if absent := int((columns < 0).sum()):
        raise ValueError(f"The reference lacks {absent} of {len(genes)} scored genes: {listed(genes[columns < 0])}.")
    moments = LogValues.of(reference, layer, columns).moments(list(groups.rows.values()))
    check_finite(moments, groups.names, "in the reference")
    return moments.mean.mean(0)


def profiles_of(
    values: LogValues,
    groups: Sequence[NDArray[np.intp]],
    control: LogValues,
    control_rows: NDArray[np.intp],
    centre: NDArray[np.float64] | None = None,
) -> Profiles:
    """Return profiles of groups of cells beside control cells, of which ``control`` holds the values.

    The centre is the mean of the groups where it is not given.
    """
    moments = values.moments(groups)
    return Profiles(
        moments,
        control.moments([control_rows]),
        moments.mean.mean(0) if centre is None else centre,
        significant_genes([values.cells(rows) for rows in groups], control.cells(control_rows)),
    )
