"""Perturbations: linear models of how genes respond and of what perturbs them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from scgpt.metrics._messages import listed

from ._pseudobulks import Pseudobulks, predictions

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData


def bilinear_ridge(
    adata: AnnData,
    perturbations: Iterable[str],
    *,
    perturbation_key: str = "perturbation",
    control: str = "control",
    sep: str = "+",
    layer: str | None = None,
    n_components: int = 10,
    ridge: float = 0.1,
    gene_embedding: pd.DataFrame | None = None,
    perturbation_embedding: pd.DataFrame | None = None,
) -> AnnData:
    r"""Linear model of genes and perturbed genes, not beaten by foundation models :cite:p:`AhlmannEltze2025`.

    The mean changes :math:`Y` (genes by training conditions), less the mean :math:`b` of each row, are fitted as
    :math:`G W P^\top`, with rows :math:`G` for genes and :math:`P` for conditions, and

    .. math:: W = (G^\top G + \lambda I)^{-1} G^\top (Y - b) P (P^\top P + \lambda I)^{-1}.

    A perturbation with the row :math:`p` is predicted to change expression by :math:`G W p + b`. By default the rows of
    :math:`G` are the genes' principal components over the mean profiles of the training conditions, and those of
    :math:`P` are the rows of the perturbed genes there. As in the authors' code, control is one of the conditions, with
    no change, and the row of a combination is the sum of those of its genes.

    Training perturbations of a gene without a row in :math:`P`, as when it was not measured, are not fitted; such ones
    to be predicted get the mean of all perturbed training cells.

    Parameters
    ----------
    adata
        As in :func:`mean_of_perturbations`.
    perturbations
        As in :func:`no_change`.
    perturbation_key
        As in :func:`no_change`.
    control
        As in :func:`no_change`.
    sep
        As in :func:`no_change`.
    layer
        As in :func:`no_change`.
    n_components
        Number of principal components; fewer where there are fewer conditions or genes.
    ridge
        The penalty :math:`\lambda`.
    gene_embedding
        Rows of :math:`G` in place of the principal components, such as a model's embeddings of genes: a row for each
        name in ``.var_names``. Genes without a row are predicted to change by :math:`b`.
    perturbation_embedding
        Rows of :math:`P` in place of the principal components, a row for each gene that may be perturbed; see
        :func:`linear_transfer`. Control has the row under its label, 0 in its absence.

    Returns
    -------
    As :func:`no_change`; ``.obs["fallback"]`` has the genes without a row in :math:`P`.

    Raises
    ------
    KeyError
        As :func:`no_change`.
    ValueError
        As :func:`mean_of_perturbations`; when no training perturbation has a row in :math:`P`, or no gene in :math:`G`;
        when an embedding is not finite or has a name twice; when ``n_components`` or ``ridge`` is not positive.

    Examples
    --------
    >>> import scanpy as sc
    >>> import scgpt
    >>> adata = sc.datasets.pbmc68k_reduced()[:60].raw.to_adata()
    >>> adata.obs["perturbation"] = ["control", "CD79A", "NKG7"] * 20  # made up
    >>> predicted = scgpt.metrics.baselines.bilinear_ridge(adata, ["CD79A+NKG7", "LYZ"], n_components=2)
    >>> predicted.shape, predicted.obs["fallback"].tolist()
    ((2, 765), ['', ''])
    """
    _check(n_components, ridge)
    training = Pseudobulks.of(adata, perturbation_key, control, sep, layer, needs_perturbed=True)
    names = training.asked_for(perturbations)
    own = _components(training.conditions.T, training.genes, n_components)
    model = _Bilinear.fitted(
        training,
        own if gene_embedding is None else gene_embedding,
        own if perturbation_embedding is None else perturbation_embedding,
        ridge,
    )
    return model.predict(names, "bilinear_ridge", ridge=ridge)


def linear_transfer(
    adata: AnnData,
    perturbations: Iterable[str],
    source: AnnData,
    *,
    perturbation_key: str = "perturbation",
    control: str = "control",
    sep: str = "+",
    layer: str | None = None,
    n_components: int = 10,
    ridge: float = 0.1,
    gene_embedding: pd.DataFrame | None = None,
) -> AnnData:
    """The linear model of :func:`bilinear_ridge` with embeddings of perturbations from another experiment.

    What a perturbation does in the other cells is what it is known by: rows of :math:`P` are principal components of
    the mean profiles of all conditions in ``source``. It predicts better than embeddings from training cells
    :cite:p:`AhlmannEltze2025`, for perturbations that ``source`` has.

    Parameters
    ----------
    adata
        As in :func:`bilinear_ridge`.
    perturbations
        As in :func:`no_change`.
    source
        Cells of the other experiment, such as of another cell line; they must not be those to be predicted. Its genes
        may be others. Column, labels and layer are named as in ``adata``.
    perturbation_key
        As in :func:`no_change`.
    control
        As in :func:`no_change`.
    sep
        As in :func:`no_change`.
    layer
        As in :func:`no_change`.
    n_components
        As in :func:`bilinear_ridge`.
    ridge
        As in :func:`bilinear_ridge`.
    gene_embedding
        As in :func:`bilinear_ridge`.

    Returns
    -------
    As :func:`no_change`; ``.obs["fallback"]`` has the genes that ``source`` does not have alone, where the mean of all
    perturbed training cells is predicted.

    Raises
    ------
    KeyError
        As :func:`bilinear_ridge`.
    ValueError
        As :func:`bilinear_ridge`, of either data set.

    Examples
    --------
    >>> import scanpy as sc
    >>> import scgpt
    >>> adata = sc.datasets.pbmc68k_reduced()[:120].raw.to_adata()
    >>> adata.obs["perturbation"] = ["control", "CD79A", "NKG7", "LYZ"] * 30  # made up
    >>> source, target = adata[:60], adata[60:]  # such as two cell lines
    >>> target = target[target.obs["perturbation"] != "LYZ"]  # which is perturbed in the source alone
    >>> predicted = scgpt.metrics.baselines.linear_transfer(target, ["LYZ"], source, n_components=2)
    >>> predicted.shape, predicted.obs["fallback"].tolist()
    ((1, 765), [''])
    """
    _check(n_components, ridge)
    training = Pseudobulks.of(adata, perturbation_key, control, sep, layer, needs_perturbed=True)
    names = training.asked_for(perturbations)
    other = Pseudobulks.of(source, perturbation_key, control, sep, layer, needs_perturbed=True)
    of_conditions = _components(other.conditions, [control, *other.names], n_components)
    if gene_embedding is None:
        gene_embedding = _components(training.conditions.T, training.genes, n_components)
    return _Bilinear.fitted(training, gene_embedding, of_conditions, ridge).predict(
        names, "linear_transfer", ridge=ridge
    )


@dataclass(frozen=True)
class _Bilinear:
    """A fitted model.

    Parameters
    ----------
    training
        What it was fitted on.
    of_genes
        ``(n_genes, k)``, 0 for genes without an embedding.
    of_perturbed
        A row for each gene that may be perturbed.
    weights
        ``(k, l)``.
    center
        ``(n_genes,)`` mean change over conditions.
    n_fitted
        Number of perturbations it was fitted on.
    """

    training: Pseudobulks
    of_genes: NDArray[np.float64]
    of_perturbed: pd.DataFrame
    weights: NDArray[np.float64]
    center: NDArray[np.float64]
    n_fitted: int

    @classmethod
    def fitted(
        cls, training: Pseudobulks, gene_embedding: pd.DataFrame, perturbation_embedding: pd.DataFrame, ridge: float
    ) -> _Bilinear:
        _check_embedding(gene_embedding, "gene_embedding")
        _check_embedding(perturbation_embedding, "perturbation_embedding")
        if not training.genes.isin(gene_embedding.index).any():
            raise ValueError(f"gene_embedding has no row for any of the genes, which are {listed(training.genes, 3)}.")
        g = gene_embedding.reindex(training.genes).fillna(0.0).to_numpy(dtype=np.float64)
        p, known = _rows(perturbation_embedding, training, training.names)
        if not known.any():
            raise ValueError(
                f"No training perturbation is of genes that have an embedding: they are {listed(training.names)}. "
                "Perturbations have to be named as the genes in .var_names, or as what an embedding has rows for."
            )
        of_control = perturbation_embedding.reindex([training.control_label]).fillna(0.0).to_numpy(dtype=np.float64)
        p = np.concatenate([of_control, p[known]])
        y = np.concatenate([np.zeros((1, len(g))), training.changes[known]])
        center = y.mean(0)
        weights = _ridge(g, ridge) @ (y - center).T @ _ridge(p, ridge).T
        return cls(training, g, perturbation_embedding, weights, center, int(known.sum()))

    def predict(self, names: list[str], method: str, **params: float) -> AnnData:
        p, known = _rows(self.of_perturbed, self.training, names)
        changes = p @ self.weights.T @ self.of_genes.T + self.center
        changes[~known] = self.training.mean_change
        lacking = [
            [gene for gene in self.training.genes_of(name) if gene not in self.of_perturbed.index] for name in names
        ]
        return predictions(self.training, names, changes, method, lacking, n_fitted=self.n_fitted, **params)


def _rows(
    embedding: pd.DataFrame, training: Pseudobulks, names: Sequence[str]
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Return the sum of the rows of each perturbation's genes, and whether all of them have one; 0 where not."""
    genes_of = [list(training.genes_of(name)) for name in names]
    known = np.array([embedding.index.isin(genes).sum() == len(genes) for genes in genes_of], dtype=np.bool_)
    rows = np.zeros((len(names), embedding.shape[1]))
    for i in np.flatnonzero(known):
        rows[i] = embedding.loc[genes_of[i]].to_numpy(dtype=np.float64).sum(0)
    return rows, known


def _components(profiles: NDArray[np.float64], names: Sequence[str] | pd.Index, n_components: int) -> pd.DataFrame:
    """Return principal components of rows: scores, not scaled to the same variance."""
    import pandas as pd

    left, scale, _ = np.linalg.svd(profiles - profiles.mean(0), full_matrices=False)
    n = min(n_components, len(profiles) - 1, profiles.shape[1])
    return pd.DataFrame(left[:, :n] * scale[:n], index=pd.Index(names))


def _ridge(rows: NDArray[np.float64], penalty: float) -> NDArray[np.float64]:
    """Return the matrix that takes responses of rows to coefficients, in ridge regression."""
    return np.linalg.solve(rows.T @ rows + penalty * np.eye(rows.shape[1]), rows.T)


def _check(n_components: int, ridge: float) -> None:
    if n_components < 1 or ridge <= 0:
        raise ValueError(f"n_components and ridge have to be positive, and are {n_components} and {ridge}.")


def _check_embedding(embedding: pd.DataFrame, what: str) -> None:
    if not embedding.index.is_unique:
        twice = sorted(set(embedding.index[embedding.index.duplicated()].astype(str)))
        raise ValueError(f"{what} has several rows for {listed(twice)}.")
    if bad := int((~np.isfinite(embedding.to_numpy(dtype=np.float64))).any(1).sum()):
        raise ValueError(f"{what} is NaN or infinite in {bad} of {len(embedding)} rows: leave them out.")
