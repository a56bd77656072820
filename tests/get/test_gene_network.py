import anndata
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

import scgpt


@pytest.fixture
def cells() -> anndata.AnnData:
    adata = anndata.AnnData(np.zeros((2, 4), np.float32), var=pd.DataFrame(index=["A", "B", "C", "D"]))
    adata.varm["scgpt_gene"] = np.array([[1, 0], [1, 1], [0, 2], [np.nan, np.nan]], np.float32)
    network = np.zeros((4, 4), np.float32)
    network[0, 1] = network[1, 0] = 0.7
    network[1, 2] = network[2, 1] = 0.8
    adata.varp["scgpt_similarity"] = sp.csr_matrix(network)
    adata.var["scgpt_program"] = pd.Categorical(["P1", "P1", None, None])
    return adata


def test_neighbours_by_cosine(cells):
    table = scgpt.get.gene_neighbors(cells, "A")
    assert list(table["gene"]) == ["B", "C"]
    assert list(table["rank"]) == [1, 2]
    np.testing.assert_allclose(table["similarity"], [0.5**0.5, 0], atol=1e-7)
    assert list(scgpt.get.gene_neighbors(cells, "A", k=1)["gene"]) == ["B"]


def test_edges_once_and_the_strongest_first(cells):
    table = scgpt.get.gene_edges(cells)
    assert table[["gene_1", "gene_2"]].to_numpy().tolist() == [["B", "C"], ["A", "B"]]
    np.testing.assert_allclose(table["similarity"], [0.8, 0.7], atol=1e-7)


def test_a_graph_for_networkx(cells):
    graph = scgpt.get.gene_graph(cells)
    assert set(graph.nodes) == {"A", "B", "C"}
    assert graph.edges["A", "B"]["weight"] == pytest.approx(0.7, abs=1e-7)
    assert graph.nodes["A"] == {"program": "P1"}
    assert graph.nodes["C"] == {}


def test_bad_input(cells):
    with pytest.raises(KeyError, match=r"'a' is not in \.var_names; did you mean 'A'"):
        scgpt.get.gene_neighbors(cells, "a")
    with pytest.raises(KeyError, match="'D' has no embedding"):
        scgpt.get.gene_neighbors(cells, "D")
    with pytest.raises(KeyError, match="call scgpt.tl.gene_similarity or scgpt.tl.gene_programs first"):
        scgpt.get.gene_neighbors(cells, "A", key="none")
    with pytest.raises(KeyError, match="call scgpt.tl.gene_similarity first"):
        scgpt.get.gene_edges(cells, key="none")
