"""Networks: edges from regulators to targets, by chance and by correlation."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from scgpt.metrics._messages import listed
from scgpt.metrics._moments import LogValues

from ._network_inputs import cell_values, gene_columns

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData

    from ._cells import Matrix

# Regulators whose values are dense at a time.
_BLOCK = 128


def random_network(genes: Iterable[str], *, regulators: Iterable[str] | None = None, seed: int = 0) -> pd.DataFrame:
    """Uniform random scores: what no network should fall below.

    Parameters
    ----------
    genes
        Names of the targets.
    regulators
        Names of the regulators; all genes by default.
    seed
        Of the scores.

    Returns
    -------
    Regulators by genes, in the form that :func:`~scgpt.metrics.network_scores` takes.

    Raises
    ------
    ValueError
        When there is no name, or one twice.

    Examples
    --------
    >>> import scgpt
    >>> scgpt.metrics.baselines.random_network(["HBB", "IRF1", "KLF1"], regulators=["KLF1"]).shape
    (1, 3)
    """
    import pandas as pd

    columns = pd.Index(list(genes), name="target")
    rows = columns.rename("regulator") if regulators is None else pd.Index(list(regulators), name="regulator")
    for names, what in ((columns, "genes"), (rows, "regulators")):
        if names.empty:
            raise ValueError(f"{what} holds no name.")
        if not names.is_unique:
            twice = sorted(set(names[names.duplicated()].astype(str)))
            raise ValueError(f"{what} has names twice: {listed(twice)}. Leave one of each.")
    return pd.DataFrame(np.random.default_rng(seed).random((len(rows), len(columns))), rows, columns)


def coexpression(
    adata: AnnData,
    *,
    regulators: Iterable[str] | None = None,
    genes: Iterable[str] | None = None,
    layer: str | None = None,
    normalize: bool = True,
    method: Literal["pearson", "spearman"] = "pearson",
    absolute: bool = True,
) -> pd.DataFrame:
    """Correlation of log-normalised genes over cells, which many methods for networks do not beat.

    It knows no direction: that of two genes one regulates the other is what the choice of regulators says. Sparse values
    stay sparse, but for those of 128 regulators at a time.

    Parameters
    ----------
    adata
        Cells by genes.
    regulators
        Names in ``.var_names``; all by default.
    genes
        Names of the targets in ``.var_names``; all by default.
    layer
        Layer with counts; ``.X`` by default.
    normalize
        Scale the counts of each cell to 10,000, over all its genes, and take ``log1p`` first. False where the layer is
        log-normalised.
    method
        Pearson's correlation, or Spearman's: the former of ranks, equal values sharing theirs.
    absolute
        Leave out the sign, so that repression counts as much as activation.

    Returns
    -------
    Regulators by genes, float32, in the form that :func:`~scgpt.metrics.network_scores` takes; 0 for genes that do not
    vary.

    Raises
    ------
    KeyError
        When a layer or gene is not there.
    ValueError
        When counts are asked for and not there, values are not finite, names of genes are not unique, or there are not
        two cells.

    Examples
    --------
    >>> import scanpy as sc
    >>> import scgpt
    >>> adata = sc.datasets.pbmc68k_reduced().raw.to_adata()  # log-normalised values
    >>> network = scgpt.metrics.baselines.coexpression(adata, regulators=["CD79A", "NKG7"], normalize=False)
    >>> network.shape, network.loc["NKG7"].drop("NKG7").idxmax()
    ((2, 765), 'GNLY')
    """
    import pandas as pd

    if method not in ("pearson", "spearman"):
        raise ValueError(f"method has to be 'pearson' or 'spearman', and is {method!r}.")
    rows, columns = gene_columns(adata, regulators, "regulators"), gene_columns(adata, genes, "genes")
    values = cell_values(adata, layer, normalize)
    ours, theirs = values[:, rows], values[:, columns]
    if method == "spearman":
        ours, theirs = _ranks(ours), _ranks(theirs)
    out = _correlations(ours, theirs)
    return pd.DataFrame(
        np.abs(out) if absolute else out,
        adata.var_names[rows].rename("regulator"),
        adata.var_names[columns].rename("target"),
    )


def _correlations(ours: Matrix, theirs: Matrix) -> NDArray[np.float32]:
    """Return correlations of columns, those of one matrix by those of the other."""
    (means, scales), (_, scales_of_theirs) = _scales(ours), _scales(theirs)
    transposed: Any = theirs.astype(np.float64).T
    out = np.empty((ours.shape[1], theirs.shape[1]), dtype=np.float32)
    for start in range(0, len(out), _BLOCK):
        some = slice(start, start + _BLOCK)
        block: Any = ours[:, some]
        block = block if isinstance(block, np.ndarray) else block.toarray()
        # With one side centred the other needs not be, and can stay sparse.
        products = transposed @ ((block - means[some]) * scales[some])
        out[some] = (products * scales_of_theirs[:, None]).clip(-1, 1).T
    return out


def _scales(values: Matrix) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return means of columns, and what gives them length one about their mean: 0 for constants."""
    n_cells, n_genes = values.shape
    moments = LogValues(values, np.arange(n_genes)).moments([np.arange(n_cells)])
    highest, lowest = (
        bound if isinstance(bound, np.ndarray) else bound.toarray().ravel() for bound in (values.max(0), values.min(0))
    )
    # Their variance need not be 0, by rounding.
    varies = highest > lowest
    lengths = np.sqrt(moments.variance[0] * (n_cells - 1))
    return moments.mean[0], np.divide(1.0, lengths, out=np.zeros(n_genes), where=varies & (lengths > 0))


def _ranks(values: Matrix) -> Matrix:
    """Return ranks within columns; of sparse ones less the rank of zero, so that they stay sparse."""
    from scipy.stats import rankdata

    if isinstance(values, np.ndarray):
        return rankdata(values, axis=0)
    out = values.tocsc(copy=True).astype(np.float64)
    out.eliminate_zeros()
    for start, end in zip(out.indptr[:-1], out.indptr[1:], strict=True):
        stored = out.data[start:end]
        n_zeros = out.shape[0] - len(stored)
        rank_of_zero = (stored < 0).sum() + (n_zeros + 1) / 2
        out.data[start:end] = rankdata(stored) + np.where(stored > 0, n_zeros, 0) - rank_of_zero
    return out.tocsr()
