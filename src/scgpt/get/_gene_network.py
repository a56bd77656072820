"""The network of genes, as tables and graphs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import networkx as nx
    import pandas as pd
    import scipy.sparse as sp
    from anndata import AnnData


def gene_neighbors(adata: AnnData, gene: str, *, k: int = 10, key: str = "scgpt_gene") -> pd.DataFrame:
    """Return the genes whose embeddings are most like that of a gene.

    Parameters
    ----------
    adata
        After :func:`scgpt.tl.gene_similarity` or :func:`scgpt.tl.gene_programs`.
    gene
        Name in ``.var_names``.
    k
        How many; fewer where there are not as many.
    key
        Embeddings of genes in ``.varm``.

    Returns
    -------
    With the columns ``gene``, ``rank`` from 1 on, and ``similarity``, the cosine.

    Raises
    ------
    KeyError
        When there is no such embedding or gene, or the gene has none.

    Examples
    --------
    >>> import scanpy as sc
    >>> import scgpt
    >>> adata = sc.datasets.pbmc68k_reduced()[:50].raw.to_adata()
    >>> scgpt.tl.gene_similarity(adata, "mini", genes=["CD74", "HLA-DRA", "HLA-DRB1", "LYZ", "NKG7"], n_neighbors=2)
    >>> scgpt.get.gene_neighbors(adata, "CD74", k=2)[["gene", "rank"]]
           gene  rank
    0   HLA-DRA     1
    1  HLA-DRB1     2
    """
    import pandas as pd

    if key not in adata.varm:
        raise KeyError(f"There is no .varm[{key!r}]; call scgpt.tl.gene_similarity or scgpt.tl.gene_programs first.")
    points = np.asarray(adata.varm[key], dtype=np.float64)
    own = _row(adata, gene)
    points = points / np.linalg.norm(points, axis=1, keepdims=True)
    cosines = points @ points[own]
    if not np.isfinite(cosines[own]):
        raise KeyError(f"{gene!r} has no embedding in .varm[{key!r}]: it was not among the genes asked for.")
    cosines[own] = np.nan
    best = np.argsort(-cosines, kind="stable")[: min(k, int(np.isfinite(cosines).sum()))]
    names = adata.var_names.astype(str)[best]
    return pd.DataFrame({"gene": names, "rank": np.arange(1, len(best) + 1), "similarity": cosines[best]})


def gene_edges(adata: AnnData, *, key: str = "scgpt_similarity") -> pd.DataFrame:
    """Return the ties of the network of genes, each once, the strongest first.

    Parameters
    ----------
    adata
        After :func:`scgpt.tl.gene_similarity`.
    key
        Key of ``.varp``.

    Returns
    -------
    With the columns ``gene_1``, ``gene_2`` and ``similarity``; :func:`pandas.DataFrame.to_csv` writes what Cytoscape and
    others read.

    Raises
    ------
    KeyError
        When there is no network.

    Examples
    --------
    >>> import scanpy as sc
    >>> import scgpt
    >>> adata = sc.datasets.pbmc68k_reduced()[:50].raw.to_adata()
    >>> scgpt.tl.gene_similarity(adata, "mini", genes=["CD74", "HLA-DRA", "HLA-DRB1", "LYZ", "NKG7"], n_neighbors=2)
    >>> edges = scgpt.get.gene_edges(adata)
    >>> edges.columns.tolist()
    ['gene_1', 'gene_2', 'similarity']
    >>> edges.to_csv("network.csv", index=False)
    """
    import pandas as pd
    import scipy.sparse as sp

    edges = sp.triu(_network(adata, key), k=1).tocoo()
    names = adata.var_names.astype(str).to_numpy()
    table = pd.DataFrame({"gene_1": names[edges.row], "gene_2": names[edges.col], "similarity": edges.data})
    return table.sort_values("similarity", ascending=False, kind="stable", ignore_index=True)


def gene_graph(adata: AnnData, *, key: str = "scgpt_similarity") -> nx.Graph:
    """Return the network of genes for networkx.

    Parameters
    ----------
    adata
        After :func:`scgpt.tl.gene_similarity`.
    key
        Key of ``.varp``.

    Returns
    -------
    A graph of the genes that are tied, with the cosine as ``weight``; genes that have a program know it as ``program``.

    Raises
    ------
    KeyError
        When there is no network.

    Examples
    --------
    >>> import networkx as nx
    >>> import scanpy as sc
    >>> import scgpt
    >>> adata = sc.datasets.pbmc68k_reduced()[:50].raw.to_adata()
    >>> scgpt.tl.gene_similarity(adata, "mini", genes=["CD74", "HLA-DRA", "HLA-DRB1", "LYZ", "NKG7"], n_neighbors=2)
    >>> graph = scgpt.get.gene_graph(adata)
    >>> graph.has_edge("CD74", "HLA-DRA")
    True
    >>> nx.write_graphml(graph, "network.graphml")
    """
    import networkx as nx
    import pandas as pd

    edges = gene_edges(adata, key=key)
    graph = nx.Graph()
    graph.add_weighted_edges_from(edges.itertuples(index=False, name=None))
    if "scgpt_program" in adata.var:
        programs = pd.Series(adata.var["scgpt_program"]).dropna()
        own = {str(gene): str(program) for gene, program in programs.items() if str(gene) in graph}
        nx.set_node_attributes(graph, own, "program")
    return graph


def _network(adata: AnnData, key: str) -> sp.csr_matrix:
    import scipy.sparse as sp

    if key not in adata.varp:
        raise KeyError(f"There is no .varp[{key!r}]; call scgpt.tl.gene_similarity first.")
    return sp.csr_matrix(adata.varp[key])


def _row(adata: AnnData, gene: str) -> int:
    names = adata.var_names.astype(str)
    rows = np.flatnonzero(names == gene)
    if len(rows):
        return int(rows[0])
    meant = [name for name in names if name.casefold() == gene.casefold()]
    raise KeyError(f"{gene!r} is not in .var_names" + (f"; did you mean {meant[0]!r}?" if meant else "."))
