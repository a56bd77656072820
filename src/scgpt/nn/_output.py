"""What the network gives."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, eq=False)
class NetworkOutput:
    """What :meth:`ScGPTNetwork.forward` gives; heads that were not asked for are None.

    Parameters
    ----------
    tokens
        ``(T, D)`` transformer output; None where it was not asked for.
    cells
        ``(B, D)`` cell embeddings, not normalised.
    gep
        ``(T,)`` expression from each gene's output; where the head chooses among bins, the bin to expect.
    gep_logits
        ``(T, gep_bins)`` logits of the value bins, where the head chooses among them.
    gepc
        ``(T,)`` expression from the cell embedding and the gene's query.
    zero
        ``(T,)`` probability that a gene is expressed, from its output.
    zero_gepc
        ``(T,)`` the same from the cell embedding.
    expressed
        ``(B, G)`` probability that a cell expresses a gene, for all genes that were measured, from its embedding and
        the share of them that it expresses.
    levels
        ``(B, G)`` value of each of these genes in a cell that expresses it, from the cell's embedding.
    cls
        ``(B, n_classes)`` logits of the cell types.
    dar
        ``(B, n_batches)`` logits of the experimental batches.
    perturb_gep
        ``(T,)`` expression after perturbation.
    attention
        ``(T,)`` share of the last layer's attention that ``<cls>`` gives to each token of its cell, the mean over heads; of
        an unknown token, what it would give if this one alone were known, too. None where it was not asked for.

    Examples
    --------
    >>> import torch
    >>> from scgpt.data import TokenBatch
    >>> from scgpt.nn import ScGPTConfig, ScGPTNetwork
    >>> network = ScGPTNetwork(
    ...     ScGPTConfig(n_tokens=100, d_model=16, n_heads=2, n_layers=1, d_feed_forward=16, n_classes=3)
    ... )
    >>> genes, values = torch.tensor([99, 3, 5]), torch.tensor([-2.0, 1.0, 4.0])  # 99 is <cls>
    >>> batch = TokenBatch(genes, values, offsets=torch.tensor([0, 3]), cell_index=torch.tensor([0]))
    >>> out = network(batch, heads=["cls"])
    >>> out.cls.shape, out.gep is None
    (torch.Size([1, 3]), True)
    """

    tokens: Tensor | None
    cells: Tensor
    gep: Tensor | None = None
    gep_logits: Tensor | None = None
    gepc: Tensor | None = None
    zero: Tensor | None = None
    zero_gepc: Tensor | None = None
    expressed: Tensor | None = None
    levels: Tensor | None = None
    cls: Tensor | None = None
    dar: Tensor | None = None
    perturb_gep: Tensor | None = None
    attention: Tensor | None = None
