"""Genes that belong together."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData

    from scgpt.model import SCGPT

    from ._gene_points import GeneEmbedding


def gene_programs(
    adata: AnnData,
    model: str | Path | SCGPT,
    *,
    genes: str | Iterable[str] = "hvg",
    n_top_genes: int = 1200,
    embedding: GeneEmbedding = "input",
    n_neighbors: int = 15,
    resolution: float = 20.0,
    min_genes: int = 5,
    n_runs: int = 5,
    groupby: str | None = None,
    layer: str | None = None,
    gene_key: str | None = None,
    gene_mapping: Mapping[str, str] | pd.Series | str | Path | None = None,
    seed: int = 0,
    progress_bar: bool = True,
    key_added: str = "scgpt",
    copy: bool = False,
) -> AnnData | None:
    r"""Cluster genes by what a model has learnt of them, and score the clusters in cells :cite:p:`Cui2024`.

    The graph of each gene's neighbours by cosine is clustered by the Leiden algorithm; clusters of enough genes are programs.
    That is done several times with other seeds, which tells how far programs hang on chance.

    Parameters
    ----------
    adata
        Cells by genes, with counts or log-normalised values.
    model
        A model, the folder of a checkpoint, or a checkpoint's name.
    genes
        ``"hvg"``, those in ``.var["highly_variable"]``, or where there are none the most variable ones; ``"all"`` that the
        model knows; or names.
    n_top_genes
        How many highly variable genes, where they are not marked.
    embedding
        ``"input"``, what the model knows of genes whatever the cells; or ``"contextual"``, its outputs for them, averaged over
        the cells of ``adata`` that express them.
    n_neighbors
        Of each gene in the graph, see :func:`scanpy.pp.neighbors`.
    resolution
        The higher, the smaller programs are, see :func:`scanpy.tl.leiden`.
    min_genes
        Genes that a program has at least.
    n_runs
        Runs of the clustering, the first of which counts.
    groupby
        Column of ``.obs``, such as the cell type, whose groups the activity of programs is averaged over.
    layer
        As in :func:`scgpt.tl.embed`. Scores are of log-normalised values, loaded into memory; counts are normalised first.
    gene_key
        As in :func:`scgpt.tl.embed`.
    gene_mapping
        As in :func:`scgpt.tl.embed`.
    seed
        Of the first run.
    progress_bar
        Show progress.
    key_added
        Beginning of the keys written.
    copy
        Return a copy instead of writing to ``adata``.

    Returns
    -------
    None, or the copy. Sets, with the default ``key_added``:

    ``adata.var["scgpt_program"]``
        Categorical, ``"P1"`` for the largest; missing where a gene is in none.
    ``adata.varm["scgpt_gene"]``
        ``(n_vars, d_model)`` float32, embeddings of length 1; NaN where a gene was not clustered.
    ``adata.obsm["scgpt_program_scores"]``
        DataFrame, float32, of each cell and program: mean expression above that of genes expressed as much, as by
        :func:`scanpy.tl.score_genes` but without chance.
    ``adata.uns["scgpt_programs"]``
        ``"table"``, a DataFrame with a row for each program: ``n_genes``, ``genes`` from the most typical on, ``stability``,
        the mean over other runs of the share of genes in common (Jaccard index) with the cluster most like it;
        ``"adjusted_rand"``, ``(n_runs, n_runs)`` adjusted Rand index between runs; ``"background"``, the names of all genes
        that were clustered; with ``groupby`` ``"activity"``, the mean score, groups by programs.
    ``adata.uns["scgpt"]["scgpt_programs"]``
        Provenance.

    Raises
    ------
    KeyError
        When a column, a layer or a gene is not there.
    ValueError
        When no program has enough genes; when values are negative.

    Examples
    --------
    >>> import scanpy as sc
    >>> import scgpt
    >>> adata = sc.datasets.pbmc68k_reduced()[:100].raw.to_adata()
    >>> scgpt.tl.gene_programs(adata, "mini", genes="all", groupby="bulk_labels", progress_bar=False)
    >>> adata.uns["scgpt_programs"]["table"].columns.tolist()
    ['n_genes', 'genes', 'stability']
    >>> n_programs = adata.obsm["scgpt_program_scores"].shape[1]
    >>> adata.uns["scgpt_programs"]["activity"].shape == (adata.obs["bulk_labels"].nunique(), n_programs)
    True
    """
    import pandas as pd

    from scgpt.data import check_anndata, check_whole, column_of, expression_of
    from scgpt.model import SCGPT

    from ._arguments import target
    from ._chosen_genes import choose_genes
    from ._gene_graph import clusters_of, graph_of, no_programs, programs_of
    from ._gene_points import points_of, write_points
    from ._program_scores import program_scores
    from ._provenance import fingerprint, genes_of, record

    check_anndata(adata)
    groups = None if groupby is None else column_of(adata.obs, groupby, "groupby")
    check_whole(n_runs, "n_runs")
    check_whole(n_neighbors, "n_neighbors")
    adata = target(adata, copy, key_added)
    if not isinstance(model, SCGPT):
        model = SCGPT.from_pretrained(model)
    match = model.match(adata, gene_key=gene_key, gene_mapping=gene_mapping)
    chosen = choose_genes(adata, model, match, genes, n_top_genes=n_top_genes, layer=layer)
    points = points_of(adata, model, match, chosen, embedding, layer, progress_bar)
    clustered = np.flatnonzero(np.isfinite(points).all(1))
    rows, known = chosen.rows[clustered], points[clustered]
    graph = graph_of(known, n_neighbors)
    runs = [clusters_of(graph, resolution, seed + run) for run in range(n_runs)]
    members = programs_of(runs[0], min_genes)
    if not members:
        raise no_programs(runs[0], min_genes)
    members = [own[_by_closeness(known[own])] for own in members]
    names = [f"P{i}" for i in range(1, len(members) + 1)]

    values = expression_of(adata, model.layer_of(layer))
    activity = program_scores(values, [rows[own] for own in members])
    scores = pd.DataFrame(activity, index=adata.obs_names, columns=names)
    var_names = adata.var_names.astype(str).to_numpy()
    table = pd.DataFrame(
        {
            "n_genes": [len(own) for own in members],
            "genes": [", ".join(var_names[rows[own]]) for own in members],
            "stability": [_stability(own, runs[1:]) for own in members],
        },
        index=pd.Index(names, name="program"),
    )
    result = {"table": table, "adjusted_rand": _agreement(runs), "background": var_names[rows]}
    if groups is not None:
        means = scores.groupby(groups.to_numpy(), observed=True).mean()
        result["activity"] = means.set_axis(means.index.astype(str)).rename_axis(groupby)
    program = np.full(adata.n_vars, -1)
    for i, own in enumerate(members):
        program[rows[own]] = i
    adata.var[f"{key_added}_program"] = pd.Categorical.from_codes(program, pd.Index(names))
    adata.obsm[f"{key_added}_program_scores"] = scores
    adata.uns[f"{key_added}_programs"] = result
    write_points(adata, chosen, points, f"{key_added}_gene")
    record(
        adata,
        f"{key_added}_programs",
        function="scgpt.tl.gene_programs",
        report=model.load_report,
        model_sha256=fingerprint(model),
        embedding=embedding,
        n_neighbors=n_neighbors,
        resolution=resolution,
        min_genes=min_genes,
        groupby=groupby or "",
        layer=model.layer_of(layer),
        seed=seed,
        **genes_of(match),
    )
    return adata if copy else None


def _by_closeness(points: NDArray[np.float32]) -> NDArray[np.int64]:
    """Return the order of genes from the one most like the mean on."""
    return np.argsort(-(points @ points.mean(0)), kind="stable")


def _stability(own: NDArray[np.int64], runs: Sequence[NDArray[np.int64]]) -> float:
    """Return the mean over runs of the largest Jaccard index with a cluster; NaN where there is no other run."""
    best = []
    for run in runs:
        common = np.bincount(run[own], minlength=run.max() + 1)
        sizes = np.bincount(run)
        best.append(float((common / (sizes + len(own) - common)).max()))
    return float(np.mean(best)) if best else float("nan")


def _agreement(runs: Sequence[NDArray[np.int64]]) -> NDArray[np.float64]:
    from sklearn.metrics import adjusted_rand_score

    return np.array([[adjusted_rand_score(a, b) for b in runs] for a in runs])
