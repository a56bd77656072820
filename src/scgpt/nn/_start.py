"""Weights to start from where cells are few."""

from __future__ import annotations

import torch
from torch import nn

from ._embeddings import CategoricalValueEncoder, ContinuousValueEncoder
from ._heads import AffineExpressionHead, ExpressionHead
from ._network import ScGPTNetwork

# Of the value's part in a token, as a share of the gene's.
_OF_VALUES = 0.1
# The place of the last linear layer in TransformerLayer.feed_forward.
_LAST_OF_FEED_FORWARD = "3"


@torch.no_grad()
def start_from_genes(network: ScGPTNetwork) -> None:
    """Let random weights begin as the sum of gene embeddings: transformer layers as the identity, values as a small part.

    What a layer or a value adds is noise until it is learnt. Where cells are few, the noise is learnt by heart.

    Parameters
    ----------
    network
        Changed in place. Its layers have to leave the stream as it is where they add nothing: ``norm="pre"``.

    Raises
    ------
    ValueError
        When it has another norm.

    Examples
    --------
    >>> from scgpt.nn import ScGPTConfig, ScGPTNetwork, start_from_genes
    >>> sizes = {"n_tokens": 100, "d_model": 16, "n_heads": 2, "n_layers": 1, "d_feed_forward": 16}
    >>> network = ScGPTNetwork(ScGPTConfig(**sizes, norm="pre"))
    >>> start_from_genes(network)
    >>> float(network.layers[0].attention.out.weight.abs().max())
    0.0
    """
    if network.config.norm != "pre":
        raise ValueError(f"Layers are the identity where norm='pre', and not with norm={network.config.norm!r}.")
    for name, weights in network.layers.named_parameters():
        if ".attention.out." in name or name.split(".")[1:3] == ["feed_forward", _LAST_OF_FEED_FORWARD]:
            nn.init.zeros_(weights)
    values = network.values
    assert isinstance(values, ContinuousValueEncoder | CategoricalValueEncoder)
    nn.init.constant_(values.norm.weight, _OF_VALUES)


@torch.no_grad()
def start_at_value(network: ScGPTNetwork, value: float) -> None:
    """Let random weights begin with predictions near a value, where the expression head predicts values.

    The bins of expressed genes are spread evenly over their range: a head that begins at 0 spends its first steps, at a
    low rate, on nothing but their mean.

    Parameters
    ----------
    network
        Changed in place, unless its head is of another kind.
    value
        Mean of what there is to predict.

    Examples
    --------
    >>> from scgpt.nn import ScGPTConfig, ScGPTNetwork, start_at_value
    >>> network = ScGPTNetwork(ScGPTConfig(n_tokens=100, d_model=16, n_heads=2, n_layers=1, d_feed_forward=16))
    >>> start_at_value(network, 25.0)  # the mean of bins from 0 to 50
    """
    if type(network.gep) is ExpressionHead:
        nn.init.constant_(network.gep.value[-1].get_parameter("bias"), value)


@torch.no_grad()
def start_unchanged(network: ScGPTNetwork) -> None:
    """Let random weights begin with every gene as it was before a perturbation, where the expression head is affine.

    Parameters
    ----------
    network
        Changed in place, unless its head is of another kind.
    """
    if isinstance(network.gep, AffineExpressionHead):
        for head, start in ((network.gep.coefficient, 1.0), (network.gep.bias, 0.0)):
            last = head.value[-1]
            nn.init.zeros_(last.get_parameter("weight"))
            nn.init.constant_(last.get_parameter("bias"), start)
