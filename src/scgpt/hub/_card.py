"""Model cards, in the form that the hub of scvi-tools has given them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any

import yaml

from ._checkpoint import WEIGHTS, Checkpoint

_UNKNOWN = "To be added..."
_SIZES = ("d_model", "n_layers", "n_heads", "d_feed_forward", "norm", "pooling")


@dataclass(frozen=True)
class ModelCard:
    """What a model's card says beside what its checkpoint knows.

    The card is a ``README.md`` that begins with a header of YAML, with the tags by which ``scvi.hub`` and Hugging Face find
    models (``model_cls_name:SCGPT``, ``tissue:blood``, ...). Class, network, genes, cells, hash and versions are filled in.

    Parameters
    ----------
    license
        Of the weights, as Hugging Face abbreviates it: ``"cc-by-4.0"``, ``"mit"``, ``"bsd-3-clause"``, ``"other"``, ...
    description
        What the model is, what it was trained on, what it is for and what not. Markdown.
    authors
        Who made it.
    tissues
        Of the cells that it was trained on.
    modalities
        Of these cells.
    references
        Publications, and where the data come from. Markdown.
    training_data_url
        Where the cells are.
    training_code_url
        Where the code of the training is.
    epochs
        How long it was trained; a model's own ``save`` and ``push_to_hub`` fill it in.
    losses
        Objectives and their last losses; likewise.

    Raises
    ------
    TypeError
        When ``tissues`` or ``modalities`` is one name in place of a list.

    Examples
    --------
    >>> import scgpt
    >>> from scgpt.hub import ModelCard
    >>> card = ModelCard(license="cc-by-4.0", tissues=["blood"], description="PBMC of 8 donors; for tutorials.")
    >>> scgpt.hub.write_checkpoint(scgpt.hub.read("mini"), "model", card=card)
    >>> open("model/README.md").read().splitlines()[:3]
    ['---', 'license: cc-by-4.0', 'library_name: scgpt-tools']
    """

    license: str | None = None
    description: str = ""
    authors: str = ""
    tissues: Sequence[str] = ()
    modalities: Sequence[str] = ("rna",)
    references: str = ""
    training_data_url: str | None = None
    training_code_url: str | None = None
    epochs: int | None = None
    losses: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("tissues", "modalities"):
            if isinstance(getattr(self, name), str):
                raise TypeError(f"{name} must be a list of names, such as [{getattr(self, name)!r}].")

    def header(self, checkpoint: Checkpoint) -> str:
        """Return the header, between its lines of dashes."""
        registry = checkpoint.registry
        n_labels = _stats(registry).get("n_labels")
        tags = ["biology", "genomics", "single-cell", "scgpt", f"model_cls_name:{_class_of(registry)}"]
        tags += [f"scvi_version:{registry.get('scvi_version') or version('scvi-tools')}"]
        tags += [f"anndata_version:{version('anndata')}", f"scgpt_tools_version:{version('scgpt-tools')}"]
        tags += [f"modality:{name}" for name in self.modalities] + [f"tissue:{name}" for name in self.tissues]
        tags += [] if n_labels is None else [f"annotated:{n_labels > 1}"]
        about = {"license": self.license} if self.license else {}
        header = yaml.safe_dump(
            about | {"library_name": "scgpt-tools", "tags": tags}, sort_keys=False, allow_unicode=True
        )
        return f"---\n{header}---\n"

    def text(self, checkpoint: Checkpoint, sha256: str) -> str:
        """Return the card of a checkpoint.

        Parameters
        ----------
        checkpoint
            The checkpoint.
        sha256
            Of its file of weights.
        """
        config, registry = checkpoint.config, checkpoint.registry
        name = _class_of(registry)
        stats = _stats(registry)
        rows = {
            "class": f"`scgpt.model.{name}`",
            "network": ", ".join(f"{size} {getattr(config, size)}" for size in _SIZES),
            "heads": ", ".join(config.heads),
            "genes": f"{len(checkpoint.vocab.genes):,}",
            f"SHA-256 of `{WEIGHTS}`": f"`{sha256}`",
            "weights from": checkpoint.report.name,
        }
        trained: dict[str, Any] = {
            "cells": stats.get("n_cells"),
            "batches": stats.get("n_batch"),
            "epochs": self.epochs,
        }
        trained |= {"objectives": ", ".join(_objectives(self.losses))}
        trained |= {"training data": self.training_data_url, "training code": self.training_code_url}
        parts = [
            self.header(checkpoint),
            f"# {name}\n\n{self.description or _UNKNOWN}\n",
            f"Made by: {self.authors or _UNKNOWN}\n",
            f"""\
```python
from scgpt.model import {name}

model = {name}.from_pretrained("user/name")  # of this repository, or the folder
```
""",
            f"## Model\n\n{_table('property', 'value', rows)}",
            f"## Training\n\n{_table('property', 'value', trained)}",
        ]
        if self.losses:
            losses = {key: f"{value:.4g}" for key, value in self.losses.items()}
            parts.append(f"Losses at the end:\n\n{_table('objective', 'loss', losses)}")
        if types := _types(registry):
            parts.append(f"Types: {', '.join(types)}.\n")
        # A mapping of gene names has thousands, and is in the registry.
        setup = {key: value for key, value in registry.get("setup_args", {}).items() if isinstance(value, str)}
        if setup:
            method = registry.get("setup_method_name", "setup_anndata")
            parts.append(f"Set up by `{method}` with:\n\n```json\n{json.dumps(setup, indent=1)}\n```\n")
        parts.append(f"## References\n\n{self.references or _UNKNOWN}\n")
        return "\n".join(parts)


def _class_of(registry: Mapping[str, Any]) -> str:
    return registry.get("model_name") or "SCGPT"


def _stats(registry: Mapping[str, Any]) -> dict[str, int]:
    fields = registry.get("field_registries", {}).values()
    return {key: n for field in fields for key, n in field.get("summary_stats", {}).items()}


def _types(registry: Mapping[str, Any]) -> list[str]:
    """Return the labels that a model was set up with; none where its cells have none."""
    labels = registry.get("field_registries", {}).get("labels", {})
    if labels.get("summary_stats", {}).get("n_labels", 1) < 2:
        return []
    state = labels["state_registry"]
    return [name for name in state["categorical_mapping"]["__array__"] if name != state.get("unlabeled_category")]


def _objectives(losses: Mapping[str, float]) -> list[str]:
    names = (name.rpartition("_")[0] for name in losses if name not in ("train_loss", "validation_loss"))
    return list(dict.fromkeys(names))


def _table(left: str, right: str, rows: Mapping[str, Any]) -> str:
    lines = [f"| {name} | {value} |" for name, value in rows.items() if value not in (None, "")]
    return "\n".join([f"| {left} | {right} |", "|:--|:--|", *lines, ""])
