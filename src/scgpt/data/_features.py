"""Which genes to train on: those that vary within batches, over one study or several."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
import scipy.sparse as sp
from anndata import AnnData
from numpy.typing import NDArray

Scale = Literal["counts", "normalised", "log-normalised"]

# A batch of fewer cells says nothing about which genes vary.
_MIN_CELLS = 10
# No logarithm of a count is as high as this: such a value was normalised and not log-transformed.
_MAX_LOG = 30.0


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
        """Counts where all values are whole numbers; else log-normalised, unless a value is too high for that."""
        values = self.rows.data
        if np.array_equal(values, np.round(values)):
            return "counts"
        return "normalised" if values.max() > _MAX_LOG else "log-normalised"


def variable_genes(studies: Sequence[StudyExpression], n_genes: int) -> list[str]:
    """Choose the genes that vary most within batches.

    In each batch the ``n_genes`` genes of highest dispersion are found by
    :func:`scanpy.pp.highly_variable_genes` on log-normalised values; counts are normalised and log-transformed
    first. Then genes are taken that are among them in most batches of all studies, and of these the ones of highest
    mean dispersion. Batches of fewer than 10 cells have no say where there are larger ones.

    Parameters
    ----------
    studies
        Their expression; they may have measured different genes.
    n_genes
        How many to choose; all, if there are fewer.

    Returns
    -------
    Their names, in alphabetical order.
    """
    import scanpy as sc

    tables = []
    for study in studies:
        sizes = np.bincount(study.batches)
        large = sizes[study.batches] >= min(_MIN_CELLS, int(sizes.max()))
        cells = AnnData(study.rows[large].astype(np.float32), var=pd.DataFrame(index=pd.Index(study.genes)))
        cells.obs["batch"] = pd.Categorical(study.batches[large])
        scale = study.scale
        if scale == "counts":
            sc.pp.normalize_total(cells)
        if scale != "log-normalised":
            sc.pp.log1p(cells)
        sc.pp.highly_variable_genes(cells, n_top_genes=min(n_genes, cells.n_vars), batch_key="batch")
        n_batches = cells.obs["batch"].nunique()
        tables.append(
            pd.DataFrame(
                {
                    "n_batches": cells.var["highly_variable_nbatches"],
                    "dispersion": cells.var["dispersions_norm"].fillna(0) * n_batches,
                    "weight": n_batches,
                }
            )
        )
    rating = pd.concat(tables).groupby(level=0).sum()
    rating["dispersion"] /= rating["weight"]
    # sort_index first: genes that tie are taken in alphabetical order, whatever that of the data
    best = rating.sort_index().sort_values(["n_batches", "dispersion"], ascending=False, kind="stable")
    return sorted(best.index[:n_genes])
