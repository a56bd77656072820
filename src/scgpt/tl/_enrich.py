"""What gene programs and targets of regulators have to do with known gene sets."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from anndata import AnnData

    from ._overrepresentation import Correction


def enrich(
    adata: AnnData,
    gene_sets: str | Path | Mapping[str, Iterable[str]],
    *,
    lists: str | Mapping[str, Iterable[str]] = "programs",
    background: Iterable[str] | None = None,
    min_size: int = 5,
    correction: Correction = "fdr_bh",
    gene_key: str | None = None,
    key: str | None = None,
    key_added: str = "scgpt_enrichment",
    copy: bool = False,
) -> AnnData | None:
    """Test lists of genes against gene sets, by the hypergeometric distribution (gseapy :cite:p:`Fang2023`, offline).

    Parameters
    ----------
    adata
        After :func:`scgpt.tl.gene_programs` or :func:`scgpt.tl.attention_network`.
    gene_sets
        Path of a GMT file, as MSigDB, Reactome and Enrichr give them, or a mapping of sets to their genes.
    lists
        ``"programs"``; ``"targets"``, those of each regulator, group and mode; or a mapping of lists to their genes.
    background
        Genes that could have been in a list. By default the genes that were clustered, or whose attention was read; for lists
        of yours all of ``adata``. With all genes of a genome in place of those looked at, tests say too much.
    min_size
        Sets with fewer genes in the background are not tested.
    correction
        For the number of tests, lists times sets: ``"fdr_bh"``, the false discovery rate of Benjamini and Hochberg, or
        ``"bonferroni"``, as the authors do.
    gene_key
        Column of ``.var`` with the names that ``gene_sets`` uses, ``"index"`` for its index; found by itself by default.
    key
        Where the lists are: beginning of the keys of programs, by default ``"scgpt"``, or key of the targets in ``.uns``, by
        default ``"scgpt_attention"``.
    key_added
        Key of ``.uns``.
    copy
        Return a copy instead of writing to ``adata``.

    Returns
    -------
    None, or the copy. Sets:

    ``adata.uns[key_added]``
        DataFrame with a row for each list and set that share a gene: ``list``, ``gene_set``, ``overlap``, ``list_size`` and
        ``set_size`` (numbers of genes in the background), ``odds_ratio`` (with 1/2 added to each count), ``pvalue``,
        ``adjusted_pvalue``, and ``genes``, those shared, with ``;`` between.

    Raises
    ------
    KeyError
        When there are no programs or targets, or a gene of a list is not in ``adata``.
    ValueError
        When the file holds no set, no set has a gene of the data, or none is large enough.
    FileNotFoundError
        When there is no such file.

    Examples
    --------
    >>> import scanpy as sc
    >>> import scgpt
    >>> adata = sc.datasets.pbmc68k_reduced()[:50].raw.to_adata()
    >>> sets = {"MHC class II": ["CD74", "HLA-DRA", "HLA-DRB1", "HLA-DPA1", "HLA-DPB1"]}  # or the path of a GMT file
    >>> scgpt.tl.enrich(adata, sets, lists={"mine": ["HLA-DRA", "HLA-DRB1", "HLA-DPA1", "LYZ", "NKG7"]})
    >>> adata.uns["scgpt_enrichment"][["list", "gene_set", "overlap", "list_size", "set_size", "genes"]]
       list      gene_set  overlap  list_size  set_size                      genes
    0  mine  MHC class II        3          5         5  HLA-DPA1;HLA-DRA;HLA-DRB1
    >>> bool(adata.uns["scgpt_enrichment"]["adjusted_pvalue"].item() < 1e-4)
    True

    Programs are tested by themselves after :func:`scgpt.tl.gene_programs`, as ``scgpt.tl.enrich(adata, sets)``.
    """
    from scgpt.data import check_anndata

    from ._arguments import target
    from ._chosen_genes import rows_of
    from ._overrepresentation import over_represented, read_gene_sets
    from ._provenance import record

    check_anndata(adata)
    rows, own_background = _lists(adata, lists, key)
    if background is not None:
        own_background = rows_of(adata, [str(gene) for gene in background]).tolist()
    sets = read_gene_sets(adata, gene_sets, gene_key)
    names = adata.var_names.astype(str).to_numpy()
    table = over_represented(rows, sets, own_background, names, min_size=min_size, correction=correction)
    adata = target(adata, copy, key_added)
    adata.uns[key_added] = table
    record(
        adata,
        key_added,
        function="scgpt.tl.enrich",
        report=None,
        lists=lists if isinstance(lists, str) else "given",
        n_background=len(own_background),
        min_size=min_size,
        correction=correction,
    )
    return adata if copy else None


def _lists(
    adata: AnnData, lists: str | Mapping[str, Iterable[str]], key: str | None
) -> tuple[dict[str, list[int]], list[int]]:
    """Return the variables of each list, and those that could have been in one."""
    from ._chosen_genes import rows_of

    if not isinstance(lists, str):
        given = {str(name): [str(gene) for gene in genes] for name, genes in lists.items()}
        if not given:
            raise ValueError("lists= is empty.")
        return {name: rows_of(adata, genes).tolist() for name, genes in given.items()}, list(range(adata.n_vars))
    if lists == "programs":
        key = key or "scgpt"
        if f"{key}_programs" not in adata.uns or f"{key}_program" not in adata.var:
            raise KeyError(f"There is no .uns[{key + '_programs'!r}]; call scgpt.tl.gene_programs first.")
        column = adata.var[f"{key}_program"]
        rows = {str(name): np.flatnonzero(column == name).tolist() for name in column.cat.categories}
        return rows, rows_of(adata, list(adata.uns[f"{key}_programs"]["background"])).tolist()
    if lists == "targets":
        key = key or "scgpt_attention"
        if key not in adata.uns:
            raise KeyError(f"There is no .uns[{key!r}]; call scgpt.tl.attention_network first.")
        table = adata.uns[key]["targets"]
        if not len(table):
            raise ValueError("No targets were written down: pass regulators= to scgpt.tl.attention_network.")
        several = {name: table[name].nunique() > 1 for name in ("regulator", "group", "mode")}
        by = [name for name in ("regulator", "group", "mode") if several[name] or name == "regulator"]
        rows = {
            ", ".join(map(str, of if isinstance(of, tuple) else (of,))): rows_of(adata, list(own["target"])).tolist()
            for of, own in table.groupby(by, sort=False, observed=True)
        }
        return rows, rows_of(adata, list(adata.uns[key]["genes"])).tolist()
    raise ValueError(f"lists must be 'programs', 'targets', or a mapping of lists to their genes, not {lists!r}.")
