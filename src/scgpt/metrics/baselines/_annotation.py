"""Annotation: cell types, learnt from cells whose type is known."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from scgpt.metrics._columns import columns_of, named_codes_of

from ._cells import log_values, training_cells, variable_genes
from ._components import principal_components
from ._notes import note

if TYPE_CHECKING:
    from anndata import AnnData

    from ._cells import Cells, Matrix

# CellTypist makes what it predicts from dense.
_CHUNK = 2048


def majority_class(
    adata: AnnData, label_key: str, *, train: Cells | None = None, key_added: str = "majority_class"
) -> None:
    """Call every cell by the most frequent type of the training cells: what no method should fall below.

    The probability of a type is its share of the training cells. Of types that are equally frequent the first is taken,
    in the order of the categories.

    Parameters
    ----------
    adata
        Cells.
    label_key
        Column of ``.obs`` with the types; those of cells outside ``train`` are not read.
    train
        Cells to learn from: a mask, or names. All that have a type by default.
    key_added
        As in :func:`logistic_regression`.

    Returns
    -------
    None. Sets what :func:`logistic_regression` does.

    Raises
    ------
    KeyError
        When the column or a training cell is not there.
    ValueError
        When a training cell has no type.

    Examples
    --------
    >>> import scanpy as sc
    >>> import scgpt
    >>> adata = sc.datasets.pbmc68k_reduced()
    >>> scgpt.metrics.baselines.majority_class(adata, "bulk_labels")
    >>> adata.obs["majority_class"].unique().tolist(), round(float(adata.obs["majority_class_confidence"].iloc[0]), 3)
    (['Dendritic'], 0.343)
    """
    mask, codes, types = _training_types(adata, label_key, train)
    shares = np.bincount(codes) / len(codes)
    probabilities = np.tile(shares, (adata.n_obs, 1))
    _write(adata, key_added, types, probabilities, "majority_class", "numpy", label_key=label_key, n_train=len(codes))


def logistic_regression(
    adata: AnnData,
    label_key: str,
    *,
    penalty: Literal["l1", "l2"] = "l1",
    C: float = 1.0,
    layer: str | None = None,
    normalize: bool = True,
    n_top_genes: int | None = None,
    train: Cells | None = None,
    max_iter: int = 1000,
    seed: int = 0,
    key_added: str = "logistic_regression",
) -> None:
    """Logistic regression on log-normalised genes, which holds its own against foundation models.

    With the L1 penalty, one type against the rest by liblinear, as in the comparison with scGPT :cite:p:`Boiarsky2023`,
    where the strength of the penalty was chosen by cross-validation on the training cells; probabilities of the types are
    scaled to add up to one. With the L2 penalty, all types at once by L-BFGS. Genes are not standardised in either: they
    stay sparse, and a penalty on weights of log-normalised values favours genes that differ much.

    Parameters
    ----------
    adata
        Cells by genes.
    label_key
        Column of ``.obs`` with the types; those of cells outside ``train`` are not read.
    penalty
        On the weights of genes: ``"l1"`` leaves few genes with a weight.
    C
        Inverse of the strength of the penalty.
    layer
        Layer with counts; ``.X`` by default.
    normalize
        Scale the counts of each cell to 10,000 and take ``log1p`` first. False where the layer is log-normalised.
    n_top_genes
        Number of most variable genes among the training cells, as :func:`scanpy.pp.highly_variable_genes` finds them; all
        by default.
    train
        Cells to learn from, and to choose genes on: a mask, or names. All that have a type by default.
    max_iter
        Most iterations of the solver. A warning says when they were too few.
    seed
        Of the solver of the L1 penalty. That of the L2 penalty makes no random choice.
    key_added
        Key of ``.obs`` and ``.uns``, and what the other keys begin with.

    Returns
    -------
    None. Sets, for all cells:

    ``adata.obs[key_added]``
        Predicted type, a category of text.
    ``adata.obs[f"{key_added}_confidence"]``
        Probability of the predicted type, float32.
    ``adata.obsm[f"{key_added}_probabilities"]``
        DataFrame of float32, a column for each type of the training cells, with ``|`` for a slash, which h5ad files do not
        take; rows add up to one.
    ``adata.uns[key_added]``
        How it was made.

    Raises
    ------
    KeyError
        When a column, layer or training cell is not there.
    ValueError
        When a training cell has no type, or all have the same; when counts are asked for and not there; when values are NaN
        or infinite.

    Examples
    --------
    >>> import numpy as np
    >>> import scanpy as sc
    >>> import scgpt
    >>> adata = sc.datasets.pbmc68k_reduced()[::2].raw.to_adata()  # log-normalised values
    >>> train = np.arange(adata.n_obs) % 2 == 0
    >>> scgpt.metrics.baselines.logistic_regression(adata, "louvain", normalize=False, train=train)
    >>> scores = scgpt.metrics.annotation_scores(adata[~train], "louvain", "logistic_regression")
    >>> bool(scores.overall["accuracy"] > 0.7)
    True
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.multiclass import OneVsRestClassifier

    if penalty not in ("l1", "l2"):
        raise ValueError(f"penalty has to be 'l1' or 'l2', and is {penalty!r}.")
    mask, codes, types = _training_types(adata, label_key, train, fewest=2)
    values = _genes(adata, layer, normalize, n_top_genes, mask)
    model: Any = LogisticRegression(C=C, max_iter=max_iter)
    if penalty == "l1":
        # scikit-learn 1.8 put the ratio in place of the penalty's name.
        renamed = tuple(map(int, version("scikit-learn").split(".")[:2])) >= (1, 8)
        l1: Any = {"l1_ratio": 1.0} if renamed else {"penalty": "l1"}
        model = OneVsRestClassifier(model.set_params(solver="liblinear", random_state=seed, **l1))
    _fit(model, values[mask], codes, max_iter)
    _write(
        adata,
        key_added,
        types,
        model.predict_proba(values),
        "logistic_regression",
        "scikit-learn",
        label_key=label_key,
        penalty=penalty,
        C=C,
        n_genes=values.shape[1],
        n_train=len(codes),
        seed=seed,
    )


def knn_pca(
    adata: AnnData,
    label_key: str,
    *,
    n_neighbors: int = 15,
    layer: str | None = None,
    normalize: bool = True,
    n_top_genes: int | None = 2000,
    n_comps: int = 50,
    train: Cells | None = None,
    seed: int = 0,
    key_added: str = "knn_pca",
) -> None:
    """Vote of the nearest training cells among principal components of the most variable genes.

    Genes and components are those of the training cells, as :func:`pca` makes them. The probability of a type is its
    share of the neighbours, which have one vote each; of types with equal votes the first is taken, in the order of
    the categories. A training cell is a neighbour of itself.

    Parameters
    ----------
    adata
        Cells by genes.
    label_key
        Column of ``.obs`` with the types; those of cells outside ``train`` are not read.
    n_neighbors
        Number of training cells that vote, by Euclidean distance.
    layer
        As in :func:`logistic_regression`.
    normalize
        As in :func:`logistic_regression`.
    n_top_genes
        As in :func:`pca`.
    n_comps
        As in :func:`pca`.
    train
        As in :func:`logistic_regression`.
    seed
        Of the solver.
    key_added
        As in :func:`logistic_regression`.

    Returns
    -------
    None. Sets what :func:`logistic_regression` does.

    Raises
    ------
    KeyError, ValueError
        As :func:`logistic_regression` and :func:`pca`, and when there are fewer training cells than neighbours.

    Examples
    --------
    >>> import numpy as np
    >>> import scanpy as sc
    >>> import scgpt
    >>> adata = sc.datasets.pbmc68k_reduced()[::2].raw.to_adata()  # log-normalised values
    >>> train = np.arange(adata.n_obs) % 2 == 0
    >>> scgpt.metrics.baselines.knn_pca(adata, "louvain", normalize=False, train=train)
    >>> scores = scgpt.metrics.annotation_scores(adata[~train], "louvain", "knn_pca")
    >>> bool(scores.overall["accuracy"] > 0.5)
    True
    """
    from sklearn.neighbors import KNeighborsClassifier

    mask, codes, types = _training_types(adata, label_key, train, fewest=2)
    if not 0 < n_neighbors <= len(codes):
        raise ValueError(
            f"n_neighbors has to be between 1 and the number of training cells, {len(codes)}, and is {n_neighbors}."
        )
    components, n_genes = principal_components(adata, layer, normalize, None, n_top_genes, n_comps, mask, seed)
    model = KNeighborsClassifier(n_neighbors).fit(components[mask], codes)
    _write(
        adata,
        key_added,
        types,
        model.predict_proba(components),
        "knn_pca",
        "scikit-learn",
        label_key=label_key,
        n_neighbors=n_neighbors,
        n_comps=components.shape[1],
        n_genes=n_genes,
        n_train=len(codes),
        seed=seed,
    )


def celltypist(
    adata: AnnData,
    label_key: str,
    *,
    top_genes: int | None = None,
    max_iter: int | None = None,
    layer: str | None = None,
    normalize: bool = True,
    n_top_genes: int | None = None,
    train: Cells | None = None,
    seed: int = 0,
    key_added: str = "celltypist",
) -> None:
    """CellTypist :cite:p:`DominguezConde2022`, trained on the training cells.

    It is trained by stochastic gradient descent, as in its paper: logistic regression with an L2 penalty, one type
    against the rest, on standardised genes. (CellTypist's other solver does not run with scikit-learn 1.8 and later.)
    There is no majority vote among clusters: each cell is called by itself. CellTypist's probabilities are one for
    each type against the rest, and are scaled to add up to one.

    All other settings are CellTypist's own by default. Where genes are many and cells few, training to convergence on all genes
    fits noise: compare it at ``top_genes`` and ``max_iter`` that were chosen on the training cells.

    The training cells are made dense: 4,000 cells of 17,000 genes take a gigabyte, and minutes.

    Needs CellTypist: ``pip install celltypist``.

    Parameters
    ----------
    adata
        Cells by genes.
    label_key
        Column of ``.obs`` with the types; those of cells outside ``train`` are not read.
    top_genes
        Train twice: the second time on this number of genes for each type, those with the largest weights in the first.
        Once by default.
    max_iter
        Most passes over the training cells; by default what CellTypist chooses for their number, 1,000 for fewer than
        50,000. scikit-learn warns when they were too few.
    layer
        As in :func:`logistic_regression`.
    normalize
        As in :func:`logistic_regression`.
    n_top_genes
        As in :func:`logistic_regression`; this choice comes before that of ``top_genes``.
    train
        As in :func:`logistic_regression`.
    seed
        Of the solver.
    key_added
        As in :func:`logistic_regression`.

    Returns
    -------
    None. Sets what :func:`logistic_regression` does.

    Raises
    ------
    ImportError
        When CellTypist is not installed.
    KeyError, ValueError
        As :func:`logistic_regression`.

    Examples
    --------
    >>> import numpy as np
    >>> import scanpy as sc
    >>> import scgpt
    >>> adata = sc.datasets.pbmc68k_reduced()[::2].raw.to_adata()  # log-normalised values
    >>> train = np.arange(adata.n_obs) % 2 == 0
    >>> scgpt.metrics.baselines.celltypist(adata, "louvain", normalize=False, train=train, max_iter=20)
    >>> scores = scgpt.metrics.annotation_scores(adata[~train], "louvain", "celltypist")
    >>> bool(scores.overall["accuracy"] > 0.7)
    True
    """
    import anndata as ad
    import pandas as pd

    with _quiet_celltypist() as module:
        mask, codes, types = _training_types(adata, label_key, train, fewest=2)
        values = _genes(adata, layer, normalize, n_top_genes, mask)
        # Names of our own: those of the genes need not be unique.
        genes = [str(i) for i in range(values.shape[1])]
        # Values are as CellTypist expects them but for the sum of a cell, once genes have been chosen.
        selection: Any = {} if top_genes is None else {"feature_selection": True, "top_genes": top_genes}
        model = module.train(
            _dense(values[mask]),
            codes,
            genes=genes,
            use_SGD=True,
            max_iter=max_iter,
            check_expression=False,
            random_state=seed,
            **selection,
        )
        chunks = []
        for start in range(0, adata.n_obs, _CHUNK):
            chunk = ad.AnnData(_dense(values[start : start + _CHUNK]), var=pd.DataFrame(index=genes))
            chunks.append(module.annotate(chunk, model=model).probability_matrix[range(len(types))].to_numpy())
    scores = np.concatenate(chunks)
    totals = scores.sum(1, keepdims=True)
    # Far from all types, each of the probabilities may be 0 in double precision.
    probabilities = np.divide(scores, totals, out=np.full_like(scores, 1 / len(types)), where=totals > 0)
    _write(
        adata,
        key_added,
        types,
        probabilities,
        "celltypist",
        "celltypist",
        label_key=label_key,
        **({} if top_genes is None else {"top_genes": top_genes}),
        **({} if max_iter is None else {"max_iter": max_iter}),
        n_genes=values.shape[1],
        n_train=len(codes),
        seed=seed,
    )


def _training_types(
    adata: AnnData, label_key: str, train: Cells | None, fewest: int = 1
) -> tuple[NDArray[np.bool_], NDArray[np.intp], list[str]]:
    """Return a mask of the cells to learn from, their types as codes, and what these stand for."""
    if train is None and label_key in adata.obs:
        train = adata.obs[label_key].notna().to_numpy()
        if not train.any():
            raise ValueError(f"No cell has a label in .obs[{label_key!r}].")
    mask = training_cells(adata, train)
    codes, types = named_codes_of(adata, label_key, "label", mask)
    if len(types) < fewest:
        raise ValueError(f"All training cells have the same label in .obs[{label_key!r}]; two or more are needed.")
    return mask, codes, types


def _genes(
    adata: AnnData, layer: str | None, normalize: bool, n_top_genes: int | None, mask: NDArray[np.bool_]
) -> Matrix:
    """Return log-normalised values of all genes, or of those that vary most among the training cells."""
    values = log_values(adata, layer, normalize)
    if n_top_genes is None:
        return values
    return values[:, variable_genes(values[mask], n_top_genes)]


def _dense(values: Matrix) -> NDArray[np.float32]:
    return values if isinstance(values, np.ndarray) else values.toarray()


def _write(
    adata: AnnData,
    key: str,
    types: list[str],
    probabilities: NDArray[np.floating],
    method: str,
    distribution: str,
    **params: str | int | float,
) -> None:
    import pandas as pd

    probabilities = probabilities.astype(np.float32)
    adata.obs[key] = pd.Categorical.from_codes(probabilities.argmax(1), pd.Index(types))
    adata.obs[f"{key}_confidence"] = probabilities.max(1)
    adata.obsm[f"{key}_probabilities"] = pd.DataFrame(probabilities, adata.obs_names, columns_of(types))
    note(adata, key, method, distribution, **params)


def _fit(model: Any, values: Matrix, codes: NDArray[np.intp], max_iter: int) -> None:
    """Fit, and say once, for the line that called this package, that a solver did not converge; they say so each."""
    from sklearn.exceptions import ConvergenceWarning

    with warnings.catch_warnings(record=True) as caught:
        model.fit(values, codes)
    for warning in caught:
        if not issubclass(warning.category, ConvergenceWarning):
            warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)
    if any(issubclass(warning.category, ConvergenceWarning) for warning in caught):
        warnings.warn(
            f"The logistic regression did not converge in {max_iter} iterations: raise max_iter, lower C, or choose "
            "fewer genes by n_top_genes.",
            UserWarning,
            stacklevel=2,
            skip_file_prefixes=(str(Path(__file__).parents[2]),),
        )


@contextmanager
def _quiet_celltypist() -> Iterator[Any]:
    """Give CellTypist, without its messages, and undo that importing it sets up everybody's logging."""
    root = logging.getLogger()
    before = root.level, root.handlers[:]
    try:
        import celltypist as module
    except ImportError as error:
        raise ImportError("This baseline needs CellTypist: run `pip install celltypist`.") from error
    finally:
        root.setLevel(before[0])
        root.handlers[:] = before[1]
    level = module.logger.logger.level
    module.logger.set_level(logging.ERROR)
    try:
        yield module
    finally:
        module.logger.set_level(level)
