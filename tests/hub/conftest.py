"""Fixtures for checkpoints: folders to be damaged, and a small checkpoint of our own."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from scgpt.data import GeneVocab, Tokenizer
from scgpt.hub import Checkpoint, LoadReport
from scgpt.nn import ScGPTConfig, ScGPTNetwork


@pytest.fixture
def official(golden: Path, tmp_path: Path) -> Path:
    """A checkpoint folder of the authors, to do with as one likes."""
    return Path(shutil.copytree(golden / "checkpoint", tmp_path / "official"))


@pytest.fixture
def edit_weights(official: Path) -> Callable[[Callable[[dict[str, torch.Tensor]], object]], Path]:
    """Change the weights in the authors' folder: the function gets their state dict."""

    def edit(change: Callable[[dict[str, torch.Tensor]], object]) -> Path:
        weights = torch.load(official / "best_model.pt", weights_only=True)
        change(weights)
        torch.save(weights, official / "best_model.pt")
        return official

    return edit


@pytest.fixture
def make_checkpoint() -> Callable[..., Checkpoint]:
    """A small checkpoint with random weights."""

    def make(seed: int = 0, registry: dict | None = None, **settings) -> Checkpoint:
        vocab = GeneVocab.from_genes(["CD3D", "NKG7", "β2M"])
        config = ScGPTConfig(
            **{"n_tokens": len(vocab), "d_model": 8, "n_heads": 2, "n_layers": 2, "d_feed_forward": 12} | settings
        )
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            weights = ScGPTNetwork(config).state_dict()
        report = LoadReport(source="/somewhere/else", sha256="0" * 64, loaded=("genes",))
        tokenizer = Tokenizer(vocab, n_bins=7, max_length=20, ties="spread", cls_value=0.5)
        return Checkpoint(config, weights, tokenizer, report, registry or {})

    return make
