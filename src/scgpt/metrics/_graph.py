"""The graph of nearest neighbours: Leiden clusters on it, and the pieces that labels fall into."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import scipy.sparse as sp
    from scib_metrics.nearest_neighbors import NeighborsResults


def nearest_neighbors(embedding: NDArray[np.float64], n_neighbors: int) -> NeighborsResults:
    """Find the exact Euclidean neighbours of each cell, the cell itself the first of them."""
    from scib_metrics.nearest_neighbors import NeighborsResults
    from sklearn.neighbors import NearestNeighbors

    # Looked for among all cells, a cell is found at a distance of 1e-8 or so, which UMAP takes for that of its nearest.
    others = NearestNeighbors(n_neighbors=n_neighbors - 1, algorithm="brute").fit(embedding)
    distances, indices = others.kneighbors()
    itself = np.arange(len(embedding))[:, None]
    return NeighborsResults(
        indices=np.hstack([itself, indices]), distances=np.hstack([np.zeros(itself.shape), distances])
    )


def connectivities(neighbors: NeighborsResults) -> sp.coo_array:
    """Return UMAP's weights of the symmetrised graph, as :func:`scanpy.pp.neighbors` does: its upper triangle."""
    import scipy.sparse as sp

    return sp.coo_array(sp.triu(neighbors.knn_graph_connectivities, k=1))


def leiden(graph: sp.coo_array, resolutions: Sequence[float], seed: int) -> Iterator[NDArray[np.intp]]:
    """Cluster a graph at each resolution.

    The clusters are those of :func:`scanpy.tl.leiden` with ``flavor="igraph", n_iterations=2, directed=False``, which
    builds its graph anew for each resolution, and from both triangles.
    """
    import igraph

    # Every edge once with twice its weight, instead of twice.
    edges = igraph.Graph(
        n=graph.shape[0],
        edges=np.column_stack([graph.row, graph.col]),
        edge_attrs={"weight": 2 * graph.data.astype(np.float64)},
    )
    for resolution in resolutions:
        with igraph_seeded(seed):
            clusters = edges.community_leiden(
                objective_function="modularity", weights="weight", resolution=resolution, n_iterations=2
            )
        yield np.asarray(clusters.membership, dtype=np.intp)


def label_components(graph: sp.coo_array, labels: NDArray[np.intp]) -> NDArray[np.intp]:
    """Return for each cell the connected component that it is in once edges between labels are cut."""
    import scipy.sparse as sp
    from scipy.sparse.csgraph import connected_components

    within = labels[graph.row] == labels[graph.col]
    cut = sp.coo_array((graph.data[within], (graph.row[within], graph.col[within])), shape=graph.shape)
    return connected_components(cut, directed=False)[1].astype(np.intp)


class _Generator:
    """Random numbers for igraph, drawn as :func:`scanpy.tl.leiden` draws them."""

    def __init__(self, seed: int) -> None:
        self._state = np.random.RandomState(seed)

    def getrandbits(self, k: int) -> int:
        return int(self._state.tomaxint()) & ((1 << k) - 1)

    def randint(self, a: int, b: int) -> int:
        return int(self._state.randint(a, b + 1))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._state, "normal" if name == "gauss" else name)


@contextmanager
def igraph_seeded(seed: int) -> Iterator[None]:
    """Have igraph draw other random numbers than Python's own, always the same."""
    import igraph

    igraph.set_random_number_generator(_Generator(seed))
    try:
        yield
    finally:
        igraph.set_random_number_generator(random)
