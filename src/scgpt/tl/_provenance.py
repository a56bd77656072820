"""What a verb writes down about its result."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import fields
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from anndata import AnnData

    from scgpt.data import GeneMatch
    from scgpt.hub import LoadReport
    from scgpt.model import SCGPT


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


def recorded(adata: AnnData, key: str) -> Mapping[str, Any]:
    """Return what :func:`record` wrote of a result, nothing where something else stands there."""
    everything = adata.uns.get("scgpt")
    made = everything.get(key) if isinstance(everything, Mapping) else None
    return made if isinstance(made, Mapping) else {}


def genes_of(match: GeneMatch) -> dict[str, Any]:
    """Return which genes of a data set a model read, for :func:`record`."""
    return {
        "gene_key": match.key,
        "n_genes_matched": len(match.matched),
        "genes_matched": list(match.matched),
        "genes_unmatched": list(match.unmatched),
    }


def fingerprint(model: SCGPT) -> str:
    """Return a SHA-256 of all that a cell's embedding depends on: weights, network, tokenizer and vocabulary.

    Unlike the hash of a checkpoint's file it is there for models that were trained here, and stays when a model is saved
    in another format. A setting at its default does not enter: those that later versions add leave the hash as it is.
    """
    network, tokenizer = model.module.network, model.tokenizer
    chosen = [
        {f.name: value for f in fields(made) if (value := values.get(f.name, f.default)) != f.default}
        for made, values in ((network.config, network.config.to_dict()), (tokenizer, tokenizer.settings()))
    ]
    about = [*chosen, list(model.vocab.tokens)]
    digest = hashlib.sha256(json.dumps(about, sort_keys=True).encode())
    for name, tensor in sorted(network.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().numpy())
    return digest.hexdigest()
