"""Perturbations that lead to a state."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData

    from scgpt.model import SCGPTPerturbation

# A difference to control that rounding alone can make.
_NO_CHANGE = 1e-5


def reverse_perturb(
    adata: AnnData,
    target_state: AnnData | pd.Series,
    *,
    model: str | Path | SCGPTPerturbation | None = None,
    candidates: AnnData | str | Iterable[str] | None = None,
    groupby: str | None = None,
    k: int = 8,
    metric: Literal["cosine", "euclidean"] = "cosine",
    layer: str | None = None,
    **perturb_kwargs: Any,
) -> pd.DataFrame:
    r"""Rank the perturbations that may have led from control to an observed state :cite:p:`Cui2024`.

    The state of each candidate is predicted, and those nearest to the observed state come first.

    Parameters
    ----------
    adata
        Data set with the control cells, see :func:`scgpt.tl.perturb`.
    target_state
        Cells in the state, of any number, with log-normalised values; or the mean profile as a Series by gene.
    model
        As in :func:`scgpt.tl.perturb`; not needed where ``candidates`` are predictions.
    candidates
        Names of perturbations, or what :func:`scgpt.tl.perturb` predicted of them. By default all genes and treatments
        that the model was trained on, alone or in combinations, and all pairs of them.
    groupby
        Column of ``target_state.obs`` whose categories are states of their own.
    k
        How many to return for each state.
    metric
        ``"cosine"`` of the differences to control, or the ``"euclidean"`` distance of the profiles.
    layer
        Layer with log-normalised values, of both data sets, ``"X"`` for ``.X``; by default the one that candidates are
        predicted from.
    **perturb_kwargs
        For :func:`scgpt.tl.perturb`.

    Returns
    -------
    A row for each state and rank, with ``state`` (the category; "" without ``groupby``), ``rank`` from 1,
    ``perturbation``, and ``similarity`` (cosine, higher is nearer) or ``distance``.

    Raises
    ------
    KeyError
        When a column or layer is not there, or a candidate is neither gene nor treatment of the model.
    ValueError
        When no gene is shared; when the state does not differ from control, is not known of each gene, or its values are
        raw counts; when ``k`` or ``metric`` make no sense.

    Examples
    --------
    >>> import scanpy as sc
    >>> import scgpt
    >>> adata = sc.datasets.pbmc68k_reduced()[:60].raw.to_adata()
    >>> adata.obs["perturbation"] = ["control", "CD79A", "NKG7"] * 20  # made up
    >>> names = ["CD79A", "NKG7", "CD79A+NKG7"]
    >>> predicted = scgpt.metrics.baselines.additive(adata, names)  # or of scgpt.tl.perturb
    >>> state = adata[adata.obs["perturbation"] == "NKG7"]  # cells in a state that something led to
    >>> ranking = scgpt.tl.reverse_perturb(adata, state, candidates=predicted)
    >>> ranking[["rank", "perturbation"]]
       rank perturbation
    0     1         NKG7
    1     2   CD79A+NKG7
    2     3        CD79A
    """
    import pandas as pd
    from anndata import AnnData
    from scipy.spatial.distance import cdist

    from scgpt.data import check_anndata, check_whole
    from scgpt.model import SCGPTPerturbation

    from ._perturb import perturb

    check_anndata(adata)
    check_whole(k, "k")
    if metric not in ("cosine", "euclidean"):
        raise ValueError(f"metric must be 'cosine' or 'euclidean', not {metric!r}.")
    if isinstance(candidates, AnnData):
        if perturb_kwargs or model is not None:
            raise ValueError("These candidates are predicted already: leave out model= and what is for predicting.")
        if "delta" not in candidates.layers or "perturbation" not in candidates.obs:
            raise ValueError("candidates= must be names, or what scgpt.tl.perturb returned.")
        states = _states(target_state, groupby, layer or candidates.uns.get("scgpt", {}).get("X", {}).get("layer"))
    else:
        if model is None:
            raise ValueError("Pass a model to predict candidates with, or candidates that were predicted.")
        if not isinstance(model, SCGPTPerturbation):
            model = SCGPTPerturbation.from_pretrained(model)
        states = _states(target_state, groupby, model.layer_of(layer))  # before the predictions, not after them
        named = _all_of(model) if candidates is None else candidates
        candidates = perturb(adata, named, model=model, layer=layer, **perturb_kwargs)
    genes = candidates.var_names[candidates.var_names.isin(states.columns)]
    if not len(genes):
        raise ValueError("The state and the candidates share no gene.")
    if missing := int(states[genes].isna().any().sum()):
        raise ValueError(f"The state is not known of {missing} genes, which are NaN; leave them out.")
    # Differences to the same control cells that candidates were predicted from.
    delta = pd.DataFrame(candidates.layers["delta"], columns=candidates.var_names)[genes]
    start = pd.DataFrame(np.asarray(candidates.X) - candidates.layers["delta"], columns=candidates.var_names)[genes]
    names = candidates.obs["perturbation"].astype(str).to_numpy()
    delta = delta.groupby(names, sort=False).mean()
    change = states[genes] - start.mean(axis=0)
    if metric == "cosine":
        length = np.linalg.norm(change.to_numpy(), axis=1, keepdims=True)
        if (length < _NO_CHANGE).any():
            raise ValueError("The state does not differ from control; there is nothing to search for.")
        lengths = np.linalg.norm(delta.to_numpy(), axis=1)
        score = (change.to_numpy() / length) @ (delta.to_numpy() / np.maximum(lengths, 1e-12)[:, None]).T
        order = np.argsort(-score, axis=1, kind="stable")
    else:
        score = cdist(change.to_numpy(), delta.to_numpy())
        order = np.argsort(score, axis=1, kind="stable")
    rows = [
        {
            "state": state,
            "rank": rank,
            "perturbation": delta.index[place],
            "similarity" if metric == "cosine" else "distance": float(score[i, place]),
        }
        for i, state in enumerate(states.index)
        for rank, place in enumerate(order[i, :k], start=1)
    ]
    return pd.DataFrame(rows)


def _all_of(model: SCGPTPerturbation) -> list[str]:
    """Return all that cells of a model's data were perturbed by, and all pairs of it."""
    from scgpt.metrics import perturbed_by

    names = model.names
    single = sorted({part for name in model.trained_on for part in perturbed_by(name, sep=names.sep)})
    return single + [names.sep.join(pair) for pair in combinations(single, 2)]


def _states(target_state: AnnData | pd.Series, groupby: str | None, layer: str | None) -> pd.DataFrame:
    """Return the mean profile of each state, by gene."""
    import pandas as pd
    from anndata import AnnData

    from scgpt.data import Cells, as_text, check_log_normalised, column_of, in_memory

    if isinstance(target_state, pd.Series):
        if twice := sorted(set(target_state.index[target_state.index.duplicated()])):
            raise ValueError(f"target_state has several values of genes {twice[:5]}.")
        return target_state.astype(float).to_frame("").T
    if not isinstance(target_state, AnnData):
        raise TypeError(f"target_state must be an AnnData or a Series, not {type(target_state).__name__}.")
    if not target_state.n_obs:
        raise ValueError("target_state has no cell.")
    layer = None if layer == "X" else layer
    check_log_normalised(target_state, layer, "target_state: the")
    labels = np.full(target_state.n_obs, "", dtype=object)
    if groupby is not None:
        given = column_of(in_memory(target_state.obs), groupby, "groupby", "target_state.obs")
        labels = as_text(given, groupby, "target_state.obs").to_numpy()
    cells = Cells(target_state, np.arange(target_state.n_vars), layer=layer)
    means = {
        state: np.asarray(cells.rows(np.flatnonzero(labels == state)).mean(axis=0, dtype=np.float64)).ravel()
        for state in sorted({label for label in labels if isinstance(label, str)})
    }
    if not means:
        raise ValueError(f"No cell of target_state has a state in .obs[{groupby!r}].")
    of_genes = pd.DataFrame(means, index=target_state.var_names)
    return of_genes[~of_genes.index.duplicated()].T
