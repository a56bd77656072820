"""Scores of predicted perturbations."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ._bootstrap import with_intervals
from ._messages import listed, warn_user
from ._moments import LogValues
from ._perturbation_inputs import centre_of, check_finite, check_n_top, profiles_of, shared_genes, targets_of
from ._perturbation_table import COUNTS, Centroids, score_table
from ._perturbations import PERTURBATION_KEY, PerturbationGroups

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData


@dataclass(frozen=True)
class PerturbationScores:
    """What :func:`perturbation_scores` and :func:`replicate_ceiling` return.

    Parameters
    ----------
    overall
        A score under each name.
    per_perturbation
        A row for each perturbation.

    Examples
    --------
    >>> import scanpy as sc
    >>> import scgpt
    >>> adata = sc.datasets.pbmc68k_reduced()[:60].raw.to_adata()
    >>> adata.obs["perturbation"] = ["control", "CD79A", "NKG7"] * 20  # made up
    >>> predicted = scgpt.metrics.baselines.no_change(adata, ["CD79A", "NKG7"])
    >>> scores = scgpt.metrics.perturbation_scores(adata, predicted)
    >>> scores.per_perturbation["n_cells"].to_dict()
    {'CD79A': 20, 'NKG7': 20}
    """

    overall: pd.Series
    per_perturbation: pd.DataFrame


def perturbation_scores(
    observed: AnnData,
    predicted: AnnData,
    *,
    perturbation_key: str = PERTURBATION_KEY,
    control: str = "control",
    sep: str = "+",
    layer: str | None = None,
    reference: AnnData | None = None,
    n_top: int = 20,
    n_bootstrap: int = 0,
    seed: int = 0,
) -> PerturbationScores:
    r"""Score predicted expression under perturbations against what was observed.

    Every predicted perturbation is scored. Predictions may be mean profiles, one row each, or cells, several rows each;
    all scores but ``overlap_at_N`` are of their means. Let :math:`x` be the observed mean of the cells of a
    perturbation, :math:`\hat x` the predicted one, :math:`c` the mean of the observed control cells, and
    :math:`\delta = x - c`, :math:`\hat\delta = \hat x - c` the changes. Whatever control cells are among the
    predictions have no part.

    Correlations, 1 at best, are Pearson's over genes:

    - ``pearson``: of :math:`x` and :math:`\hat x`. Near 1 for all methods, as the unchanged control is, too.
    - ``pearson_delta``: of :math:`\delta` and :math:`\hat\delta` :cite:p:`Roohani2024`. Where perturbed cells have much
      in common, predicting the same for all perturbations scores well :cite:p:`VinasTorne2025`.
    - ``pearson_delta_top20``: the same over the 20 genes that differ most between the observed cells and control, by
      the absolute value of Welch's t, as :func:`scanpy.tl.rank_genes_groups` ranks them and GEARS uses them.
    - ``pearson_delta_top20_nondropout``: the same over the first 20 of that ranking that GEARS counts as no dropout:
      expressed in some cell of the perturbation, or in neither these nor control.
    - ``pearson_centroid_delta``: of :math:`x - m` and :math:`\hat x - m`, with :math:`m` the mean over perturbations of
      their mean profiles: what perturbations have in common is taken away :cite:p:`VinasTorne2025`.
    - ``pearson_centroid_delta_top20``: the same over the 20 genes of ``pearson_delta_top20_nondropout``, as there.

    Errors, 0 at best:

    - ``mse_delta``, ``mae_delta``: mean squared and mean absolute difference of :math:`\delta` and :math:`\hat\delta`
      over genes :cite:p:`Adduri2025`.
    - ``l2_top1000``: Euclidean distance of :math:`x` and :math:`\hat x` over the 1,000 genes with the highest mean in
      control :cite:p:`AhlmannEltze2025`; over all genes where there are fewer.

    Whether a prediction is that of its own perturbation, 1 at best and about 0.5 by chance:

    - ``centroid_accuracy``: share of the other observed mean profiles that are farther from :math:`\hat x` than
      :math:`x` is, by Euclidean distance :cite:p:`VinasTorne2025`. All perturbations in ``observed`` compete.
    - ``discrimination_l1``, ``..._l2``, ``..._cosine``: :math:`1 - r / n`, where :math:`r` of the :math:`n` scored
      perturbations have a :math:`\delta` that is nearer to :math:`\hat\delta` than the true one is, by Manhattan,
      Euclidean or cosine distance. The genes that the perturbation perturbs are left out :cite:p:`Adduri2025`. Of equal
      distances half count as nearer.

    Genes that differ, those :math:`N` with a false discovery rate below 0.05 by the test of Mann and Whitney of the
    observed cells against control, as in cell-eval; 1 at best:

    - ``direction_match``: share of them whose :math:`\hat\delta` has the sign of :math:`\delta` :cite:p:`Adduri2025`.
      No change is the wrong sign.
    - ``delta_overlap_at_N``: share of the :math:`N` genes with the largest :math:`|\delta|` that are among the
      :math:`N` with the largest :math:`|\hat\delta|`, none of no change. It needs no predicted cells, so all methods
      can be compared by it.
    - ``overlap_at_N``: share of the differing genes that are among those :math:`N` that differ most in predicted cells,
      by the logarithm of the fold change of :math:`e^{\hat x} - 1`; none count that do not differ by the same test
      of predicted cells against observed control cells :cite:p:`Adduri2025`. NaN for predictions of one row.

    A score is NaN where it is undefined, and no part of the mean over perturbations: correlations of something
    constant, as of a predicted change of zero; what needs a test, of a single cell; what needs genes that differ, where
    none do; what needs other perturbations, where there are none. GEARS counts the first as 0, cell-eval a perturbation
    without differing genes.

    Parameters
    ----------
    observed
        Cells by genes: control cells, and cells of all predicted perturbations. Cells of other perturbations serve in
        ``centroid_accuracy``, and where ``reference`` is not given. Pass those that the method was not fitted on.
    predicted
        Predictions by genes, log-normalised in ``.X``; their names in ``.obs[perturbation_key]`` or, in its absence, in
        ``.obs["perturbation"]``.
    perturbation_key
        Column of ``.obs`` with the perturbations: genes joined by ``sep``, in any order.
    control
        Label of control cells. ``"A+ctrl"`` with the label ``"ctrl"`` is the same as ``"A"``.
    sep
        Between the genes of one perturbation.
    layer
        Layer of ``observed`` and of ``reference`` with log-normalised values; ``.X`` by default.
    reference
        Training cells, whose perturbations make the :math:`m` of ``pearson_centroid_delta``, as in its paper; by
        default those of ``observed``. It needs all scored genes.
    n_top
        Number of genes that differ most; their scores are named after it.
    n_bootstrap
        Times to draw perturbations with replacement for 95 % intervals. Predictions and cells are held fixed, so they
        tell of the choice of perturbations alone.
    seed
        Of the draws.

    Returns
    -------
    ``.overall``
        Means over perturbations; with ``n_bootstrap``, after each its ``..._low`` and ``..._high``.
    ``.per_perturbation``
        A row for each scored perturbation, by its name with genes in alphabetical order: ``n_cells`` observed,
        ``n_significant`` genes, and the scores.

    Raises
    ------
    KeyError
        When a column or layer is not there.
    ValueError
        When nothing is predicted, or something that was not observed; when no gene is in both; when there is no control
        cell; when names are missing or make no sense; when values are NaN or infinite.

    Warns
    -----
    UserWarning
        When genes are in one of the two only and left out, when perturbations have fewer than 5 cells, or when
        ``observed`` seems to hold counts.

    Examples
    --------
    >>> import numpy as np
    >>> import scanpy as sc
    >>> import scgpt
    >>> adata = sc.datasets.pbmc68k_reduced()[:120].raw.to_adata()
    >>> adata.obs["perturbation"] = ["control", "CD79A", "NKG7"] * 40  # made up
    >>> train, test = adata[:60], adata[60:]
    >>> predicted = scgpt.metrics.baselines.additive(train, ["CD79A", "NKG7"])  # or scgpt.tl.perturb
    >>> scores = scgpt.metrics.perturbation_scores(test, predicted, reference=train)
    >>> scores.overall.index[:3].tolist(), scores.per_perturbation["n_cells"].tolist()
    (['pearson', 'pearson_delta', 'pearson_delta_top20'], [20, 20])
    >>> bool(scores.overall["pearson"] > 0.9)  # as that of no change at all is
    True
    """
    check_n_top(n_top)
    groups = PerturbationGroups.of(observed, perturbation_key, control, sep)
    key = perturbation_key if perturbation_key in predicted.obs else PERTURBATION_KEY
    guesses = PerturbationGroups.of(predicted, key, control, sep, needs_control=False)
    names = guesses.names
    if not names:
        raise ValueError("There is no prediction of a perturbation to score.")
    if strange := [name for name in names if name not in groups.rows]:
        raise ValueError(
            f"{len(strange)} predicted perturbations have no observed cells to be scored against: {listed(strange)}."
        )
    groups.warn_of_few_cells(names)
    columns, columns_predicted = shared_genes(observed, predicted)
    genes = observed.var_names[columns]

    cells, guess = LogValues.of(observed, layer, columns), LogValues.of(predicted, None, columns_predicted)
    if cells.look_like_counts:
        where = "`.X`" if layer is None else f"Layer {layer!r}"
        warn_user(f"{where} of the observed cells seems to hold counts; scores are meant for log-normalised values.")
    centroids = cells.moments([*groups.rows.values(), groups.control_rows])
    check_finite(centroids, [*groups.names, control], "observed")
    check_finite(guess.moments(list(guesses.rows.values())), names, "predicted")

    means = centroids.mean[:-1]
    centre = means.mean(0) if reference is None else centre_of(reference, genes, perturbation_key, control, sep, layer)
    table = score_table(
        profiles_of(cells, [groups.rows[name] for name in names], cells, groups.control_rows, centre),
        profiles_of(guess, list(guesses.rows.values()), cells, groups.control_rows, centre),
        Centroids(means, np.array([groups.names.index(name) for name in names])),
        targets_of(names, genes, control, sep),
        n_top,
    )
    return summarised(table, names, n_bootstrap, seed)


def summarised(
    table: Mapping[str, NDArray[np.float64]], names: list[str], n_bootstrap: int, seed: int
) -> PerturbationScores:
    """Put means of scores over perturbations beside the scores."""
    import pandas as pd

    per_perturbation = pd.DataFrame(dict(table), index=pd.Index(names, name=PERTURBATION_KEY))

    def means(weights: NDArray[np.float64]) -> dict[str, float]:
        return {name: _mean(values, weights) for name, values in table.items() if name not in COUNTS}

    scores = means(np.ones(len(names)))
    if n_bootstrap:
        scores = with_intervals(scores, means, len(names), n_bootstrap, seed, set(scores))
    return PerturbationScores(pd.Series(scores, dtype=np.float64), per_perturbation)


def _mean(values: NDArray[np.float64], weights: NDArray[np.float64]) -> float:
    """Return a weighted mean of those that are defined; NaN where there are none."""
    defined = ~np.isnan(values)
    total = weights[defined].sum()
    return float(values[defined] @ weights[defined] / total) if total else np.nan
