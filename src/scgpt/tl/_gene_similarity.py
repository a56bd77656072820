"""A network of genes that a model holds alike."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import pandas as pd
    import scipy.sparse as sp
    from anndata import AnnData

    from scgpt.model import SCGPT

    from ._gene_points import GeneEmbedding

# Genes whose cosines with all others are held at a time.
_GENES_AT_ONCE = 1024


def gene_similarity(
    adata: AnnData,
    model: str | Path | SCGPT,
    *,
    genes: str | Iterable[str] = "hvg",
    n_top_genes: int = 1200,
    embedding: GeneEmbedding = "input",
    n_neighbors: int = 15,
    threshold: float | None = None,
    compare_to: str | Path | SCGPT | None = None,
    layer: str | None = None,
    gene_key: str | None = None,
    gene_mapping: Mapping[str, str] | pd.Series | str | Path | None = None,
    progress_bar: bool = True,
    key_added: str = "scgpt",
    copy: bool = False,
) -> AnnData | None:
    r"""Tie genes whose embeddings are alike to a network :cite:p:`Cui2024`.

    Parameters
    ----------
    adata
        Cells by genes.
    model
        A model, the folder of a checkpoint, or a checkpoint's name.
    genes
        As in :func:`scgpt.tl.gene_programs`, as the four that follow.
    n_top_genes
        See there.
    embedding
        See there.
    n_neighbors
        Each gene is tied to as many others of highest cosine, above 0; a gene has more ties where others chose it.
    threshold
        Tie all genes of at least this cosine, in (0, 1], whatever their number, in place of ``n_neighbors``.
    compare_to
        A second model, as one before the fine-tuning. Its network is made of the same genes in the same way, and the ties
        told that one has and the other lacks.
    layer
        As in :func:`scgpt.tl.embed`; read for highly variable genes and contextual embeddings.
    gene_key
        As in :func:`scgpt.tl.embed`.
    gene_mapping
        As in :func:`scgpt.tl.embed`.
    progress_bar
        Show progress.
    key_added
        Beginning of the keys written.
    copy
        Return a copy instead of writing to ``adata``.

    Returns
    -------
    None, or the copy. Sets, with the default ``key_added``:

    ``adata.varp["scgpt_similarity"]``
        ``(n_vars, n_vars)`` symmetric CSR, float32 cosines, empty where genes are not tied and on the diagonal.
    ``adata.varm["scgpt_gene"]``
        ``(n_vars, d_model)`` float32, embeddings of length 1; NaN where a gene was not asked for.
    ``adata.uns["scgpt_similarity"]``
        With ``compare_to`` ``"changes"``, a DataFrame with a row for each tie that one network lacks: ``gene_1``, ``gene_2``,
        ``change`` (``"gained"`` if ``model`` has it, else ``"lost"``), ``similarity`` and ``similarity_before``, the cosines
        in ``model`` and in ``compare_to``; those first that changed most.
    ``adata.uns["scgpt"]["scgpt_similarity"]``
        Provenance.

    See :func:`scgpt.get.gene_neighbors`, :func:`scgpt.get.gene_edges` and :func:`scgpt.get.gene_graph` for tables and graphs.

    Raises
    ------
    KeyError
        When a column, a layer or a gene is not there.
    ValueError
        When no genes are tied, a number is out of range, or ``compare_to`` knows fewer than two of the genes.

    Examples
    --------
    >>> import scanpy as sc
    >>> import scgpt
    >>> from scgpt.model import SCGPT
    >>> adata = sc.datasets.pbmc68k_reduced()[:50].raw.to_adata()
    >>> scgpt.tl.gene_similarity(adata, "mini", genes="all", n_neighbors=5)
    >>> adata.varp["scgpt_similarity"].shape
    (765, 765)
    >>> scgpt.get.gene_neighbors(adata, "CD74", k=2)["gene"].tolist()
    ['HLA-DRA', 'HLA-DRB1']

    What training on from there changes:

    >>> SCGPT.setup_anndata(adata)
    >>> model = SCGPT.from_pretrained("mini", adata)
    >>> model.train(max_epochs=1, enable_progress_bar=False)
    >>> scgpt.tl.gene_similarity(adata, model, compare_to="mini", genes="all", n_neighbors=5)
    >>> adata.uns["scgpt_similarity"]["changes"].columns.tolist()
    ['gene_1', 'gene_2', 'change', 'similarity', 'similarity_before']
    """
    import scipy.sparse as sp

    from scgpt.data import check_anndata, check_whole
    from scgpt.model import SCGPT

    from ._arguments import target
    from ._chosen_genes import ChosenGenes, choose_genes
    from ._gene_points import points_of, write_points
    from ._provenance import fingerprint, genes_of, record

    check_anndata(adata)
    check_whole(n_neighbors, "n_neighbors")
    if threshold is not None and not 0 < threshold <= 1:
        raise ValueError(f"threshold is a cosine in (0, 1], not {threshold}.")
    adata = target(adata, copy, key_added)
    models = [model] if compare_to is None else [model, compare_to]
    loaded = [m if isinstance(m, SCGPT) else SCGPT.from_pretrained(m) for m in models]
    matches = [m.match(adata, gene_key=gene_key, gene_mapping=gene_mapping) for m in loaded]
    chosen = choose_genes(adata, loaded[0], matches[0], genes, n_top_genes=n_top_genes, layer=layer)
    var_names = adata.var_names.astype(str).to_numpy()
    if compare_to is not None:
        both = chosen.rows[matches[1].token_ids[chosen.rows] >= 0]
        if len(both) < 2:
            raise ValueError(f"compare_to= knows {len(both)} of the {len(chosen)} genes; at least two are needed.")
        each = [ChosenGenes.of(both, match, m) for m, match in zip(loaded, matches, strict=True)]
        chosen = each[0]
    else:
        each = [chosen]
    points = [
        points_of(adata, m, match, own, embedding, layer, progress_bar)
        for m, match, own in zip(loaded, matches, each, strict=True)
    ]
    networks = [_ties(of_model, n_neighbors, threshold) for of_model in points]
    if not networks[0].nnz:
        raise ValueError(f"No two of the {len(chosen)} genes have a cosine of {threshold or 0}; lower threshold=.")
    edges = networks[0].tocoo()
    result = {} if compare_to is None else {"changes": _changes(points, networks, var_names[chosen.rows])}
    shape = (adata.n_vars, adata.n_vars)
    placed = sp.csr_matrix((edges.data, (chosen.rows[edges.row], chosen.rows[edges.col])), shape=shape)
    adata.varp[f"{key_added}_similarity"] = placed
    adata.uns[f"{key_added}_similarity"] = result
    write_points(adata, chosen, points[0], f"{key_added}_gene")
    record(
        adata,
        f"{key_added}_similarity",
        function="scgpt.tl.gene_similarity",
        report=loaded[0].load_report,
        model_sha256=fingerprint(loaded[0]),
        compared_to_sha256="" if compare_to is None else fingerprint(loaded[1]),
        embedding=embedding,
        n_neighbors=n_neighbors,
        threshold=0.0 if threshold is None else threshold,
        layer=loaded[0].layer_of(layer),
        **genes_of(matches[0]),
    )
    return adata if copy else None


def _ties(points: NDArray[np.float32], n_neighbors: int, threshold: float | None) -> sp.csr_matrix:
    """Return the symmetric network of points of length 1."""
    import scipy.sparse as sp

    known = np.nan_to_num(points)
    n = len(known)
    rows, columns, values = [], [], []
    for start in range(0, n, _GENES_AT_ONCE):
        cosines = known[start : start + _GENES_AT_ONCE] @ known.T
        own = np.arange(len(cosines))
        cosines[own, start + own] = 0
        if threshold is None:
            k = min(n_neighbors, n - 1)
            nearest = np.argpartition(-cosines, k - 1, axis=1)[:, :k]
            kept = np.zeros(cosines.shape, bool)
            np.put_along_axis(kept, nearest, True, axis=1)
            kept &= cosines > 0
        else:
            kept = cosines >= threshold
        row, column = kept.nonzero()
        rows.append(start + row)
        columns.append(column)
        values.append(cosines[row, column].clip(max=1))
    shape = (n, n)
    network = sp.csr_matrix((np.concatenate(values), (np.concatenate(rows), np.concatenate(columns))), shape=shape)
    return network.maximum(network.T).tocsr()


def _changes(points: list[NDArray[np.float32]], networks: list[sp.csr_matrix], names: NDArray) -> pd.DataFrame:
    import pandas as pd
    import scipy.sparse as sp

    parts = []
    for change, one, other in (("gained", networks[0], networks[1]), ("lost", networks[1], networks[0])):
        edges = sp.triu(one - one.multiply(other != 0)).tocoo()
        first, second = edges.row[edges.data > 0], edges.col[edges.data > 0]
        cosines = [(p[first] * p[second]).sum(1) for p in points]
        columns = {"gene_1": names[first], "gene_2": names[second], "change": change}
        parts.append(pd.DataFrame(columns | {"similarity": cosines[0], "similarity_before": cosines[1]}))
    table = pd.concat(parts, ignore_index=True)
    by_change = (table["similarity"] - table["similarity_before"]).abs().sort_values(ascending=False, kind="stable")
    return table.loc[by_change.index].reset_index(drop=True)
