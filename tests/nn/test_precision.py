"""Layers in another precision than the rest."""

from types import SimpleNamespace

import pytest
import torch

from scgpt.nn import ScGPTConfig, ScGPTNetwork, _precision, has_bfloat16, layers_in

CONFIG = ScGPTConfig(n_tokens=60, d_model=32, n_heads=4, n_layers=3, d_feed_forward=32)


@pytest.fixture
def network() -> ScGPTNetwork:
    torch.manual_seed(0)
    return ScGPTNetwork(CONFIG).eval()


@torch.no_grad()
def test_layers_compute_in_bfloat16_and_heads_in_float32(network, batch):
    whole = network(batch, heads=["gep", "gepc"])
    with layers_in(network, torch.bfloat16):
        assert {p.dtype for p in network.layers.parameters()} == {torch.bfloat16}
        assert {p.dtype for p in network.genes.parameters()} == {torch.float32}
        half = network(batch, heads=["gep", "gepc"])
        of_cls = network(batch, tokens=False)
    for name in ("tokens", "cells", "gep", "gepc"):
        assert getattr(half, name).dtype == torch.float32
        assert not torch.equal(getattr(half, name), getattr(whole, name))
    assert torch.cosine_similarity(half.cells, whole.cells).min() > 0.9999
    torch.testing.assert_close(of_cls.cells, half.cells, rtol=0, atol=0.05)
    torch.testing.assert_close(half.gep, whole.gep, rtol=0, atol=0.02)


def test_the_weights_come_back_after_an_error(network, batch):
    own = network.layers
    with pytest.raises(RuntimeError, match="stop"), layers_in(network, torch.bfloat16):
        assert network.layers is not own
        raise RuntimeError("stop")
    assert network.layers is own
    assert {p.dtype for p in network.parameters()} == {torch.float32}


def test_float32_is_the_network_itself(network):
    own = network.layers
    with layers_in(network, torch.float32):
        assert network.layers is own


@pytest.mark.parametrize(
    ("vendor", "capabilities", "expected"),
    [
        ("AuthenticAMD", {"avx512_f": True}, "medium"),
        ("AuthenticAMD", {"avx2": True}, "highest"),
        ("GenuineIntel", {"avx512_f": True}, "highest"),  # MKL knows its own
        ("AuthenticAMD", {"avx512_f": True, "amx_bf16": True}, "highest"),  # it would round
    ],
)
def test_float32_is_multiplied_by_the_faster_library(network, vendor, capabilities, expected, monkeypatch):
    monkeypatch.setattr(_precision, "_vendor", lambda: vendor)
    monkeypatch.setattr(_precision, "_capabilities", lambda: capabilities)
    _precision._onednn_is_faster.cache_clear()
    assert torch.get_float32_matmul_precision() == "highest"
    try:
        with layers_in(network, torch.float32):
            assert torch.get_float32_matmul_precision() == expected
    finally:
        _precision._onednn_is_faster.cache_clear()
    assert torch.get_float32_matmul_precision() == "highest"


@pytest.mark.parametrize(
    ("capabilities", "expected"),
    [({"avx2": True}, False), ({"avx512_f": True}, False), ({"avx512_bf16": True}, True), ({"bf16": True}, True)],
)
def test_bfloat16_is_native_where_the_processor_says_so(capabilities, expected, monkeypatch):
    monkeypatch.setattr(_precision, "_capabilities", lambda: capabilities)
    assert has_bfloat16(torch.device("cpu")) is expected


def test_other_devices_have_no_bfloat16():
    assert not has_bfloat16(SimpleNamespace(type="mps"))
