"""Damage to safetensors files."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from ._bytes import damage_bytes
from ._json import change_value


def damage_safetensors(rng: np.random.Generator, path: Path) -> str:
    """Damage the header, the body or the tensors of a safetensors file, and say how."""
    kind = rng.choice(["bytes", "length", "header", "header", "tensors", "tensors"])
    if kind == "bytes":
        return damage_bytes(rng, path)
    if kind == "tensors":
        tensors = load_file(path)
        name = change_tensors(rng, tensors)
        save_file(tensors, path)
        return f"{path.name}: {name}"
    data = path.read_bytes()
    (n,) = struct.unpack("<Q", data[:8])
    if kind == "length":
        length = int(rng.choice(np.array([0, 1, n - 1, n + 1, 2**31, 2**40, 2**63, 2**64 - 1], np.uint64)))
        path.write_bytes(struct.pack("<Q", length) + data[8:])
        return f"{path.name}: header of {length} bytes"
    header, name = change_value(rng, json.loads(data[8 : 8 + n]))
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data[8 + n :])
    return f"{path.name}: header {name}"


def change_tensors(rng: np.random.Generator, tensors: dict[str, torch.Tensor]) -> str:
    """Change one of some tensors in place, and say how."""
    name = list(tensors)[rng.integers(len(tensors))]
    tensor = tensors.pop(name)
    kind = str(rng.choice(["missing", "renamed", "extra", "shape", "rank", "empty", "type", "value", "scalar"]))
    if kind == "renamed":
        tensors[f"{name}.x"] = tensor
    elif kind == "extra":
        tensors[name] = tensor
        tensors[str(rng.choice(["x", "genes.x", "layers.99.norm1.weight", "cls.9.weight", ""]))] = torch.ones(2)
    elif kind == "shape":
        tensors[name] = torch.cat([tensor, tensor]) if tensor.ndim else tensor.reshape(1)
    elif kind == "rank":
        tensors[name] = tensor[None].contiguous()
    elif kind == "empty":
        tensors[name] = tensor.flatten()[:0]
    elif kind == "scalar":
        tensors[name] = torch.tensor(1.0)
    elif kind == "type":
        kinds = (
            torch.int8,
            torch.bool,
            torch.float64,
            torch.bfloat16,
            torch.int64,
            torch.complex64,
            torch.float8_e4m3fn,
        )
        tensors[name] = tensor.to(kinds[rng.integers(len(kinds))])
        kind = f"type {tensors[name].dtype}"
    elif kind == "value":
        tensors[name] = torch.full_like(tensor, float(rng.choice([np.nan, np.inf, -np.inf])), dtype=torch.float32)
    return f"{name} {kind}"
