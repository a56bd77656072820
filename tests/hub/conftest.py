"""Fixtures for checkpoints: folders to be damaged, and a small checkpoint of our own."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from scgpt.data import GeneVocab, Tokenizer
from scgpt.hub import Checkpoint, LoadReport
from scgpt.nn import ScGPTConfig, ScGPTNetwork

from ._stand_in import TOKEN, StandIn


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


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[StandIn]:
    """A hub of Hugging Face that huggingface_hub asks in place of the real one, with an empty cache and one account."""
    from huggingface_hub import constants

    hub = StandIn()
    settings = {
        "ENDPOINT": hub.url,
        "HUGGINGFACE_CO_URL_TEMPLATE": hub.url + "/{repo_id}/resolve/{revision}/{filename}",
        "HF_HUB_CACHE": str(tmp_path / "hf" / "hub"),
        "HF_TOKEN_PATH": str(tmp_path / "hf" / "token"),
        "AGENT_HARNESSES_PATH": str(tmp_path / "hf" / "agents.json"),
        "HF_HUB_OFFLINE": False,
        "HF_HUB_DISABLE_XET": True,
        "HF_HUB_DISABLE_TELEMETRY": True,
    }
    for name, value in settings.items():
        monkeypatch.setattr(constants, name, value, raising=False)  # versions differ in what they have
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    yield hub
    hub.close()
