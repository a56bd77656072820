"""Perturbations: expression under perturbations that were not observed, by simple rules."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ._pseudobulks import Pseudobulks, predictions

if TYPE_CHECKING:
    from anndata import AnnData


def no_change(
    adata: AnnData,
    perturbations: Iterable[str],
    *,
    perturbation_key: str = "perturbation",
    control: str = "control",
    sep: str = "+",
    layer: str | None = None,
) -> AnnData:
    """Predict that nothing changes: the mean of the control cells for every perturbation.

    Scores of changes that correlate are undefined for it; errors are a mark to stay below :cite:p:`AhlmannEltze2025`.

    Parameters
    ----------
    adata
        Training cells by genes, control cells among them.
    perturbations
        Names of the perturbations to predict, such as ``split.test``; order of genes in a name has no meaning.
    perturbation_key
        Column of ``.obs`` with the perturbations: genes joined by ``sep``, in any order.
    control
        Label of control cells. ``"A+ctrl"`` with the label ``"ctrl"`` is the same as ``"A"``.
    sep
        Between the genes of one perturbation.
    layer
        Layer with log-normalised values; ``.X`` by default.

    Returns
    -------
    Perturbations by genes, in the form that :func:`~scgpt.metrics.perturbation_scores` takes, in the order asked for:

    ``.X``
        ``(n_perturbations, n_genes)`` float32, predicted mean of log-normalised values.
    ``.layers["delta"]``
        float32, change from the mean of the control cells in ``adata``.
    ``.obs["perturbation"]``
        Name of the perturbation, its genes in alphabetical order; ``.obs_names``, too.
    ``.obs["fallback"]``
        The genes of it that the baseline knew nothing of, joined by ``sep``; empty where there are none.
    ``.uns["baseline"]``
        How it was made.

    Raises
    ------
    KeyError
        When a column or layer is not there.
    ValueError
        When there is no control cell; when names are missing, given twice, make no sense, or are control; when the
        names of genes are not unique.

    Warns
    -----
    UserWarning
        When values seem to be counts.

    Examples
    --------
    >>> import scanpy as sc
    >>> import scgpt
    >>> adata = sc.datasets.pbmc68k_reduced()[:60].raw.to_adata()
    >>> adata.obs["perturbation"] = ["control", "CD79A", "NKG7"] * 20  # made up
    >>> predicted = scgpt.metrics.baselines.no_change(adata, ["CD79A", "NKG7+CD79A"])
    >>> predicted.obs_names.tolist(), predicted.shape, float(abs(predicted.layers["delta"]).max())
    (['CD79A', 'CD79A+NKG7'], (2, 765), 0.0)
    """
    training = Pseudobulks.of(adata, perturbation_key, control, sep, layer)
    names = training.asked_for(perturbations)
    return predictions(training, names, np.zeros((len(names), len(training.genes))), "no_change")


def mean_of_perturbations(
    adata: AnnData,
    perturbations: Iterable[str],
    *,
    perturbation_key: str = "perturbation",
    control: str = "control",
    sep: str = "+",
    layer: str | None = None,
) -> AnnData:
    """Predict the mean of all perturbed training cells for every perturbation.

    The non-control mean of Systema :cite:p:`VinasTorne2025`: what all perturbations have in common, which correlates
    well with most changes from control. Cells count alike, so perturbations count by their cells.

    Parameters
    ----------
    adata
        As in :func:`no_change`, with perturbed cells.
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

    Returns
    -------
    As :func:`no_change`.

    Raises
    ------
    KeyError
        As :func:`no_change`.
    ValueError
        As :func:`no_change`, and when no training cell is perturbed.

    Examples
    --------
    >>> import scanpy as sc
    >>> import scgpt
    >>> adata = sc.datasets.pbmc68k_reduced()[:60].raw.to_adata()
    >>> adata.obs["perturbation"] = ["control", "CD79A", "NKG7"] * 20  # made up
    >>> predicted = scgpt.metrics.baselines.mean_of_perturbations(adata, ["CD79A", "LYZ"])
    >>> bool((predicted.X[0] == predicted.X[1]).all())  # the same for all
    True
    """
    training = Pseudobulks.of(adata, perturbation_key, control, sep, layer, needs_perturbed=True)
    names = training.asked_for(perturbations)
    return predictions(training, names, np.tile(training.mean_change, (len(names), 1)), "mean_of_perturbations")


def matching_mean(
    adata: AnnData,
    perturbations: Iterable[str],
    *,
    perturbation_key: str = "perturbation",
    control: str = "control",
    sep: str = "+",
    layer: str | None = None,
) -> AnnData:
    """Predict a combination as the mean of what its genes do alone.

    The matching mean of Systema :cite:p:`VinasTorne2025`: for A+B the mean of the mean profiles of A and of B. A gene
    that training cells do not have alone stands for the mean of all perturbed training cells, which is therefore
    predicted for unseen single genes.

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

    Returns
    -------
    As :func:`no_change`; ``.obs["fallback"]`` has the genes that training cells do not have alone.

    Raises
    ------
    KeyError
        As :func:`no_change`.
    ValueError
        As :func:`mean_of_perturbations`.

    Examples
    --------
    >>> import scanpy as sc
    >>> import scgpt
    >>> adata = sc.datasets.pbmc68k_reduced()[:60].raw.to_adata()
    >>> adata.obs["perturbation"] = ["control", "CD79A", "NKG7"] * 20  # made up
    >>> predicted = scgpt.metrics.baselines.matching_mean(adata, ["CD79A+NKG7", "CD79A+LYZ"])
    >>> predicted.obs["fallback"].to_dict()  # no cell was perturbed in LYZ
    {'CD79A+NKG7': '', 'CD79A+LYZ': 'LYZ'}
    """
    training = Pseudobulks.of(adata, perturbation_key, control, sep, layer, needs_perturbed=True)
    names = training.asked_for(perturbations)
    changes, unseen = _single_changes(training, names)
    return predictions(training, names, np.array([c.mean(0) for c in changes]), "matching_mean", unseen)


def additive(
    adata: AnnData,
    perturbations: Iterable[str],
    *,
    perturbation_key: str = "perturbation",
    control: str = "control",
    sep: str = "+",
    layer: str | None = None,
) -> AnnData:
    """Predict a combination as the sum of what its genes do alone.

    Control plus the change of each gene :cite:p:`AhlmannEltze2025`. Combinations in training are not used, not for
    themselves either. A gene that training cells do not have alone stands for the mean change of all perturbed training
    cells; the authors predict only where all are seen.

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

    Returns
    -------
    As :func:`no_change`; ``.obs["fallback"]`` has the genes that training cells do not have alone.

    Raises
    ------
    KeyError
        As :func:`no_change`.
    ValueError
        As :func:`mean_of_perturbations`.

    Examples
    --------
    >>> import numpy as np
    >>> import scanpy as sc
    >>> import scgpt
    >>> adata = sc.datasets.pbmc68k_reduced()[:60].raw.to_adata()
    >>> adata.obs["perturbation"] = ["control", "CD79A", "NKG7"] * 20  # made up
    >>> change = scgpt.metrics.baselines.additive(adata, ["CD79A", "NKG7", "CD79A+NKG7"]).layers["delta"]
    >>> np.allclose(change[0] + change[1], change[2], atol=1e-5)
    True
    """
    training = Pseudobulks.of(adata, perturbation_key, control, sep, layer, needs_perturbed=True)
    names = training.asked_for(perturbations)
    changes, unseen = _single_changes(training, names)
    return predictions(training, names, np.array([c.sum(0) for c in changes]), "additive", unseen)


def _single_changes(training: Pseudobulks, names: list[str]) -> tuple[list[NDArray[np.float64]], list[list[str]]]:
    """Return for each name ``(n_perturbed, n_genes)`` changes of its genes alone, and the genes not seen alone."""
    change_of = dict(zip(training.names, training.changes, strict=True))
    genes_of = [training.genes_of(name) for name in names]
    changes = [np.array([change_of.get(gene, training.mean_change) for gene in genes]) for genes in genes_of]
    return changes, [[gene for gene in genes if gene not in change_of] for genes in genes_of]
