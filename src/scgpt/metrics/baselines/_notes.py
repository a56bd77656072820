"""How a baseline was made, beside what it made."""

from __future__ import annotations

from importlib.metadata import version
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from anndata import AnnData


def note(adata: AnnData, key: str, method: str, distribution: str, **params: str | int | float) -> None:
    """Write method, parameters, and version of the distribution that did the work to ``.uns[key]``."""
    adata.uns[key] = {"method": method, distribution: version(distribution), "params": params}
