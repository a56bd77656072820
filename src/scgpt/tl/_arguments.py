"""What the verbs ask of their arguments."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from anndata import AnnData


def target(adata: AnnData, copy: bool, key_added: str) -> AnnData:
    """Return what results are to be written to, under a key: the data set itself, or a copy of it in memory.

    Raises
    ------
    TypeError
        For a key that is no text.
    ValueError
        For a view of a file, which cannot be written to, a key that cannot be one, and where something else stands at the
        place of provenance.
    """
    from scgpt.data import check_new_key

    check_new_key(key_added, "key_added")
    if not isinstance(adata.uns.get("scgpt", {}), Mapping):
        raise ValueError(".uns['scgpt'] is where results are recorded, and holds something else; delete or rename it.")
    if copy:
        return adata.to_memory(copy=True) if adata.isbacked else adata.copy()
    if adata.is_view and adata.isbacked:
        raise ValueError("Results cannot be written into a view of a file; pass copy=True, or the whole file.")
    return adata


def refuse_own(own: Iterable[str], train_kwargs: Mapping[str, Any], verb: str) -> None:
    """Raise for arguments of a training that a verb has itself.

    Raises
    ------
    ValueError
        When one of its ``own`` arguments is among ``train_kwargs``.
    """
    if twice := sorted({*own, "enable_progress_bar"} & set(train_kwargs)):
        raise ValueError(f"Pass {', '.join(twice)} to {verb} itself (progress_bar for enable_progress_bar).")
