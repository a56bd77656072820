"""What genes attend to genes, as tables."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData

type AttentionMode = Literal["group", "control", "perturbed", "difference"]


def attention_matrix(
    adata: AnnData,
    *,
    group: str | None = None,
    mode: AttentionMode | None = None,
    min_cells: int = 10,
    key: str = "scgpt_attention",
) -> pd.DataFrame:
    """Return how much genes attend to genes, regulators by targets.

    Parameters
    ----------
    adata
        After :func:`scgpt.tl.attention_network`.
    group
        Group of cells; may be left out where there is but one, beside the control.
    mode
        ``"group"`` or ``"perturbed"``, what is in the cells of the group; ``"control"``, in those of the control; or
        ``"difference"``, in the group less in the control. By default ``"difference"`` where there is a control.
        Scores are means over the cells that have both genes as tokens, from 0 to 1, where 1/2 is what chance gives. For a
        difference the other cells count as chance: a gene that is expressed in the group alone differs, too.
    min_cells
        Cells that have to have both genes, of a difference in one of its groups. The mean over few is the highest or
        lowest by chance.
    key
        Key of ``.uns``.

    Returns
    -------
    ``(n, n)`` float32, with genes as index (``regulator``) and columns (``target``); NaN where too few cells have both. It is
    what :func:`scgpt.metrics.network_scores` takes.

    Raises
    ------
    KeyError
        When there is no result, or no such group.
    ValueError
        When the group has to be named, or the mode does not go with the result.

    Examples
    --------
    >>> import scanpy as sc
    >>> import scgpt
    >>> adata = sc.datasets.pbmc68k_reduced()[:50].raw.to_adata()
    >>> genes = ["CD74", "HLA-DRA", "LYZ", "CST3", "NKG7"]
    >>> scgpt.tl.attention_network(adata, "mini", genes=genes, progress_bar=False)
    >>> matrix = scgpt.get.attention_matrix(adata)
    >>> top = matrix.loc["CD74"].nlargest(3)  # the genes that attend most to CD74
    >>> matrix.shape, matrix.index.name, top.index.name
    ((5, 5), 'regulator', 'target')
    """
    import pandas as pd

    found = _result(adata, key)
    genes = pd.Index([str(gene) for gene in found["genes"]])
    _, _, influence = _of_mode(found, group, mode, min_cells)
    return pd.DataFrame(influence.T, index=genes.rename("regulator"), columns=genes.rename("target"))


def attention_targets(
    adata: AnnData,
    regulators: str | Iterable[str],
    *,
    group: str | None = None,
    mode: AttentionMode | None = None,
    n_targets: int = 20,
    min_cells: int = 10,
    key: str = "scgpt_attention",
) -> pd.DataFrame:
    """Return the genes that attend most to regulators.

    Parameters
    ----------
    adata
        After :func:`scgpt.tl.attention_network`.
    regulators
        Genes, as the model calls them.
    group
        As in :func:`attention_matrix`.
    mode
        As in :func:`attention_matrix`. With ``"difference"`` the targets are those whose attention differs most, up or down.
    n_targets
        How many of each.
    min_cells
        As in :func:`attention_matrix`.
    key
        Key of ``.uns``.

    Returns
    -------
    With columns ``regulator``, ``group``, ``mode``, ``target``, ``rank`` from 1 on, and ``score``, as in
    :func:`attention_matrix`. Genes that too few cells have beside the regulator are left out.

    Raises
    ------
    KeyError
        When there is no result, or it lacks a regulator or group.
    ValueError
        As :func:`attention_matrix`, and when ``n_targets`` is below 1.

    Examples
    --------
    >>> import scanpy as sc
    >>> import scgpt
    >>> adata = sc.datasets.pbmc68k_reduced()[:50].raw.to_adata()
    >>> genes = ["CD74", "HLA-DRA", "LYZ", "CST3", "NKG7"]
    >>> scgpt.tl.attention_network(adata, "mini", genes=genes, progress_bar=False)
    >>> scgpt.get.attention_targets(adata, ["CD74", "LYZ"], n_targets=2)[["regulator", "group", "mode", "rank"]]
      regulator group   mode  rank
    0      CD74   all  group     1
    1      CD74   all  group     2
    2       LYZ   all  group     1
    3       LYZ   all  group     2
    """
    import pandas as pd

    from scgpt.data import check_whole

    check_whole(n_targets, "n_targets")
    found = _result(adata, key)
    genes = np.array([str(gene) for gene in found["genes"]], dtype=object)
    names = [regulators] if isinstance(regulators, str) else [str(name) for name in regulators]
    group, of_mode, influence = _of_mode(found, group, mode, min_cells)
    parts = []
    for name in names:
        column = influence[:, _place(genes, name)].copy()
        column[genes == name] = np.nan  # what a gene gives to itself is no regulation
        by = -np.abs(column) if of_mode == "difference" else -column
        best = np.argsort(by, kind="stable")[: min(n_targets, int(np.isfinite(column).sum()))]
        columns = {"regulator": name, "group": group, "mode": of_mode, "target": genes[best]}
        ranks = {"rank": np.arange(1, len(best) + 1), "score": column[best]}
        parts.append(pd.DataFrame(columns | ranks))
    if not parts:
        return pd.DataFrame(columns=["regulator", "group", "mode", "target", "rank", "score"])
    return pd.concat(parts, ignore_index=True)


def _result(adata: AnnData, key: str) -> Any:
    if key not in adata.uns:
        raise KeyError(f"There is no .uns[{key!r}]; call scgpt.tl.attention_network first.")
    return adata.uns[key]


def _place(genes: NDArray, name: str) -> int:
    places = np.flatnonzero(genes == name)
    if len(places):
        return int(places[0])
    meant = [gene for gene in genes if gene.casefold() == name.casefold()]
    hint = f"did you mean {meant[0]!r}?" if meant else "pass it to scgpt.tl.attention_network as one of regulators=."
    raise KeyError(f"{name!r} is not among the {len(genes)} genes whose attention was read; {hint}")


def _of_mode(found: Any, group: str | None, mode: str | None, min_cells: int) -> tuple[str, str, NDArray[np.float32]]:
    """Return group, mode and the ``(n, n)`` attention of targets (rows) to regulators."""
    groups, control = [str(name) for name in found["groups"]], str(found["control"])
    compared = [name for name in groups if name != control] if control else groups
    if group is None:
        if len(compared) > 1:
            raise ValueError(f"Name the group of cells by group=, one of {compared}.")
        group = compared[0]
    if str(group) not in groups:
        raise KeyError(f"There is no group {group!r}; there are {groups}.")
    if mode is None:
        mode = "difference" if control and group != control else "group"
    if mode not in ("group", "control", "perturbed", "difference"):
        raise ValueError(f"mode must be 'group', 'control', 'perturbed' or 'difference', not {mode!r}.")
    if mode != "group" and not control:
        raise ValueError(f"mode={mode!r} needs a control: pass control= to scgpt.tl.attention_network.")
    influence, n_both = np.asarray(found["influence"]), np.asarray(found["n_both"])
    own, others = groups.index(str(group)), groups.index(control) if control else -1
    if mode != "difference":
        of = others if mode == "control" else own
        return str(group), mode, np.where(n_both[of] >= max(min_cells, 1), influence[of], np.nan)
    share = n_both / np.asarray(found["n_cells"])[:, None, None]
    above = np.nan_to_num(influence - 0.5) * share
    seen = np.maximum(n_both[own], n_both[others]) >= max(min_cells, 1)
    return str(group), mode, np.where(seen, above[own] - above[others], np.nan).astype(np.float32)
