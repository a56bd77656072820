"""What a verb writes down about its result."""

from __future__ import annotations

from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from anndata import AnnData

    from scgpt.hub import LoadReport


def record(adata: AnnData, key: str, *, function: str, report: LoadReport | None, **parameters: Any) -> None:
    """Write ``.uns["scgpt"][key]``: how a result came about.

    Parameters
    ----------
    adata
        What the result was written to.
    key
        Where the result stands.
    function
        Name of the verb.
    report
        Where the weights that it was made with came from; None if they were trained from scratch.
    **parameters
        Anything else, as values that an h5ad file can hold.
    """
    everything = dict(adata.uns.get("scgpt", {}))
    everything[key] = {
        "function": function,
        "version": version("scgpt-tools"),
        "checkpoint": report.source if report else "trained from scratch",
        "checkpoint_sha256": report.sha256 if report else "",
        **parameters,
    }
    adata.uns["scgpt"] = everything
