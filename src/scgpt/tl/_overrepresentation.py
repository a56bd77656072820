"""Gene sets that lists of genes hold more of than chance gives."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData

type Correction = Literal["fdr_bh", "bonferroni"]
COLUMNS = ("list", "gene_set", "overlap", "list_size", "set_size", "odds_ratio", "pvalue", "adjusted_pvalue", "genes")


def read_gene_sets(
    adata: AnnData, gene_sets: str | Path | Mapping[str, Iterable[str]], gene_key: str | None
) -> dict[str, set[int]]:
    """Return the variables of a data set that are in each set; sets without any are left out.

    Raises
    ------
    ValueError
        When no set has a gene of the data; with what is wrong with the names, if that can be told.
    """
    from scgpt.data import GeneVocab, gene_names, ids_of, in_memory, name_keys, read_gmt

    sets = gene_sets if isinstance(gene_sets, Mapping) else read_gmt(gene_sets)
    members = {str(name): [str(gene) for gene in genes] for name, genes in sets.items()}
    names = dict.fromkeys(gene for genes in members.values() for gene in genes)
    if not names:
        raise ValueError("gene_sets holds no gene.")
    vocab, var = GeneVocab.from_genes(names), in_memory(adata.var)
    keys = name_keys(var, gene_key)
    ids = max((ids_of(gene_names(var, key), vocab, None) for key in keys), key=lambda ids: int((ids >= 0).sum()))
    rows_of: dict[str, list[int]] = {}
    for row in np.flatnonzero(ids >= 0):
        rows_of.setdefault(vocab.tokens[ids[row]], []).append(int(row))
    if not rows_of:
        own = gene_names(var, keys[0])
        upper = {name.casefold() for name in names}
        cased = any(name.casefold() in upper for key in keys for name in gene_names(var, key))
        raise ValueError(
            f"No gene set has a gene of the data: sets name them {list(names)[:3]}, .var {keys} have names such as {own[:3]}. "
            + ("They differ by case: another species? " if cased else "")
            + "Write the names of the sets into a column of .var, and name it by gene_key=."
        )
    rows = {name: {row for gene in genes for row in rows_of.get(gene, ())} for name, genes in members.items()}
    return {name: own for name, own in rows.items() if own}


def over_represented(
    lists: Mapping[str, Iterable[int]],
    sets: Mapping[str, set[int]],
    background: Iterable[int],
    names: NDArray,
    *,
    min_size: int,
    correction: Correction,
) -> pd.DataFrame:
    """Test each list against each set, by the hypergeometric distribution.

    Parameters
    ----------
    lists
        Variables of each list.
    sets
        Variables of each set.
    background
        Variables that could have been in a list.
    names
        ``(n_vars,)``, for the column ``genes``.
    min_size
        Sets with fewer genes in the background are not tested.
    correction
        For the number of tests, which is that of lists times sets, whether they share a gene or not.

    Returns
    -------
    With :data:`COLUMNS`; a row for each list and set that share a gene, those of one list together, the smallest p-value
    first.

    Raises
    ------
    ValueError
        When no set is large enough, or the correction is none of those known.
    """
    import pandas as pd
    from gseapy.stats import calc_pvalues
    from scipy.stats import false_discovery_control

    if correction not in ("fdr_bh", "bonferroni"):
        raise ValueError(f"correction must be 'fdr_bh' or 'bonferroni', not {correction!r}.")
    universe = set(background)
    tested = {name: own for name, genes in sets.items() if len(own := genes & universe) >= min_size}
    if not tested:
        largest = max((len(genes & universe) for genes in sets.values()), default=0)
        raise ValueError(
            f"No gene set has min_size={min_size} of the {len(universe)} genes of the background; the largest has {largest}. "
            "Lower min_size=, or cluster more genes."
        )
    rows: list[dict[str, Any]] = []
    for name, genes in lists.items():
        own = set(genes) & universe
        found = list(calc_pvalues(own, tested, background=universe)) if own else []
        for gene_set, pvalue, odds, overlap, size, hits in zip(*found, strict=True):
            of_list = {"list": name, "gene_set": gene_set, "overlap": overlap, "list_size": len(own), "set_size": size}
            shared = ";".join(sorted(str(names[row]) for row in hits))
            rows.append(of_list | {"odds_ratio": odds, "pvalue": pvalue, "adjusted_pvalue": pvalue, "genes": shared})
    table = pd.DataFrame(rows, columns=list(COLUMNS))
    if rows:
        n_tests = len(lists) * len(tested)
        # Lists and sets that share nothing are tests, too; their p-value is 1.
        every = np.append(table["pvalue"].to_numpy(dtype=float), np.ones(n_tests - len(table)))
        adjusted = false_discovery_control(every) if correction == "fdr_bh" else (every * n_tests).clip(max=1)
        table["adjusted_pvalue"] = adjusted[: len(table)]
    order = pd.Categorical(table["list"], list(lists))
    return (
        table.assign(_order=order.codes)
        .sort_values(["_order", "pvalue"], kind="stable")
        .drop(columns="_order")
        .reset_index(drop=True)
    )
