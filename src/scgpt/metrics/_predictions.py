"""What a method said of each cell, beside what is true, and how sure it was."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ._columns import columns_of, named_codes_of

if TYPE_CHECKING:
    from anndata import AnnData

# Probabilities in half precision add up to one no closer.
_TOLERANCE = 1e-2


@dataclass(frozen=True)
class Predictions:
    """True and predicted types of cells, as codes of the same names."""

    true: NDArray[np.intp]
    predicted: NDArray[np.intp]
    names: list[str]
    """Types that are true of some cell, then those that are predicted only."""
    n_types: int
    """Number of types that are true of some cell."""
    answered: NDArray[np.bool_]
    """Whether a cell was called something else than unknown."""

    @classmethod
    def of(cls, adata: AnnData, label_key: str, prediction_key: str, unknown_label: str | None) -> Predictions:
        true, types = named_codes_of(adata, label_key, "label")
        codes, answers = named_codes_of(adata, prediction_key, "prediction")
        if unknown_label in types:
            raise ValueError(
                f"{int((true == types.index(str(unknown_label))).sum())} of {len(true)} cells are {unknown_label!r} in "
                f".obs[{label_key!r}]: what they are is not known, so leave them out."
            )
        names = [*types, *(name for name in answers if name not in types)]
        predicted = np.array([names.index(name) for name in answers], dtype=np.intp)[codes]
        answered = np.array([name != unknown_label for name in names])[predicted]
        return cls(true, predicted, names, len(types), answered)

    @property
    def types(self) -> list[str]:
        """Types that are true of some cell."""
        return self.names[: self.n_types]

    @property
    def right(self) -> NDArray[np.bool_]:
        """Whether the predicted type of each cell is the true one."""
        return self.true == self.predicted

    def table(self, weights: NDArray[np.float64] | None = None) -> NDArray[np.float64]:
        """Return ``(n_types, n_names)`` numbers of cells of each true and predicted type."""
        n_names = len(self.names)
        counts = np.bincount(self.true * n_names + self.predicted, weights, minlength=self.n_types * n_names)
        return counts.reshape(self.n_types, n_names).astype(np.float64)


def confidence_of(
    adata: AnnData,
    predictions: Predictions,
    prediction_key: str,
    confidence_key: str | None,
    probabilities: str | None,
) -> NDArray[np.float64] | None:
    """Return the confidence of each cell's prediction; None where nothing is named, and nothing stands beside it."""
    if confidence_key is not None and probabilities is not None:
        raise ValueError("confidence_key and probabilities both name the confidence: pass one of them.")
    if confidence_key is None and probabilities is None:
        # tl.annotate puts `scgpt_confidence` beside `scgpt_label`, and baselines `knn_pca_confidence` beside `knn_pca`.
        stems = prediction_key, prediction_key.removesuffix("_label")
        confidence_key = next((key for stem in stems if (key := f"{stem}_confidence") in adata.obs), None)
        if confidence_key is None:
            probabilities = next((key for stem in stems if (key := f"{stem}_probabilities") in adata.obsm), None)
    if confidence_key is not None:
        return _column(adata, confidence_key)
    return None if probabilities is None else _probability_of_prediction(adata, probabilities, predictions)


def _column(adata: AnnData, key: str) -> NDArray[np.float64]:
    if key not in adata.obs:
        raise KeyError(f"There is no column {key!r} in .obs for the confidence of each cell.")
    values = np.asarray(adata.obs[key], dtype=np.float64)
    # Single precision may leave a probability a little above 1.
    if bad := int((~((values >= 0) & (values <= 1 + 1e-6))).sum()):
        raise ValueError(
            f".obs[{key!r}] has to hold probabilities, and is missing or not between 0 and 1 in {bad} of {len(values)} cells."
        )
    return values.clip(max=1)


def _probability_of_prediction(adata: AnnData, key: str, predictions: Predictions) -> NDArray[np.float64]:
    """Return the probability of each cell's predicted type; of the likeliest type where it was called unknown."""
    import pandas as pd

    if key not in adata.obsm:
        raise KeyError(f"There are no probabilities {key!r} in .obsm, which has {list(adata.obsm)}.")
    table = adata.obsm[key]
    if not isinstance(table, pd.DataFrame):
        raise ValueError(f".obsm[{key!r}] does not name its columns: make it a DataFrame with a column for each type.")
    table = table.set_axis(columns_of(table), axis="columns")
    values = np.asarray(table, dtype=np.float64)
    if bad := int((~(values >= 0).all(1) | ~(np.abs(values.sum(1) - 1) <= _TOLERANCE)).sum()):
        raise ValueError(
            f"The probabilities .obsm[{key!r}] are missing, negative, or do not add up to one in {bad} of {len(values)} "
            "cells."
        )
    names = columns_of(predictions.names)
    answers = [names[code] for code in np.unique(predictions.predicted[predictions.answered])]
    if absent := [name for name in answers if name not in table]:
        raise ValueError(
            f".obsm[{key!r}] has no column for {absent}, which are predicted for some cells; it has {list(table)}."
        )
    column = np.array([table.columns.get_loc(name) if name in answers else -1 for name in names])
    chosen = values[np.arange(len(values)), column[predictions.predicted]]
    # A column may stand for unknown, too: how likely that is says nothing for a type.
    unknown = [names[code] for code in np.unique(predictions.predicted[~predictions.answered])]
    likeliest = table.drop(columns=unknown, errors="ignore").to_numpy(dtype=np.float64).max(1, initial=0)
    return np.where(predictions.answered, chosen, likeliest).clip(max=1)
