"""Room for new experimental batches or genes in a network that is left as it is otherwise."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from scgpt._token_batch import TokenBatch

from ._config import ScGPTConfig
from ._domain_norm import DomainNorm
from ._embeddings import INITIAL_STD
from ._network import ScGPTNetwork


def add_genes(
    config: ScGPTConfig, state_dict: Mapping[str, Tensor], n_new: int, *, seed: int = 0
) -> tuple[ScGPTConfig, dict[str, Tensor]]:
    """Append rows for new genes to the gene embedding, random as those that training starts from.

    Parameters
    ----------
    config
        The network's config.
    state_dict
        Its weights.
    n_new
        How many genes come after the old tokens.
    seed
        Of the new rows.

    Returns
    -------
    Config and weights of the larger network.

    Raises
    ------
    ValueError
        When the number is below 0.

    Examples
    --------
    >>> from scgpt.nn import ScGPTConfig, ScGPTNetwork, add_genes
    >>> config = ScGPTConfig(n_tokens=100, d_model=16, n_heads=2, n_layers=1, d_feed_forward=16)
    >>> larger, weights = add_genes(config, ScGPTNetwork(config).state_dict(), 20)
    >>> network = ScGPTNetwork(larger)
    >>> network.load_state_dict(weights)
    <All keys matched successfully>
    >>> larger.n_tokens
    120
    """
    _check_number(n_new, "genes")
    name = "genes.embedding.weight"
    rows = state_dict[name]
    new = torch.randn(n_new, rows.shape[1], generator=torch.Generator().manual_seed(seed)) * INITIAL_STD
    if config.gene_norm == "joint":  # what the old rows are divided by is to stay
        new *= (rows.square().mean() / new.square().mean()).sqrt()
    return config.changed(n_tokens=config.n_tokens + n_new), dict(state_dict) | {name: torch.cat([rows, new.to(rows)])}


def add_batches(
    config: ScGPTConfig, state_dict: Mapping[str, Tensor], n_new: int
) -> tuple[ScGPTConfig, dict[str, Tensor]]:
    """Append rows for new batches to all that a network knows of batches.

    Every new row starts in the middle of the old ones, where the decoders have learnt to work: the mean embedding, the
    mean of the adversary's outputs, and the statistics that a norm of all old batches together would have.

    Parameters
    ----------
    config
        The network's config.
    state_dict
        Its weights.
    n_new
        How many batches come after the old ones.

    Returns
    -------
    Config and weights of the larger network; tensors without new rows are those that were given.

    Raises
    ------
    ValueError
        When the number is below 0.

    Examples
    --------
    >>> from scgpt.nn import ScGPTConfig, ScGPTNetwork, add_batches
    >>> sizes = {"n_tokens": 100, "d_model": 16, "n_heads": 2, "n_layers": 1, "d_feed_forward": 16}
    >>> config = ScGPTConfig(**sizes, n_batches=2, batch_embedding=True)
    >>> larger, weights = add_batches(config, ScGPTNetwork(config).state_dict(), 1)
    >>> larger.n_batches, ScGPTNetwork(larger).load_state_dict(weights)
    (3, <All keys matched successfully>)
    """
    _check_number(n_new, "batches")
    larger = config.changed(n_batches=config.n_batches + n_new)
    with torch.device("meta"):  # asked for names and shapes alone
        shapes = {name: tensor.shape for name, tensor in ScGPTNetwork(larger).state_dict().items()}
    grown = dict(state_dict)
    for name in (name for name, shape in shapes.items() if state_dict[name].shape != shape):
        rows = state_dict[name]
        new = _pooled_statistics(name, state_dict) if name.startswith("input_norm.") else rows.mean(0)
        grown[name] = torch.cat([rows, new.expand(n_new, *rows.shape[1:])])
    return larger, grown


def _check_number(n_new: int, what: str) -> None:
    if n_new < 0:
        raise ValueError(f"The number of new {what} must be at least 0, not {n_new}.")


def _pooled_statistics(name: str, state_dict: Mapping[str, Tensor]) -> Tensor:
    """A new row of one of the buffers of a :class:`DomainNorm`."""
    mean_GD, var_GD, tracked_G = (
        state_dict[f"input_norm.{buffer}"] for buffer in ("running_mean", "running_var", "num_batches_tracked")
    )
    if name.endswith("num_batches_tracked"):
        return tracked_G.new_zeros(())
    seen_G = tracked_G > 0 if tracked_G.any() else torch.ones_like(tracked_G, dtype=torch.bool)
    if name.endswith("running_mean"):
        return mean_GD[seen_G].mean(0)
    return var_GD[seen_G].mean(0) + mean_GD[seen_G].var(0, correction=0)


def fix_all_but_new_batches(network: ScGPTNetwork, n_old: int) -> None:
    """Let training move nothing but the embeddings and statistics of the batches after the first ones.

    Parameters
    ----------
    network
        Changed in place.
    n_old
        How many batches are fixed, with all else.

    Examples
    --------
    >>> from scgpt.nn import ScGPTConfig, ScGPTNetwork, fix_all_but_new_batches
    >>> sizes = {"n_tokens": 100, "d_model": 16, "n_heads": 2, "n_layers": 1, "d_feed_forward": 16}
    >>> network = ScGPTNetwork(ScGPTConfig(**sizes, n_batches=3, batch_embedding=True))
    >>> fix_all_but_new_batches(network, n_old=2)
    >>> [name for name, parameter in network.named_parameters() if parameter.requires_grad]
    ['batches.embedding.weight']
    """
    network.n_fixed_batches = n_old
    network.requires_grad_(False)
    if network.batches is not None:
        network.batches.n_fixed = n_old
        network.batches.embedding.weight.requires_grad_(n_old < network.config.n_batches)
    if isinstance(network.input_norm, DomainNorm):
        network.input_norm.n_fixed = n_old
    network.train(network.training)


@torch.no_grad()
def gather_statistics(network: ScGPTNetwork, batches: Iterable[TokenBatch]) -> None:
    """Average the statistics of a :class:`DomainNorm` over minibatches, as they are in training, without training.

    Parameters
    ----------
    network
        One with ``input_norm="domain"``. Of a domain that it saw before, what it has counts as that many minibatches.
    batches
        Minibatches with values hidden as in training; dropout is on.

    Raises
    ------
    ValueError
        When the network does not normalise batches apart.

    Examples
    --------
    >>> import torch
    >>> from scgpt.data import TokenBatch
    >>> from scgpt.nn import ScGPTConfig, ScGPTNetwork, gather_statistics
    >>> sizes = {"n_tokens": 100, "d_model": 16, "n_heads": 2, "n_layers": 1, "d_feed_forward": 16}
    >>> network = ScGPTNetwork(ScGPTConfig(**sizes, n_batches=2, input_norm="domain"))
    >>> genes, values = torch.tensor([99, 3, 5]), torch.tensor([-2.0, 1.0, 4.0])  # 99 is <cls>
    >>> batch = TokenBatch(genes, values, torch.tensor([0, 3]), torch.tensor([0]), batch_labels=torch.tensor([1]))
    >>> gather_statistics(network, [batch])
    >>> network.input_norm.num_batches_tracked.tolist()
    [0, 1]
    """
    norm = network.input_norm
    if not isinstance(norm, DomainNorm):
        raise ValueError("This network has no statistics of batches; they come with input_norm='domain'.")
    training, momentum = network.training, norm.momentum
    network.train()
    norm.momentum = None
    try:
        for batch in batches:
            network.embed_tokens(network.genes(batch.gene_ids), batch)
    finally:
        norm.momentum = momentum
        network.train(training)
