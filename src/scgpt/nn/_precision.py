"""In which precision a network computes, and what a device is fast in."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import torch

from ._network import ScGPTNetwork


def has_bfloat16(device: torch.device) -> bool:
    """Whether a device multiplies matrices in bfloat16 itself, and so faster than in float32."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return device.type == "cpu" and any(_capabilities().get(name) for name in ("avx512_bf16", "amx_bf16", "bf16"))


@contextmanager
def layers_in(network: ScGPTNetwork, dtype: torch.dtype) -> Iterator[None]:
    """Let a network's layers compute in ``dtype``: where almost all of the work is.

    Embeddings and heads stay in float32, but that their products of matrices on a GPU are then of TensorFloat-32. Inside,
    the layers are copies; the network's own come back at the end, whatever happens.
    """
    layers, half = network.layers, dtype != torch.float32
    if half:
        network.layers = copy.deepcopy(layers).to(dtype)
    try:
        with _float32_products(_fast_float32(layers[0].norm1.weight.device, half)):  # type: ignore[arg-type, union-attr]
            yield
    finally:
        network.layers = layers


def _fast_float32(device: torch.device, half: bool) -> str | None:
    """Return what :func:`torch.set_float32_matmul_precision` is to be told, None to leave it."""
    if device.type == "cuda":
        return "high" if half else None
    return "medium" if device.type == "cpu" and _onednn_is_faster() else None


@cache
def _onednn_is_faster() -> bool:
    """Whether torch's other library for float32 is faster at the same accuracy.

    By default torch asks MKL, which leaves the 512-bit instructions of processors that are not Intel's unused. What torch
    calls "medium" precision asks oneDNN, which rounds to bfloat16 only where there is AMX.
    """
    has = _capabilities()
    return bool(has.get("avx512_f")) and not has.get("amx_bf16") and _vendor() == "AuthenticAMD"


def _capabilities() -> dict[str, object]:
    of_torch = getattr(torch.cpu, "get_capabilities", None)  # torch 2.10
    return dict(of_torch()) if of_torch else {"avx512_bf16": torch.cpu._is_avx512_bf16_supported()}


def _vendor() -> str:
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    return next((line.split(":")[1].strip() for line in lines if line.startswith("vendor_id")), "")


@contextmanager
def _float32_products(precision: str | None) -> Iterator[None]:
    before = torch.get_float32_matmul_precision()
    if precision is not None:
        torch.set_float32_matmul_precision(precision)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)
