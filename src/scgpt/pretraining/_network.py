"""The network that a run starts from."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import torch

from scgpt import hub
from scgpt._messages import inform
from scgpt.corpus import Corpus
from scgpt.data import GeneVocab, Tokenizer
from scgpt.hub import Checkpoint, LoadReport
from scgpt.module import is_generative, make_objectives
from scgpt.nn import ScGPTConfig, ScGPTNetwork, start_at_value

from ._config import PretrainingConfig


def starting_point(settings: PretrainingConfig, corpus: Corpus) -> Checkpoint:
    """Return random weights for the genes of a corpus, or those of a checkpoint with what the settings change.

    Raises
    ------
    ValueError
        When the network that is asked for cannot be, or lacks what an objective reads.
    """
    objectives = make_objectives(settings.objectives)
    needed: dict[str, Any] = {"n_flags": 2} if is_generative(objectives) else {}
    heads = {head for o in objectives for head in o.heads}
    needed |= {name: True for name in ("gepc", "zero") if name in heads}
    if settings.model is None:
        start = _random(needed | dict(settings.network), dict(settings.tokenizer), corpus.vocab, settings.seed)
    else:
        start = _continued(settings, corpus.vocab, needed)
    if lacking := sorted(heads - set(start.config.heads)):
        raise ValueError(f"The objectives read {lacking}, which this network does not have: see network.")
    return start


def _random(network: Mapping[str, Any], tokenizer: Mapping[str, Any], vocab: GeneVocab, seed: int) -> Checkpoint:
    settings = {"ties": "spread"} | dict(tokenizer)
    tokens = Tokenizer.from_settings(vocab, settings)
    n_values = (tokens.n_bins or 51) + 2
    if network.get("value_encoder") == "categorical":  # rows for <cls> and for the mask come after the bins
        tokens = replace(tokens, cls_value=n_values - 2, mask_value=n_values - 1)
    sizes = {"n_tokens": len(vocab), "n_values": n_values}
    config = ScGPTConfig.from_dict(sizes | dict(network))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        start = ScGPTNetwork(config)
    if tokens.n_bins:
        start_at_value(start, tokens.n_bins / 2)
    return Checkpoint(config, start.state_dict(), tokens, LoadReport("random weights", "", ()))


def _continued(settings: PretrainingConfig, genes: GeneVocab, needed: Mapping[str, Any]) -> Checkpoint:
    assert settings.model is not None
    start = hub.read(settings.model)
    known = set(start.vocab)
    new = [gene for gene in genes.genes if gene not in known]
    if settings.grow_vocabulary and new:
        start = start.with_genes(new, seed=settings.seed)
    elif new:
        inform(
            f"{len(new)} of the {len(genes.genes)} genes of the corpus are not known to {settings.model} and are left out."
        )
    changes = _lacking(start.config, needed) | dict(settings.network)
    fresh = _new_parts(start, changes)
    if changes:
        start = start.adapt(fresh=fresh, **changes)
    inform(str(start.report))
    return replace(start, tokenizer=replace(start.tokenizer, **settings.tokenizer))


def _lacking(config: ScGPTConfig, needed: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in needed.items() if not getattr(config, name)}


def _new_parts(start: Checkpoint, changes: Mapping[str, Any]) -> Iterable[str]:
    """Return parts of the changed network that the checkpoint has no, or not all, weights of."""
    with torch.device("meta"):
        wanted = ScGPTNetwork(start.config.changed(**changes)).state_dict()
    return dict.fromkeys(name.split(".", 1)[0] for name in wanted if name not in start.state_dict)
