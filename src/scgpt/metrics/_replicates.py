"""How well half of the cells of perturbations predict the other half."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ._messages import listed, warn_user
from ._moments import LogValues
from ._perturbation import PerturbationScores, summarised
from ._perturbation_inputs import (
    centre_of,
    check_finite,
    check_n_top,
    check_unique_genes,
    profiles_of,
    targets_of,
)
from ._perturbation_table import Centroids, score_table
from ._perturbations import PERTURBATION_KEY, PerturbationGroups

if TYPE_CHECKING:
    from anndata import AnnData

# So that a half has a variance.
_FEWEST = 4


def replicate_ceiling(
    observed: AnnData,
    *,
    perturbation_key: str = PERTURBATION_KEY,
    control: str = "control",
    sep: str = "+",
    layer: str | None = None,
    reference: AnnData | None = None,
    n_top: int = 20,
    n_splits: int = 5,
    n_bootstrap: int = 0,
    seed: int = 0,
) -> PerturbationScores:
    """Score one half of the cells of each perturbation as a prediction of the other half.

    What :func:`perturbation_scores` gives where the only error is that of measuring few cells: a mark to read the
    scores of methods by, as cell-eval has one :cite:p:`Adduri2025`. Cells of each perturbation, and control cells, are
    split at random into halves of equal size; the change of each half is from its own control cells. Without
    ``reference`` the mean of the centroids is that of each half, too.

    It is no strict bound: each half is noisier than all cells, so that a prediction from many cells may score higher.
    No correction for the number of cells is made.

    Parameters
    ----------
    observed
        As in :func:`perturbation_scores`; all its perturbations are scored.
    perturbation_key
        As in :func:`perturbation_scores`.
    control
        As in :func:`perturbation_scores`.
    sep
        As in :func:`perturbation_scores`.
    layer
        As in :func:`perturbation_scores`.
    reference
        As in :func:`perturbation_scores`.
    n_top
        As in :func:`perturbation_scores`.
    n_splits
        Times to split. Scores of a perturbation are means over splits.
    n_bootstrap
        As in :func:`perturbation_scores`.
    seed
        Of the splits, which do not depend on the order of cells where these have names of their own, and of the draws.

    Returns
    -------
    As :func:`perturbation_scores`. ``n_cells`` are those of a half.

    Raises
    ------
    KeyError
        When a column or layer is not there.
    ValueError
        When no perturbation or not control has 4 cells, or for other reasons of :func:`perturbation_scores`.

    Warns
    -----
    UserWarning
        When perturbations are left out, since they have fewer than 4 cells.

    Examples
    --------
    >>> import scanpy as sc
    >>> import scgpt
    >>> adata = sc.datasets.pbmc68k_reduced()[:60].raw.to_adata()
    >>> adata.obs["perturbation"] = ["control", "CD79A", "NKG7"] * 20  # made up
    >>> ceiling = scgpt.metrics.replicate_ceiling(adata, n_splits=2)
    >>> ceiling.per_perturbation["n_cells"].tolist()
    [10.0, 10.0]
    """
    check_n_top(n_top)
    if n_splits < 1:
        raise ValueError(f"n_splits has to be 1 or more, and is {n_splits}.")
    check_unique_genes(observed, "observed")
    groups = PerturbationGroups.of(observed, perturbation_key, control, sep)
    names = [name for name, rows in groups.rows.items() if len(rows) >= _FEWEST]
    if not names or len(groups.control_rows) < _FEWEST:
        raise ValueError(
            f"Nothing can be split into halves: {_FEWEST} cells of control and of a perturbation are needed."
        )
    if few := sorted(set(groups.names) - set(names)):
        warn_user(f"{len(few)} perturbations with fewer than {_FEWEST} cells are left out: {listed(few)}.")
    genes = observed.var_names
    values = LogValues.of(observed, layer)
    centre = None if reference is None else centre_of(reference, genes, perturbation_key, control, sep, layer)
    targets = targets_of(names, genes, control, sep)
    place = np.argsort(np.argsort(observed.obs_names.to_numpy(dtype=str), kind="stable"))
    rows = [group[np.argsort(place[group])] for group in (*(groups.rows[name] for name in names), groups.control_rows)]
    check_finite(values.moments(rows), [*names, control], "observed")
    tables = []
    for split in range(n_splits):
        rng = np.random.default_rng([seed, split])
        shuffled = [rng.permutation(group) for group in rows]
        halves = [
            [group[: len(group) // 2] for group in shuffled],
            [group[len(group) // 2 : 2 * (len(group) // 2)] for group in shuffled],
        ]
        first, second = (profiles_of(values, half[:-1], values, half[-1], centre) for half in halves)
        tables.append(score_table(first, second, Centroids(first.cells.mean, np.arange(len(names))), targets, n_top))
    table = {name: _mean_of_defined(np.array([one[name] for one in tables])) for name in tables[0]}
    return summarised(table, names, n_bootstrap, seed)


def _mean_of_defined(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return means over the first axis, NaN where all values are."""
    defined = ~np.isnan(values)
    total = np.where(defined, values, 0).sum(0)
    return np.divide(total, defined.sum(0), out=np.full(len(total), np.nan), where=defined.any(0))
