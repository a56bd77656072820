"""Fixtures for the network: cells of very different lengths, and small networks."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from scgpt.data import TokenBatch
from scgpt.nn import ScGPTConfig, ScGPTNetwork

N_TOKENS, CLS = 30, 29


@pytest.fixture
def make_batch() -> Callable[..., TokenBatch]:
    """Random cells of given lengths, ``<cls>`` first, with all fields that a network can ask for."""

    def make(lengths: tuple[int, ...] = (7, 1, 12, 3), seed: int = 0) -> TokenBatch:
        generator = torch.Generator().manual_seed(seed)
        n_tokens, offsets = sum(lengths), torch.tensor([0, *lengths]).cumsum(0)
        genes = torch.cat([torch.randperm(CLS, generator=generator)[:n] for n in lengths])
        values = torch.randint(0, 10, (n_tokens,), generator=generator).float()
        genes[offsets[:-1]], values[offsets[:-1]] = CLS, -2.0
        return TokenBatch(
            gene_ids=genes,
            values=values,
            offsets=offsets,
            cell_index=torch.arange(len(lengths)),
            condition_ids=torch.randint(0, 3, (n_tokens, 2), generator=generator),
            modality_ids=torch.randint(0, 4, (n_tokens,), generator=generator),
            batch_labels=torch.arange(len(lengths)) % 3,
        )

    return make


@pytest.fixture
def batch(make_batch: Callable[..., TokenBatch]) -> TokenBatch:
    return make_batch()


@pytest.fixture
def make_network() -> Callable[..., ScGPTNetwork]:
    """A small network in eval mode, with no weight at a value that would hide a mistake."""

    def make(**settings) -> ScGPTNetwork:
        sizes = {"n_tokens": N_TOKENS, "d_model": 16, "n_heads": 2, "n_layers": 2, "d_feed_forward": 24}
        with torch.random.fork_rng():
            torch.manual_seed(1)
            network = ScGPTNetwork(ScGPTConfig(**sizes | settings))
            for name, parameter in network.named_parameters():
                torch.nn.init.normal_(parameter, mean=float("norm" in name and name.endswith("weight")), std=0.4)
            if network.conditions is not None:
                network.conditions.weight.data[0] = 0  # no condition
            for name, buffer in network.named_buffers():
                if name.endswith("running_mean"):
                    buffer.normal_()
                elif name.endswith("running_var"):
                    buffer.uniform_(0.5, 2)
        return network.eval()

    return make
