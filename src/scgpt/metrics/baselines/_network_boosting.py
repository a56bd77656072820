"""Networks: what boosted trees predict a gene from."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ._network_inputs import cell_values, gene_columns

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData

# Trees whose mean improvement decides whether more are grown.
_WINDOW = 25


def grnboost2(
    adata: AnnData,
    regulators: Iterable[str],
    *,
    genes: Iterable[str] | None = None,
    layer: str | None = None,
    normalize: bool = True,
    max_trees: int = 5000,
    seed: int = 0,
    n_jobs: int = 1,
) -> pd.DataFrame:
    """GRNBoost2 :cite:p:`Moerman2019`, on scikit-learn alone.

    Each target is predicted from the regulators by stochastic gradient boosting, with the settings of the paper: trees
    of depth 3 on 90 % of the cells, a tenth of the regulators to choose each split from, and a learning rate of 0.01.
    Trees are grown until the last 25 do not improve, on average, the prediction of the cells that each left out. The
    score of a regulator is its importance, which is its share of what the trees explain, times the number of trees: a
    target that is predicted better gets more trees and higher scores. A gene does not regulate itself.

    Values are log-normalised by default. The original takes whatever it is given.

    A target takes about a second with 1,000 cells and 200 regulators, and several with 3,000 and 300.

    Parameters
    ----------
    adata
        Cells by genes.
    regulators
        Names in ``.var_names``. Their values are made dense.
    genes
        Names of the targets in ``.var_names``; all by default.
    layer
        As in :func:`coexpression`.
    normalize
        As in :func:`coexpression`.
    max_trees
        Most trees for a target.
    seed
        Of the trees. Those of a target depend on it and on the target's name, not on the order of genes, on which other
        targets there are, or on ``n_jobs``.
    n_jobs
        Number of processes; -1 for all cores.

    Returns
    -------
    Regulators by genes, in the form that :func:`~scgpt.metrics.network_scores` takes; 0 for a gene and itself, and for
    genes that do not vary.

    Raises
    ------
    KeyError
        As :func:`coexpression`.
    ValueError
        As :func:`coexpression`; when ``max_trees`` is not positive.

    Examples
    --------
    >>> import scanpy as sc
    >>> import scgpt
    >>> adata = sc.datasets.pbmc68k_reduced()[::5].raw.to_adata()  # log-normalised values
    >>> regulators, genes = ["CD79A", "CST7", "LYZ"], ["NKG7", "HLA-DRA"]
    >>> network = scgpt.metrics.baselines.grnboost2(adata, regulators, genes=genes, normalize=False, max_trees=50)
    >>> network["NKG7"].idxmax()
    'CST7'
    """
    import pandas as pd
    from sklearn.utils.parallel import Parallel, delayed

    if max_trees < 1:
        raise ValueError(f"max_trees has to be 1 or more, and is {max_trees}.")
    rows, columns = gene_columns(adata, regulators, "regulators"), gene_columns(adata, genes, "genes")
    values = cell_values(adata, layer, normalize)
    # Which regulators a tree may choose from is drawn by their place: it must not be that in the data.
    by_name = rows[np.argsort(adata.var_names[rows].to_numpy(dtype=str))]
    predictors = _dense(values[:, by_name])
    targets = values[:, columns] if isinstance(values, np.ndarray) else values[:, columns].tocsc()
    names = adata.var_names[columns]
    importances = Parallel(n_jobs=n_jobs)(
        delayed(_importances)(
            predictors, _dense(targets[:, [i]]).ravel(), by_name == column, max_trees, _seed_of(seed, name)
        )
        for i, (column, name) in enumerate(zip(columns, names, strict=True))
    )
    table = pd.DataFrame(
        np.transpose(importances), adata.var_names[by_name].rename("regulator"), names.rename("target")
    )
    return table.reindex(adata.var_names[rows].rename("regulator"))


def _importances(
    predictors: NDArray[np.float32],
    target: NDArray[np.float32],
    itself: NDArray[np.bool_],
    max_trees: int,
    seed: int,
) -> NDArray[np.float64]:
    """Return a score of each predictor, 0 for the target itself."""
    from sklearn.ensemble import GradientBoostingRegressor

    out = np.zeros(len(itself))
    # Of a constant target no tree makes the prediction worse, so that nothing would stop them.
    if itself.all() or target.min() == target.max():
        return out
    model = GradientBoostingRegressor(
        n_estimators=max_trees, learning_rate=0.01, max_depth=3, max_features=0.1, subsample=0.9, random_state=seed
    )
    model.fit(predictors[:, ~itself] if itself.any() else predictors, target, monitor=_Monitor(target))
    out[~itself] = model.feature_importances_ * len(model.estimators_)
    return out


class _Monitor:
    """Tells scikit-learn after each tree whether to stop.

    ``oob_improvement_`` does not serve: in scikit-learn 1.9 it is the difference of errors of the cells that one tree
    left out and of others that the tree before left out, so that chance stops nearly all targets at once.
    """

    def __init__(self, target: NDArray[np.floating]) -> None:
        self._errors = (target - target.mean(dtype=np.float64)) ** 2
        self._target = target
        self._improvements: list[float] = []

    def __call__(self, _: int, model: Any, fit: Mapping[str, Any]) -> bool:
        errors = (self._target - fit["raw_predictions"][:, 0]) ** 2
        self._improvements.append(float((self._errors - errors)[~fit["sample_mask"]].mean()))
        self._errors = errors
        return len(self._improvements) >= _WINDOW and bool(np.mean(self._improvements[-_WINDOW:]) < 0)


def _seed_of(seed: int, name: str) -> int:
    digest = hashlib.sha256(f"{seed} {name}".encode()).digest()
    return int.from_bytes(digest[:4])


def _dense(values: Any) -> NDArray[np.float32]:
    return values if isinstance(values, np.ndarray) else values.toarray()
