"""Random cells, small networks, and one of these as other code has it."""

from __future__ import annotations

from dataclasses import fields

import torch
import torch.nn.functional as F

from scgpt.data import TokenBatch
from scgpt.nn import NetworkOutput, ScGPTConfig, ScGPTNetwork

N_TOKENS, CLS = 30, 29

EVERYTHING = {
    "n_conditions": 3,
    "n_modalities": 4,
    "n_batches": 3,
    "batch_embedding": True,
    "adversary": True,
    "n_classes": 5,
    "zero": True,
}
ALL_HEADS = ("gep", "gepc", "zero", "cls", "dar")


def random_network(**settings) -> ScGPTNetwork:
    """A small network in eval mode, with no weight at a value that would hide a mistake."""
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


def random_batch(lengths: tuple[int, ...] = (7, 1, 12, 3), seed: int = 0) -> TokenBatch:
    """Random cells of given lengths, ``<cls>`` first, with all fields that a network can ask for."""
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


def outputs(out: NetworkOutput) -> dict[str, torch.Tensor]:
    return {f.name: getattr(out, f.name) for f in fields(out) if getattr(out, f.name) is not None}


def per_cell(name: str) -> bool:
    return name in ("cells", "cls", "dar", "levels")


class PaddedReference:
    """The network as other code has it: padded, by torch's own encoder, with everything written out.

    It shares the weights of a network of ours and none of its code.
    """

    def __init__(self, network: ScGPTNetwork):
        self.weights = network.state_dict()
        self.config = c = network.config
        layer = torch.nn.TransformerEncoderLayer(
            c.d_model, c.n_heads, c.d_feed_forward, activation="relu", batch_first=True, norm_first=c.norm == "pre"
        )
        self.encoder = torch.nn.TransformerEncoder(layer, c.n_layers, enable_nested_tensor=False).eval()
        renamed = {}
        for name, tensor in self.weights.items():
            if name.startswith("layers."):
                for ours, theirs in (
                    ("attention.qkv.", "self_attn.in_proj_"),
                    ("attention.out.", "self_attn.out_proj."),
                    ("feed_forward.0.", "linear1."),
                    ("feed_forward.3.", "linear2."),
                ):
                    name = name.replace(ours, theirs)
                renamed[name] = tensor
        self.encoder.load_state_dict(renamed)

    def linear(self, x, name):
        return F.linear(x, self.weights[f"{name}.weight"], self.weights.get(f"{name}.bias"))

    def norm(self, x, name):
        return F.layer_norm(x, x.shape[-1:], self.weights[f"{name}.weight"], self.weights[f"{name}.bias"])

    def normed_rows(self, ids, name):
        return self.norm(self.weights[f"{name}.embedding.weight"][ids], f"{name}.norm")

    def mlp(self, x, name):
        x = F.leaky_relu(self.linear(x, f"{name}.0"))
        return self.linear(F.leaky_relu(self.linear(x, f"{name}.2")), f"{name}.4").squeeze(-1)

    def classifier(self, x, name, activation):
        for i in (0, 3):
            x = self.norm(activation(self.linear(x, f"{name}.{i}")), f"{name}.{i + 2}")
        return self.linear(x, f"{name}.6")

    def __call__(self, batch: TokenBatch) -> dict[str, torch.Tensor]:
        c, p = self.config, batch.to_padded()
        genes = self.normed_rows(p["gene_ids"], "genes")
        hidden = torch.relu(self.linear(p["values"].clamp(max=c.max_value).unsqueeze(-1), "values.linear1"))
        x = genes + self.norm(self.linear(hidden, "values.linear2"), "values.norm")
        x = x + self.weights["conditions.weight"][p["condition_ids"]].sum(2)
        # With gradients on, torch takes its plain path and not its fused one.
        with torch.enable_grad():
            x = self.encoder(x, src_key_padding_mask=p["padding"]).detach()
        cells = x[:, 0]

        context = self.normed_rows(p["batch_labels"], "batches").unsqueeze(1)
        context = context + self.normed_rows(p["modality_ids"], "modalities")
        with_context = torch.cat([x, context], -1)
        cell_with_context = torch.cat([cells, context[:, 0]], -1).unsqueeze(1)
        query = torch.sigmoid(self.linear(torch.cat([genes, context], -1), "gepc.query"))
        out = {
            "tokens": x,
            "cells": cells,
            "gep": self.mlp(with_context, "gep.value"),
            "zero": torch.sigmoid(self.mlp(with_context, "gep.expressed")),
            "gepc": (self.linear(query, "gepc.value") * cell_with_context).sum(-1),
            "zero_gepc": torch.sigmoid((self.linear(query, "gepc.expressed") * cell_with_context).sum(-1)),
            "cls": self.classifier(cells, "cls", torch.relu),
            "dar": self.classifier(cells, "dar.classifier", F.leaky_relu),
        }
        return {name: y if per_cell(name) else y[~p["padding"]] for name, y in out.items()}
