"""Values of unknown genes, generated in rounds."""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor

from scgpt._token_batch import TokenBatch
from scgpt.nn import ScGPTNetwork

# Letters at the end of a name are its shape: T tokens, B cells, D model width.


def generate(
    network: ScGPTNetwork,
    batch: TokenBatch,
    n_rounds: int,
    *,
    cell_prompt: Tensor | None = None,
    bounds: tuple[float, float] = (0.0, math.inf),
    share: Tensor | None = None,
    thresholds: Tensor | float = 0.5,
) -> Tensor:
    """Generate the values of unknown genes in rounds (:cite:t:`Cui2024`, Methods).

    Each round predicts all unknown genes of a cell and accepts one part in ``n_rounds`` of those that it began with,
    those first to which ``<cls>`` gives most attention (``attention`` of :class:`~scgpt.nn.NetworkOutput`), of equals that
    with the lower id. In the next round these are known. A cell with fewer unknown genes than rounds takes a round for
    each.

    Parameters
    ----------
    network
        With the head ``gep`` and an embedding of unknown genes.
    batch
        Cells, with their ``unknown`` genes.
    n_rounds
        Rounds.
    cell_prompt
        ``(B, D)`` cell embeddings in place of ``<cls>``, in every round.
    bounds
        Lowest and highest value that a gene can have; what is predicted beyond is set to it.
    share
        ``(B,)`` share of genes that each cell is to express. If given, the unknown genes that a cell does not express, by
        its embedding, get the value 0 and are left out of its tokens, as they were in training.
    thresholds
        Probability above which a gene is expressed, or ``(T,)`` of them.

    Returns
    -------
    ``(T,)`` float32, the values of unknown tokens; those of known tokens are as they were.

    Raises
    ------
    ValueError
        When there is no round, the network has no such head or embedding, or the batch does not say what is unknown.

    Examples
    --------
    >>> import torch
    >>> from scgpt.data import TokenBatch
    >>> from scgpt.module import generate
    >>> from scgpt.nn import ScGPTConfig, ScGPTNetwork
    >>> sizes = {"n_tokens": 100, "d_model": 16, "n_heads": 2, "n_layers": 1, "d_feed_forward": 16}
    >>> network = ScGPTNetwork(ScGPTConfig(**sizes, n_flags=2)).eval()
    >>> genes, values = torch.tensor([99, 3, 5, 7]), torch.tensor([-2.0, 4.0, 0.0, 0.0])  # 99 is <cls>
    >>> unknown = torch.tensor([False, False, True, True])
    >>> cell = TokenBatch(genes, values, torch.tensor([0, 4]), torch.tensor([0]), unknown=unknown)
    >>> generated = generate(network, cell, n_rounds=2, bounds=(1.0, 50.0))
    >>> generated[:2].tolist(), bool((generated[2:] >= 1).all())
    ([-2.0, 4.0], True)
    """
    if n_rounds < 1:
        raise ValueError(f"n_rounds must be at least 1, not {n_rounds}.")
    if share is None:
        return _in_rounds(network, batch, n_rounds, cell_prompt, bounds)
    kept = ~_unknown(batch) | (_probability(network, batch, cell_prompt, share) > thresholds)
    values = torch.zeros_like(batch.values)
    values[kept] = _in_rounds(network, batch.keep(kept), n_rounds, cell_prompt, bounds)
    return values


def _in_rounds(
    network: ScGPTNetwork, batch: TokenBatch, n_rounds: int, cell_prompt: Tensor | None, bounds: tuple[float, float]
) -> Tensor:
    of_cell, unknown = batch.cell_of_token, _unknown(batch)
    n_asked = torch.zeros_like(batch.lengths).index_add(0, of_cell, unknown.long())
    n_rounds_B = n_asked.clamp(1, n_rounds)
    n_last = int(n_rounds_B.max())
    n_before = torch.zeros_like(n_asked)
    for i in range(1, n_last + 1):
        out = network(batch, ("gep",), cell_prompt, tokens=False, attention=i < n_last)
        assert out.gep is not None  # the network raises where it has no such head
        predicted = out.gep.float().clamp(*bounds)
        if network.config.value_encoder == "categorical":  # which reads whole numbers
            predicted = predicted.round()
        n_after = torch.minimum((n_asked * i + n_rounds_B - 1) // n_rounds_B, n_asked)
        accepted = unknown
        if out.attention is not None:
            accepted = unknown & (_rank(out.attention, batch) < (n_after - n_before)[of_cell])
        unknown, n_before = unknown & ~accepted, n_after
        batch = replace(batch, values=torch.where(accepted, predicted, batch.values), unknown=unknown)
    return batch.values


def _rank(scores_T: Tensor, batch: TokenBatch) -> Tensor:
    """Return the place of each unknown token among those of its cell, the highest score first; known ones come last."""
    order = batch.gene_ids.argsort(stable=True)
    for key in (-scores_T.masked_fill(~_unknown(batch), -torch.inf), batch.cell_of_token):
        order = order[key[order].argsort(stable=True)]
    place = torch.empty_like(order)
    place[order] = torch.arange(len(order), device=order.device)
    return place - batch.first[batch.cell_of_token]


def _probability(network: ScGPTNetwork, batch: TokenBatch, cell_prompt: Tensor | None, share: Tensor) -> Tensor:
    """Return ``(T,)`` probabilities that cells express their unknown genes, 0 for the others."""
    if cell_prompt is None:
        known = replace(batch.keep(~_unknown(batch)), unknown=None)
        cell_prompt = network(known, tokens=False).cells.float()
    unknown = _unknown(batch)
    genes, place = batch.gene_ids[unknown].unique(return_inverse=True)
    probability = torch.zeros(len(unknown), device=unknown.device)
    of_cells = network.expressed(genes, cell_prompt, share.unsqueeze(1), batch.batch_labels)
    probability[unknown] = of_cells[batch.cell_of_token[unknown], place]
    return probability


def _unknown(batch: TokenBatch) -> Tensor:
    if batch.unknown is None:
        raise ValueError("TokenBatch.unknown is None: it says which genes are to be generated.")
    return batch.unknown
