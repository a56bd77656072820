import random

import anndata as ad
import numpy as np
import pytest
import scanpy as sc
import scipy.sparse as sp

from scgpt.metrics._graph import connectivities, label_components, leiden, nearest_neighbors


@pytest.fixture(scope="module")
def embedding() -> np.ndarray:
    rng = np.random.default_rng(3)
    return rng.normal(size=(300, 6)) + 0.8 * rng.normal(size=(4, 6))[rng.integers(0, 4, 300)]


def test_neighbours_and_clusters_are_those_of_scanpy(embedding):
    adata = ad.AnnData(embedding)
    sc.pp.neighbors(adata, n_neighbors=15, use_rep="X")
    graph = connectivities(nearest_neighbors(embedding, 15))
    np.testing.assert_allclose((graph + graph.T).toarray(), adata.obsp["connectivities"].toarray(), atol=1e-5)

    symmetric = sp.csr_matrix(graph + graph.T)
    for resolution, seed in ((0.4, 0), (1.0, 0), (2.0, 1)):
        (ours,) = leiden(graph, [resolution], seed)
        sc.tl.leiden(
            adata,
            resolution,
            adjacency=symmetric,
            random_state=seed,
            flavor="igraph",
            n_iterations=2,
            directed=False,
        )
        assert ours.astype(str).tolist() == adata.obs["leiden"].tolist()


def test_a_cell_is_its_own_first_neighbour(embedding):
    neighbors = nearest_neighbors(embedding, 5)
    assert neighbors.indices[:, 0].tolist() == list(range(300))
    assert (neighbors.distances[:, 0] == 0).all()
    assert (neighbors.distances[:, 1] > 0).all()
    assert neighbors.indices.shape == neighbors.distances.shape == (300, 5)
    twins = nearest_neighbors(np.repeat(embedding, 3, axis=0), 5)
    assert twins.indices[:, 0].tolist() == list(range(900))
    assert (np.sort(twins.indices[:, :3], axis=1) == np.repeat(np.arange(900).reshape(300, 3), 3, axis=0)).all()


def test_clustering_leaves_other_random_numbers_alone(embedding):
    graph = connectivities(nearest_neighbors(embedding, 15))
    np.random.seed(0)
    before = random.getstate(), np.random.get_state()[1].tolist()
    first = [c.tolist() for c in leiden(graph, [0.5, 1.5], 0)]
    assert (random.getstate(), np.random.get_state()[1].tolist()) == before
    assert [c.tolist() for c in leiden(graph, [0.5, 1.5], 0)] == first


def test_edges_between_labels_do_not_connect():
    # a chain 0 - 1 - 2 - 3 - 4, and a cell with no edge
    graph = sp.coo_array((np.ones(4), ([0, 1, 2, 3], [1, 2, 3, 4])), shape=(6, 6))
    components = label_components(graph, np.array([0, 0, 1, 0, 0, 1]))
    assert components[0] == components[1]
    assert components[3] == components[4]
    assert len(set(components)) == 4
