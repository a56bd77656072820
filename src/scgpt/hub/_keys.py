"""The authors' parameter names, and ours."""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

# (authors' pattern, our name); the first that matches the whole key wins. Both styles of attention keys are here:
# flash-attn's ``Wqkv`` and torch's ``in_proj`` hold the same stacked queries, keys and values.
_RULES: tuple[tuple[str, str], ...] = (
    (r"encoder\.embedding\.(weight)", r"genes.embedding.\1"),
    (r"encoder\.enc_norm\.(weight|bias)", r"genes.norm.\1"),
    (r"value_encoder\.(linear1|linear2|norm)\.(weight|bias)", r"values.\1.\2"),
    (r"value_encoder\.embedding\.(weight)", r"values.embedding.\1"),
    (r"value_encoder\.enc_norm\.(weight|bias)", r"values.norm.\1"),
    (r"pert_encoder\.(?:embedding\.)?(weight)", r"conditions.\1"),
    (r"flag_encoder\.(weight)", r"flags.\1"),
    (r"batch_encoder\.embedding\.(weight)", r"batches.embedding.\1"),
    (r"batch_encoder\.enc_norm\.(weight|bias)", r"batches.norm.\1"),
    (r"mod_encoder\.embedding\.(weight)", r"modalities.embedding.\1"),
    (r"mod_encoder\.enc_norm\.(weight|bias)", r"modalities.norm.\1"),
    (r"bn\.(weight|bias|running_mean|running_var|num_batches_tracked)", r"input_norm.\1"),
    (r"dsbn\.bns\.(\d+)\.(running_mean|running_var|num_batches_tracked)", r"input_norm.\2[\1]"),
    (r"transformer_encoder\.layers\.(\d+)\.self_attn\.Wqkv\.(weight|bias)", r"layers.\1.attention.qkv.\2"),
    (r"transformer_encoder\.layers\.(\d+)\.self_attn\.in_proj_(weight|bias)", r"layers.\1.attention.qkv.\2"),
    (r"transformer_encoder\.layers\.(\d+)\.self_attn\.out_proj\.(weight|bias)", r"layers.\1.attention.out.\2"),
    (r"transformer_encoder\.layers\.(\d+)\.linear1\.(weight|bias)", r"layers.\1.feed_forward.0.\2"),
    (r"transformer_encoder\.layers\.(\d+)\.linear2\.(weight|bias)", r"layers.\1.feed_forward.3.\2"),
    (r"transformer_encoder\.layers\.(\d+)\.(norm1|norm2)\.(weight|bias)", r"layers.\1.\2.\3"),
    (r"decoder\.fc\.(\d)\.(weight|bias)", r"gep.value.\1.\2"),
    (r"decoder\.zero_logit\.(\d)\.(weight|bias)", r"gep.expressed.\1.\2"),
    (r"decoder\.coeff_decoder\.fc\.(\d)\.(weight|bias)", r"gep.coefficient.value.\1.\2"),
    (r"decoder\.coeff_decoder\.zero_logit\.(\d)\.(weight|bias)", r"gep.coefficient.expressed.\1.\2"),
    (r"decoder\.bias_decoder\.fc\.(\d)\.(weight|bias)", r"gep.bias.value.\1.\2"),
    (r"mvc_decoder\.gene2query\.(weight|bias)", r"gepc.query.\1"),
    (r"mvc_decoder\.W\.(weight)", r"gepc.value.\1"),
    (r"mvc_decoder\.W_zero_logit\.(weight|bias)", r"gepc.expressed.\1"),
)
# The two classifiers count their layers alike, and their last one has a name of its own.
_CLASSIFIERS = {"cls_decoder": "cls", "grad_reverse_discriminator": "dar.classifier"}


def translate(official: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
    """Rename the authors' state dict into ours.

    Returns
    -------
    The state dict under our names, and the keys that no rule knows.
    """
    renamed: dict[str, Tensor] = {}
    unknown: list[str] = []
    for key, tensor in official.items():
        name = _rename(key, official)
        if name is None:
            unknown.append(key)
        elif name in renamed:
            raise ValueError(f"The checkpoint holds {name} twice, under both styles of attention keys.")
        else:
            renamed[name] = tensor
    return _stack_domains(renamed), unknown


def _rename(key: str, official: Mapping[str, Tensor]) -> str | None:
    for theirs, ours in _CLASSIFIERS.items():
        if match := re.fullmatch(rf"{theirs}\._decoder\.(\d+)\.(weight|bias)", key):
            return f"{ours}.{match[1]}.{match[2]}"
        if match := re.fullmatch(rf"{theirs}\.out_layer\.(weight|bias)", key):
            return f"{ours}.{_n_hidden_modules(theirs, official)}.{match[1]}"
    for pattern, name in _RULES:
        if match := re.fullmatch(pattern, key):
            return match.expand(name)
    return None


def _n_hidden_modules(classifier: str, official: Mapping[str, Tensor]) -> int:
    """Modules before the last layer: each hidden block is a linear layer, an activation and a layer norm."""
    numbers = [int(m[1]) for k in official if (m := re.match(rf"{classifier}\._decoder\.(\d+)\.", k))]
    return max(numbers, default=-1) + 1


def _stack_domains(renamed: dict[str, Tensor]) -> dict[str, Tensor]:
    """Stack the statistics of the authors' one norm per batch into ours, a row per batch."""
    stacked: dict[str, dict[int, Tensor]] = {}
    plain: dict[str, Tensor] = {}
    for name, tensor in renamed.items():
        if match := re.fullmatch(r"(.+)\[(\d+)\]", name):
            stacked.setdefault(match[1], {})[int(match[2])] = tensor
        else:
            plain[name] = tensor
    for name, rows in stacked.items():
        plain[name] = torch.stack([rows[i] for i in sorted(rows)])
    return plain
