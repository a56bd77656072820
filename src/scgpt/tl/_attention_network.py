"""Which genes attend to which, in groups of cells."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData

    from scgpt.model import SCGPT


def attention_network(
    adata: AnnData,
    model: str | Path | SCGPT,
    *,
    groupby: str | None = None,
    control: str | None = None,
    groups: str | Iterable[str] | None = None,
    regulators: str | Iterable[str] = (),
    genes: str | Iterable[str] = "hvg",
    n_top_genes: int = 1200,
    layer: int | str = -1,
    heads: int | Sequence[int] | None = None,
    include_zeros: bool | None = None,
    min_cells: int = 10,
    n_targets: int = 20,
    expression_layer: str | None = None,
    gene_key: str | None = None,
    gene_mapping: Mapping[str, str] | pd.Series | str | Path | None = None,
    progress_bar: bool = True,
    key_added: str = "scgpt_attention",
    copy: bool = False,
) -> AnnData | None:
    r"""Average over cells how much genes attend to genes, and find the targets of regulators :cite:p:`Cui2024`.

    In each cell the attention of each head is normalised by ranks, first within what a gene attends to, then among all genes
    that attend to a gene; heads are averaged, then the cells of each group. Targets of a gene are those that attend to it
    most. Cells pass one after the other, and the memory does not grow with their number.

    Parameters
    ----------
    adata
        Cells by genes, with counts or log-normalised values.
    model
        A model, best one that was fine-tuned on cells of this kind; the folder of a checkpoint, or a checkpoint's name.
    groupby
        Column of ``.obs`` with the condition or type of cells. By default all are one group, ``"all"``.
    control
        The group of it to compare all others with.
    groups
        Those to look at, beside ``control``; by default all. Others are not read.
    regulators
        Genes whose targets are written down; they are among ``genes`` then. Targets of any other are told by
        :func:`scgpt.get.attention_targets`.
    genes
        As in :func:`scgpt.tl.gene_programs`. Time and memory grow with the square of their number.
    n_top_genes
        See there.
    layer
        Layer of the network, a number, from 0 on or from the last, -1, back.
    heads
        Which heads to average; by default all.
    include_zeros
        Whether genes that a cell does not express have a say there, as in the authors' analyses; by default as the model was
        trained. Each cell is then as long as there are genes.
    min_cells
        For ``n_targets``, as in :func:`scgpt.get.attention_targets`.
    n_targets
        How many targets of each regulator are written down.
    expression_layer
        Layer of ``adata`` with the values; what ``layer`` is elsewhere.
    gene_key
        As in :func:`scgpt.tl.embed`.
    gene_mapping
        As in :func:`scgpt.tl.embed`.
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
        ``"genes"``, ``n`` names in the model's vocabulary; ``"groups"`` and ``"n_cells"``; ``"control"``, empty if there is
        none; ``"influence"``, ``(n_groups, n, n)`` float32, of row ``i`` and column ``j`` how much gene ``i`` attends to gene
        ``j``, from 0 to 1, where 1/2 is what chance gives, mean over the cells that have both, NaN where there are none;
        ``"n_both"``, ``(n_groups, n, n)`` int32, how many cells these are;
        ``"targets"``, what :func:`scgpt.get.attention_targets` tells of ``regulators``, in all modes and groups.
    ``adata.uns["scgpt"][key_added]``
        Provenance.

    Raises
    ------
    KeyError
        When a column, a group or a gene is not there.
    ValueError
        When a group has no cell; when values cannot be expression.
    IndexError
        When the network has no such layer or head.

    Notes
    -----
    Attention tells what a model looks at. Whether that is regulation has to be measured against known links, and beside
    co-expression: :func:`scgpt.metrics.network_scores`.

    Examples
    --------
    >>> import scanpy as sc
    >>> import scgpt
    >>> adata = sc.datasets.pbmc68k_reduced()[:100].raw.to_adata()
    >>> genes = ["CD74", "HLA-DRA", "HLA-DRB1", "LYZ", "CST3", "NKG7", "GNLY", "CD3D", "LTB", "IL32"]
    >>> scgpt.tl.attention_network(adata, "mini", genes=genes, groupby="phase", regulators=["CD74"], progress_bar=False)
    >>> adata.uns["scgpt_attention"]["groups"].tolist(), adata.uns["scgpt_attention"]["influence"].shape
    (['G1', 'G2M', 'S'], (3, 10, 10))
    >>> adata.uns["scgpt_attention"]["targets"].columns.tolist()
    ['regulator', 'group', 'mode', 'target', 'rank', 'score']
    """
    import pandas as pd

    from scgpt.data import check_anndata
    from scgpt.get import attention_targets
    from scgpt.model import SCGPT

    from ._arguments import target
    from ._chosen_genes import choose_genes, rows_of
    from ._provenance import fingerprint, genes_of, record

    check_anndata(adata)
    if isinstance(layer, str):
        raise TypeError(
            f"layer={layer!r}: here it is a layer of the network, a number; pass expression_layer={layer!r}."
        )
    cells = _groups(adata, groupby, control, groups)
    adata = target(adata, copy, key_added)
    if not isinstance(model, SCGPT):
        model = SCGPT.from_pretrained(model)
    match = model.match(adata, gene_key=gene_key, gene_mapping=gene_mapping)
    regulators = [regulators] if isinstance(regulators, str) else list(regulators)
    chosen = choose_genes(adata, model, match, genes, n_top_genes=n_top_genes, layer=expression_layer, also=regulators)
    found = model.get_gene_attention(
        chosen.names,
        adata,
        groups=cells,
        attention_layer=layer,
        heads=heads,
        include_zeros=include_zeros,
        layer=expression_layer,
        match=match,
        progress_bar=progress_bar,
    )
    result: dict[str, Any] = {
        "genes": np.array(found.genes, dtype=object),
        "groups": np.array(found.groups, dtype=object),
        "n_cells": found.n_cells,
        "control": control or "",
        "influence": found.influence,
        "n_both": found.n_both,
    }
    adata.uns[key_added] = result
    names = [model.vocab.tokens[i] for i in match.token_ids[rows_of(adata, regulators)]]
    tables = [
        attention_targets(adata, names, group=group, mode=mode, n_targets=n_targets, min_cells=min_cells, key=key_added)
        for group in found.groups
        if group != control
        for mode in (("control", "perturbed", "difference") if control else ("group",))
    ]
    result["targets"] = pd.concat(tables, ignore_index=True)
    record(
        adata,
        key_added,
        function="scgpt.tl.attention_network",
        report=model.load_report,
        model_sha256=fingerprint(model),
        groupby=groupby or "",
        network_layer=layer,
        heads="all" if heads is None else np.atleast_1d(heads).tolist(),
        min_cells=min_cells,
        include_zeros=model.tokenizer.include_zeros if include_zeros is None else include_zeros,
        layer=model.layer_of(expression_layer),
        **genes_of(match),
    )
    return adata if copy else None


def _groups(
    adata: AnnData, groupby: str | None, control: str | None, groups: str | Iterable[str] | None
) -> pd.Series | None:
    """Return the group of each cell that has a say, missing for others."""
    from scgpt.data import as_text, column_of

    if groupby is None:
        if control is not None or groups is not None:
            raise ValueError("control= and groups= are groups of a column of .obs; name it by groupby=.")
        return None
    column = column_of(adata.obs, groupby, "groupby")
    names = as_text(column, groupby)
    known = set(map(str, column.cat.categories)) if column.dtype == "category" else set(names.dropna())
    asked = [groups] if isinstance(groups, str) else None if groups is None else [str(g) for g in groups]
    wanted = ([] if control is None else [str(control)]) + (sorted(set(names.dropna())) if asked is None else asked)
    if lacking := [name for name in wanted if name not in known]:
        raise KeyError(f"There is no group {lacking} in .obs[{groupby!r}]; there are {sorted(known)}.")
    if empty := [name for name in wanted if name not in set(names.dropna())]:
        raise ValueError(f"No cell is in the group {empty} of .obs[{groupby!r}].")
    if control is not None and set(wanted) == {control}:
        raise ValueError(f"There is no group beside control={control!r} to compare it with.")
    return names.where(names.isin(wanted))
