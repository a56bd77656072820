"""Scores of predicted cell types."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ._bootstrap import with_intervals
from ._calibration import CalibrationBins
from ._predictions import Predictions, confidence_of

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData

# Drawing cells with replacement adds to a sum of absolute differences, so an interval of it would lie too high.
_NO_INTERVAL = "ECE"


@dataclass(frozen=True)
class AnnotationScores:
    """What :func:`annotation_scores` returns.

    Parameters
    ----------
    overall
        A score under each name.
    per_type
        A row for each type that is true of some cell.

    Examples
    --------
    >>> import anndata
    >>> import pandas as pd
    >>> import scgpt
    >>> obs = pd.DataFrame({"cell_type": ["B", "B", "T", "T"], "scgpt_label": ["B", "T", "T", "T"]}, index=list("abcd"))
    >>> scores = scgpt.metrics.annotation_scores(anndata.AnnData(obs=obs), "cell_type")
    >>> scores.per_type["recall"].to_dict()
    {'B': 0.5, 'T': 1.0}
    """

    overall: pd.Series
    per_type: pd.DataFrame


def annotation_scores(
    adata: AnnData,
    label_key: str,
    prediction_key: str = "scgpt_label",
    *,
    confidence_key: str | None = None,
    probabilities: str | None = None,
    unknown_label: str | None = None,
    known_types: Iterable[str] | None = None,
    n_bins: int = 15,
    n_bootstrap: int = 0,
    seed: int = 0,
) -> AnnotationScores:
    r"""Score predicted cell types against true ones.

    All cells of ``adata`` are scored: pass those that the method was not fitted on. Names of types are compared as text.

    - ``accuracy``: share of cells whose predicted type is the true one.
    - ``macro_precision``, ``macro_recall``, ``macro_F1``: means over the types that are true of some cell, each counted
      alike, as scikit-learn gives them for these ``labels`` with ``zero_division=0``. The precision of a type that is
      never predicted is 0. A type that is predicted and true of no cell has no score of its own. ``macro_recall`` is
      what scikit-learn calls balanced accuracy.
    - ``weighted_F1``: mean over types, each counted by its cells.
    - ``ECE``: expected calibration error :cite:p:`Naeini2015,Guo2017` of the confidence of the predicted type. With
      the cells put into :math:`M` bins of equal width by their confidence,
      :math:`\sum_m \frac{|B_m|}{n} |\mathrm{acc}(B_m) - \mathrm{conf}(B_m)|`; lower is better. NaN where there is no
      confidence.

    With ``unknown_label``, cells that the method called so count as wrong, in accuracy and in the recall of their
    type. They have no part in the ECE. Added are

    - ``answered``: share of cells that were called something else.
    - ``accuracy_answered``: accuracy among these alone; NaN where there is none.

    With ``known_types``, cells of other types, which no answer would be right for, are left out of all of the above.
    Added are

    - ``unknown_AUROC``: probability that a cell of an unknown type has a lower confidence than one of a known type
      (ties count half); that is the area under the ROC curve of 1 minus the confidence as a sign of unknown types.
      All cells are ranked, whatever they were called. NaN where all types are known.
    - ``unknown_found``, with ``unknown_label``: share of the cells of unknown types that were called unknown; NaN where
      all types are known.

    Parameters
    ----------
    adata
        Cells with their true and predicted types.
    label_key
        Column of ``.obs`` with the true types.
    prediction_key
        Column of ``.obs`` with the predicted types.
    confidence_key
        Column of ``.obs`` with the confidence of the predictions, from 0 to 1. By default the one that stands beside
        ``prediction_key``: ``scgpt_confidence`` for ``scgpt_label``, ``x_confidence`` for ``x``; in its absence
        probabilities that stand there, as in ``scgpt_probabilities``.
    probabilities
        Key of ``.obsm`` with a DataFrame of probabilities, a column for each type (``|`` for a slash in its name, or the
        slash itself), to take the confidence from in place of ``confidence_key``: the probability of the predicted type, and of the likeliest where that is unknown.
    unknown_label
        Predicted by methods that may decline to answer.
    known_types
        Types that the method could have answered, where there are others among the true ones.
    n_bins
        Of the ECE.
    n_bootstrap
        Times to draw cells with replacement for 95 % intervals. Predictions are held fixed, so they tell of the
        choice of cells, not of training. Types without a cell in a draw are left out of it. The ECE has no interval:
        drawing with replacement raises it.
    seed
        Of the draws.

    Returns
    -------
    ``.overall``
        Scores as above, all from 0 to 1; with ``n_bootstrap``, after each its ``..._low`` and ``..._high``.
    ``.per_type``
        A row for each true type with ``support`` (number of cells), ``precision``, ``recall``, ``F1``,
        ``mean_confidence`` (of all its cells, whatever they were called; NaN where there is no confidence), and
        ``answered``, with ``unknown_label``. Precision, recall and F1 of unknown types are NaN.

    Raises
    ------
    KeyError
        When a column or the probabilities are not there.
    ValueError
        When labels or predictions are missing or ``unknown_label`` is among the true ones; when confidence or
        probabilities are no such; when no cell is of a known type, or there is no confidence to tell unknown ones by.

    Examples
    --------
    >>> import anndata
    >>> import pandas as pd
    >>> import scgpt
    >>> obs = pd.DataFrame(
    ...     {
    ...         "cell_type": ["B", "B", "T", "T"],
    ...         "scgpt_label": ["B", "T", "T", "Unknown"],
    ...         "scgpt_confidence": [0.9, 0.6, 0.8, 0.3],
    ...     },
    ...     index=["a", "b", "c", "d"],
    ... )
    >>> scores = scgpt.metrics.annotation_scores(anndata.AnnData(obs=obs), "cell_type", unknown_label="Unknown")
    >>> scores.overall[["accuracy", "answered", "macro_recall"]].to_dict()
    {'accuracy': 0.5, 'answered': 0.75, 'macro_recall': 0.5}
    >>> scores.per_type[["support", "recall"]]
               support  recall
    cell_type
    B                2     0.5
    T                2     0.5
    """
    import pandas as pd

    predictions = Predictions.of(adata, label_key, prediction_key, unknown_label)
    confidence = confidence_of(adata, predictions, prediction_key, confidence_key, probabilities)
    known = _known_types(predictions, known_types, label_key)
    if known_types is not None and confidence is None:
        raise ValueError(
            f"Unknown types are told by the confidence, and none stands beside .obs[{prediction_key!r}]: pass "
            "confidence_key or probabilities."
        )
    cells = _ScoredCells(
        predictions,
        confidence,
        known[predictions.true],
        n_bins,
        with_unknown=unknown_label is not None,
        open_set=known_types is not None,
    )
    scores = cells.scores(np.ones(adata.n_obs))
    if n_bootstrap:
        scores = with_intervals(scores, cells.scores, adata.n_obs, n_bootstrap, seed, set(scores) - {_NO_INTERVAL})

    by_type = cells.by_type(cells.known.astype(np.float64))
    columns = {name: np.where(known, values, np.nan) for name, values in by_type.items()}
    mean_of = pd.DataFrame({"mean_confidence": np.nan if confidence is None else confidence}, range(adata.n_obs))
    if unknown_label is not None:
        mean_of["answered"] = predictions.answered
    means = mean_of.groupby(predictions.true).mean().set_axis(predictions.types)
    per_type = pd.DataFrame({"support": np.bincount(predictions.true)} | columns, index=predictions.types)
    per_type = per_type.join(means).rename_axis(label_key)
    return AnnotationScores(pd.Series(scores, dtype=np.float64), per_type)


@dataclass(frozen=True)
class _ScoredCells:
    predictions: Predictions
    confidence: NDArray[np.float64] | None
    known: NDArray[np.bool_]
    n_bins: int
    with_unknown: bool
    open_set: bool

    def scores(self, weights: NDArray[np.float64]) -> dict[str, float]:
        """Score the cells, each counted as often as its weight says."""
        right, answered = self.predictions.right, self.predictions.answered
        of_known = weights * self.known
        by_type = self.by_type(of_known)
        support = np.bincount(self.predictions.true, of_known)
        drawn = support > 0
        out = {
            "accuracy": _mean(right, of_known),
            **{f"macro_{name}": _mean(values, drawn) for name, values in by_type.items()},
            "weighted_F1": _mean(by_type["F1"], support),
            "ECE": np.nan,
        }
        if self.confidence is not None:
            bins = CalibrationBins.of(self.confidence, right, self.n_bins, of_known * answered)
            out["ECE"] = bins.expected_error
        if self.with_unknown:
            out["answered"] = _mean(answered, of_known)
            out["accuracy_answered"] = _mean(right, of_known * answered)
        if self.open_set:
            assert self.confidence is not None
            of_unknown = weights * ~self.known
            out["unknown_AUROC"] = _probability_of_lower(self.confidence, of_unknown, of_known)
            if self.with_unknown:
                out["unknown_found"] = _mean(~answered, of_unknown)
        return out

    def by_type(self, weights: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
        """Return precision, recall and F1 of each true type, 0 where they are undefined."""
        table = self.predictions.table(weights)
        right, support, called = table.diagonal(), table.sum(1), table.sum(0)[: len(table)]
        return {
            "precision": _ratio(right, called),
            "recall": _ratio(right, support),
            "F1": _ratio(2 * right, support + called),
        }


def _known_types(predictions: Predictions, known_types: Iterable[str] | None, label_key: str) -> NDArray[np.bool_]:
    """Return for each true type whether the method could have answered it."""
    if known_types is None:
        return np.ones(predictions.n_types, dtype=np.bool_)
    names = {known_types} if isinstance(known_types, str) else {str(name) for name in known_types}
    known = np.array([name in names for name in predictions.types])
    if not known.any():
        raise ValueError(
            f"No cell is of a known type: .obs[{label_key!r}] has {predictions.types}, and known_types {sorted(names)}."
        )
    return known


def _mean(values: NDArray[np.float64] | NDArray[np.bool_], weights: NDArray[np.float64] | NDArray[np.bool_]) -> float:
    """Return a weighted mean, NaN where all weights are 0."""
    total = weights.sum()
    return float((values * weights).sum() / total) if total else np.nan


def _ratio(part: NDArray[np.float64], whole: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.divide(part, whole, out=np.zeros_like(part, dtype=np.float64), where=whole > 0)


def _probability_of_lower(
    values: NDArray[np.float64], first: NDArray[np.float64], second: NDArray[np.float64]
) -> float:
    """Return the probability that a value drawn by the first weights is below one drawn by the second; ties half."""
    ranks = np.unique(values, return_inverse=True)[1]
    of_first, of_second = np.bincount(ranks, first), np.bincount(ranks, second)
    pairs = of_first.sum() * of_second.sum()
    above = of_second.sum() - np.cumsum(of_second) + of_second / 2
    return float((of_first * above).sum() / pairs) if pairs else np.nan
