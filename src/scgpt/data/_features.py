"""Which features to train on: genes that vary within batches, peaks that are open in many cells; over several studies."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import scipy.sparse as sp
from anndata import AnnData
from numpy.typing import NDArray

from ._arguments import check_whole
from ._scale import Scale, log_normalised, scale_of_values

# A batch of fewer cells says nothing about which genes vary.
_MIN_CELLS = 10


@dataclass(frozen=True, eq=False)
class StudyExpression:
    """Expression of one study, to choose genes from.

    Parameters
    ----------
    genes
        ``(n_genes,)`` names that all studies share, each once.
    rows
        ``(n_cells, n_genes)`` expression.
    batches
        ``(n_cells,)`` batch of each cell.
    """

    genes: Sequence[str]
    rows: sp.csr_matrix
    batches: NDArray[np.int64]

    @property
    def scale(self) -> Scale:
        """What has been done to the values."""
        return scale_of_values(self.rows.data)


FeatureChoice = Callable[[Sequence[StudyExpression], int], list[str]]


def variable_genes(studies: Sequence[StudyExpression], n_genes: int) -> list[str]:
    """Choose the genes that vary most within batches.

    In each batch the ``n_genes`` genes of highest dispersion are found by
    :func:`scanpy.pp.highly_variable_genes` on log-normalised values; counts are normalised and log-transformed
    first. Then genes are taken that are among them in most batches of all studies, and of these the ones of highest
    mean dispersion. Batches of fewer than 10 cells have no say where there are larger ones. Genes that vary in no
    batch come last.

    Parameters
    ----------
    studies
        Their expression; they may have measured different genes.
    n_genes
        How many to choose; all, if there are fewer.

    Returns
    -------
    Their names, in alphabetical order.

    Raises
    ------
    ValueError
        When ``n_genes`` is below 1.
    """
    check_whole(n_genes, "n_genes")
    rating = pd.concat([_rate(study, n_genes) for study in studies]).groupby(level=0).sum(min_count=1)
    rating["dispersion"] /= rating["weight"].clip(lower=1)
    # sort_index first: genes that tie are taken in alphabetical order, whatever that of the data
    best = rating.sort_index().sort_values(["n_batches", "dispersion"], ascending=False, kind="stable")
    return sorted(best.index[:n_genes])


def accessible_peaks(studies: Sequence[StudyExpression], n_peaks: int) -> list[str]:
    """Choose the peaks that are open in most cells, as a share of each study that measured them.

    Parameters
    ----------
    studies
        Their counts or other values, above 0 where a peak is open; they may have measured different peaks.
    n_peaks
        How many to choose; all, if there are fewer.

    Returns
    -------
    Their names, in alphabetical order.

    Raises
    ------
    ValueError
        When ``n_peaks`` is below 1.
    """
    check_whole(n_peaks, "n_peaks")
    shares = pd.concat([pd.Series((s.rows > 0).getnnz(axis=0) / s.rows.shape[0], index=list(s.genes)) for s in studies])
    mean = shares.groupby(level=0).mean()  # sorts by name, which decides ties
    return sorted(mean.sort_values(ascending=False, kind="stable").index[:n_peaks])


def all_features(studies: Sequence[StudyExpression], n_features: int) -> list[str]:
    """Return the names of all features, in alphabetical order."""
    return sorted(set().union(*(study.genes for study in studies)))


def _rate(study: StudyExpression, n_genes: int) -> pd.DataFrame:
    """Return in how many batches of a study each gene is among the most variable, and the sum of its dispersions."""
    import scanpy as sc

    genes = pd.Index(study.genes)
    rating = pd.DataFrame({"n_batches": 0, "dispersion": np.nan, "weight": 0}, index=genes)
    sizes = np.bincount(study.batches)
    large = np.flatnonzero(sizes >= max(1, min(_MIN_CELLS, int(sizes.max()))))
    chosen = np.isin(study.batches, large)
    values, batches = log_normalised(study.rows[chosen], study.scale), study.batches[chosen]
    for batch in large:
        rows = values[batches == batch]
        # Of what does not vary there is no dispersion, and scanpy fails where it finds none at all.
        varies = np.flatnonzero(rows.max(axis=0).toarray().ravel() > rows.min(axis=0).toarray().ravel())
        rating["weight"] += 1
        if len(varies):
            part = AnnData(rows[:, varies], var=pd.DataFrame(index=genes[varies]))
            with warnings.catch_warnings():  # of some that vary it can tell no dispersion; the others are then chosen
                warnings.filterwarnings("ignore", ".*returning all genes with normalized dispersions")
                table = sc.pp.highly_variable_genes(part, n_top_genes=min(n_genes, len(varies)), inplace=False)
            of_batch = table[["highly_variable", "dispersions_norm"]].astype(float).reindex(genes)
            rating["n_batches"] += of_batch["highly_variable"].fillna(0).astype(int)
            rating["dispersion"] = rating["dispersion"].add(of_batch["dispersions_norm"], fill_value=0)
    return rating
