"""Genes as points: their graph of neighbours, and the clusters on it."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import scipy.sparse as sp
    from anndata import AnnData


def graph_of(points: NDArray[np.float32], n_neighbors: int) -> AnnData:
    """Return genes with the graph of their neighbours by cosine, as :func:`scanpy.pp.neighbors` makes it.

    Parameters
    ----------
    points
        ``(n_genes, d)``.
    n_neighbors
        Neighbours of each, itself counted; fewer where there are not as many genes.
    """
    import scanpy as sc
    from anndata import AnnData

    genes = AnnData(np.asarray(points, dtype=np.float32))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "n_jobs value 1 overridden")  # umap, of its own seed
        sc.pp.neighbors(
            genes, use_rep="X", metric="cosine", n_neighbors=min(n_neighbors, genes.n_obs - 1), random_state=0
        )
    return genes


def clusters_of(genes: AnnData, resolution: float, seed: int) -> NDArray[np.int64]:
    """Return the Leiden cluster of each gene, the largest first."""
    import scanpy as sc

    sc.tl.leiden(
        genes, resolution=resolution, flavor="igraph", n_iterations=2, directed=False, random_state=seed, key_added="c"
    )
    codes = genes.obs["c"].astype(int).to_numpy()
    order = np.argsort(-np.bincount(codes), kind="stable")
    return np.argsort(order)[codes]


def programs_of(clusters: NDArray[np.int64], min_genes: int) -> list[NDArray[np.int64]]:
    """Return the genes of each cluster that has enough of them."""
    members = (np.flatnonzero(clusters == i) for i in range(clusters.max() + 1))
    return [own for own in members if len(own) >= min_genes]


def no_programs(clusters: NDArray[np.int64], min_genes: int) -> ValueError:
    """Return what to say where no cluster has enough genes."""
    sizes = np.bincount(clusters)
    return ValueError(
        f"No program has {min_genes} genes: {len(clusters)} genes fall into {len(sizes)} clusters of at most {sizes.max()}. "
        "Lower the resolution or min_genes=, or pass more genes=."
    )


def coexpression_of(values: sp.csr_matrix) -> NDArray[np.float32]:
    """Return genes as points whose cosines are the correlations of their expression.

    Parameters
    ----------
    values
        ``(n_cells, n_genes)``, log-normalised.

    Returns
    -------
    ``(n_genes, n_genes)``: the square root of the matrix of correlations. A gene that does not vary is like none.
    """
    n_cells = values.shape[0]
    mean = np.asarray(values.mean(0), dtype=np.float64).ravel()
    products = (values.T.astype(np.float64) @ values).toarray() / n_cells - np.outer(mean, mean)
    deviation = np.sqrt(products.diagonal().clip(min=0))
    varies = deviation > 1e-6 * deviation.max(initial=1)
    scale = np.divide(1, deviation, out=np.zeros_like(deviation), where=varies)
    correlations = products * np.outer(scale, scale)
    correlations[np.diag_indices_from(correlations)] = 1
    shares, axes = np.linalg.eigh(correlations)
    return (axes * np.sqrt(shares.clip(min=0))).astype(np.float32)
