"""Pathways that programs of a model find, beside those that co-expression finds."""

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
    from ._overrepresentation import Correction


def compare_pathways(
    adata: AnnData,
    model: str | Path | SCGPT,
    gene_sets: str | Path | Mapping[str, Iterable[str]],
    *,
    resolutions: Sequence[float] = (1, 2, 5, 10, 20, 30, 40),
    genes: str | Iterable[str] = "hvg",
    n_top_genes: int = 1200,
    embedding: GeneEmbedding = "input",
    n_neighbors: int = 15,
    min_genes: int = 5,
    min_size: int = 5,
    max_pvalue: float = 0.05,
    correction: Correction = "fdr_bh",
    layer: str | None = None,
    gene_key: str | None = None,
    gene_mapping: Mapping[str, str] | pd.Series | str | Path | None = None,
    seed: int = 0,
    progress_bar: bool = True,
    key_added: str = "scgpt_pathways",
    copy: bool = False,
) -> AnnData | None:
    r"""Count the gene sets that programs are enriched in, of a model and of co-expression :cite:p:`Cui2024`.

    Co-expression is a network made in the same way: of the same genes, with correlations over cells in the place of cosines of
    embeddings, clustered at the same resolutions, tested against the same background.

    Parameters
    ----------
    adata
        Cells by genes, with counts or log-normalised values.
    model
        A model, the folder of a checkpoint, or a checkpoint's name.
    gene_sets
        As in :func:`scgpt.tl.enrich`.
    resolutions
        Of the clustering, see :func:`scgpt.tl.gene_programs`.
    genes
        As in :func:`scgpt.tl.gene_programs`, as the four that follow.
    n_top_genes
        See there.
    embedding
        See there.
    n_neighbors
        See there.
    min_genes
        See there.
    min_size
        As in :func:`scgpt.tl.enrich`.
    max_pvalue
        Corrected p-value below which a set is found. Tests of one resolution are corrected together.
    correction
        As in :func:`scgpt.tl.enrich`.
    layer
        As in :func:`scgpt.tl.embed`.
    gene_key
        As in :func:`scgpt.tl.embed`.
    gene_mapping
        As in :func:`scgpt.tl.embed`.
    seed
        Of the clustering.
    progress_bar
        Show progress.
    key_added
        Key of ``.uns``.
    copy
        Return a copy instead of writing to ``adata``.

    Returns
    -------
    None, or the copy. Sets:

    ``adata.uns[key_added]``
        ``"counts"``, a DataFrame with a row for each resolution: ``resolution``, ``model`` and ``coexpression``, how many sets
        each finds, ``shared``, ``only_model``, ``only_coexpression``, and ``programs_model`` and ``programs_coexpression``, of
        how many programs. ``"pathways"``, a DataFrame with a row for each set found at any resolution: ``gene_set``,
        ``found_by`` (``"both"``, ``"model"``, ``"coexpression"``), and ``pvalue_model`` and ``pvalue_coexpression``, the
        smallest corrected ones, 1 where none shares a gene.
    ``adata.uns["scgpt"][key_added]``
        Provenance.

    Raises
    ------
    KeyError, ValueError, FileNotFoundError
        As :func:`scgpt.tl.gene_programs` and :func:`scgpt.tl.enrich`; when there is no resolution.

    Examples
    --------
    >>> import scanpy as sc
    >>> import scgpt
    >>> adata = sc.datasets.pbmc68k_reduced()[::10].raw.to_adata()
    >>> sets = {  # or the path of a GMT file
    ...     "MHC class II": ["CD74", "HLA-DRA", "HLA-DRB1", "HLA-DPA1", "HLA-DPB1", "HLA-DQA1", "HLA-DQB1"],
    ...     "cytotoxicity": ["NKG7", "GNLY", "GZMA", "GZMB", "GZMH", "PRF1", "CST7", "CTSW"],
    ... }
    >>> scgpt.tl.compare_pathways(adata, "mini", sets, resolutions=[1, 5], genes="all", progress_bar=False)
    >>> adata.uns["scgpt_pathways"]["counts"]["resolution"].tolist()
    [1.0, 5.0]
    >>> sorted(adata.uns["scgpt_pathways"]["pathways"]["gene_set"])
    ['MHC class II', 'cytotoxicity']
    """
    import pandas as pd
    from tqdm.auto import tqdm

    from scgpt.data import check_anndata, expression_of
    from scgpt.model import SCGPT

    from ._arguments import target
    from ._chosen_genes import choose_genes
    from ._gene_graph import clusters_of, coexpression_of, graph_of, no_programs, programs_of
    from ._gene_points import points_of
    from ._overrepresentation import over_represented, read_gene_sets
    from ._provenance import fingerprint, genes_of, record

    check_anndata(adata)
    if not len(resolutions):
        raise ValueError("resolutions= is empty.")
    sets = read_gene_sets(adata, gene_sets, gene_key)
    if not isinstance(model, SCGPT):
        model = SCGPT.from_pretrained(model)
    match = model.match(adata, gene_key=gene_key, gene_mapping=gene_mapping)
    chosen = choose_genes(adata, model, match, genes, n_top_genes=n_top_genes, layer=layer)
    points = points_of(adata, model, match, chosen, embedding, layer, progress_bar)
    known = np.flatnonzero(np.isfinite(points).all(1))
    rows, names = chosen.rows[known], adata.var_names.astype(str).to_numpy()
    own_layer = model.layer_of(layer)
    graphs = {
        "model": graph_of(points[known], n_neighbors),
        "coexpression": graph_of(coexpression_of(expression_of(adata, own_layer)[:, rows]), n_neighbors),
    }
    counts, best = [], {kind: pd.Series(dtype=float) for kind in graphs}
    n_programs = 0
    for resolution in tqdm(resolutions, desc="Testing programs", disable=not progress_bar):
        row: dict[str, float] = {"resolution": float(resolution)}
        found = {}
        for kind, graph in graphs.items():
            clusters = clusters_of(graph, resolution, seed)
            members = programs_of(clusters, min_genes)
            n_programs += len(members)
            lists: dict[str, NDArray[np.int64]] = {str(i): rows[own] for i, own in enumerate(members)}
            table = over_represented(lists, sets, rows, names, min_size=min_size, correction=correction)
            smallest = table.groupby("gene_set")["adjusted_pvalue"].min()
            found[kind] = set(smallest.index[smallest < max_pvalue])
            best[kind] = pd.concat([best[kind], smallest]).groupby(level=0).min()
            row |= {kind: len(found[kind]), f"programs_{kind}": len(members)}
        shared = len(found["model"] & found["coexpression"])
        only = {f"only_{kind}": len(found[kind]) - shared for kind in graphs}
        counts.append(row | {"shared": shared} | only)
    if not n_programs:
        raise no_programs(clusters, min_genes)
    pvalues = pd.DataFrame({f"pvalue_{kind}": smallest for kind, smallest in best.items()}).fillna(1.0)
    is_found = pvalues < max_pvalue
    pvalues = pvalues[is_found.any(axis=1)].rename_axis("gene_set")
    both = is_found.loc[pvalues.index].all(axis=1)
    by_model = is_found.loc[pvalues.index, "pvalue_model"]
    pvalues.insert(0, "found_by", np.where(both, "both", np.where(by_model, "model", "coexpression")))
    order = [
        "resolution",
        "model",
        "coexpression",
        "shared",
        *(f"{what}_{kind}" for what in ("only", "programs") for kind in graphs),
    ]
    adata = target(adata, copy, key_added)
    adata.uns[key_added] = {"counts": pd.DataFrame(counts)[order], "pathways": pvalues.reset_index()}
    record(
        adata,
        key_added,
        function="scgpt.tl.compare_pathways",
        report=model.load_report,
        model_sha256=fingerprint(model),
        embedding=embedding,
        n_neighbors=n_neighbors,
        min_genes=min_genes,
        min_size=min_size,
        max_pvalue=max_pvalue,
        correction=correction,
        n_background=len(rows),
        layer=own_layer,
        seed=seed,
        **genes_of(match),
    )
    return adata if copy else None
