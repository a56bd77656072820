"""Parts of a network that training leaves as they are."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from torch import nn

from scgpt.module import Objective
from scgpt.nn import ScGPTNetwork

# A name for all that a token is made of.
EMBEDDINGS = {"embeddings": ("genes", "values", "conditions", "flags")}
# Parts that are made for a task, by the heads that read them; all other parts encode and are read by every head.
TASK_PARTS: dict[str, tuple[str, ...]] = {
    "gep": ("gep", "zero", "perturb_gep"),
    "gepc": ("gepc", "zero", "levels"),
    "cls": ("cls",),
    "dar": ("dar",),
    "batches": ("gep", "gepc", "zero", "levels", "perturb_gep"),
    "modalities": ("gep", "gepc", "zero", "levels", "perturb_gep"),
}


def parts_of(network: ScGPTNetwork, names: Iterable[str]) -> tuple[str, ...]:
    """Return the parts of a network that are named, each once.

    Parameters
    ----------
    network
        The network.
    names
        Beginnings of names in its state dict (``"genes"``, ``"layers.0"``, ``"layers.0.attention"``, ...), or
        ``"embeddings"`` for all that a token is made of: ``genes``, ``values``, ``conditions`` and ``flags``.

    Returns
    -------
    Beginnings of names in the state dict, in the order given.

    Raises
    ------
    ValueError
        When there is no such part.

    Examples
    --------
    >>> from scgpt.nn import ScGPTConfig, ScGPTNetwork
    >>> from scgpt.train import parts_of
    >>> network = ScGPTNetwork(ScGPTConfig(n_tokens=100, d_model=16, n_heads=2, n_layers=1, d_feed_forward=16))
    >>> parts_of(network, ["embeddings", "layers.0"])
    ('genes', 'values', 'layers.0')
    """
    names = (names,) if isinstance(names, str) else names
    keys = list(network.state_dict())
    top = list(dict.fromkeys(key.split(".")[0] for key in keys))
    parts: list[str] = []
    for name in names:
        if name in EMBEDDINGS:
            parts += [part for part in EMBEDDINGS[name] if part in top]
        elif any(within(key, (name,)) for key in keys):
            parts.append(name)
        else:
            known = [part for part in top if part != "layers"]
            layers = [f"layers.{i}" for i in range(len(network.layers))]
            raise ValueError(
                f"The network has no part {name!r}; it has {known + ['layers'] + layers}, parts of these such as "
                f"{keys[0]!r}, and 'embeddings'."
            )
    return tuple(dict.fromkeys(parts))


def within(name: str, parts: Iterable[str]) -> bool:
    """Return whether a parameter, buffer or module is one of the parts or in one of them."""
    return any(name == part or name.startswith(f"{part}.") for part in parts)


@contextmanager
def frozen(network: ScGPTNetwork, parts: Iterable[str]) -> Iterator[None]:
    """Keep parts of a network as they are: no gradient, and running statistics stand still.

    Dropout in a frozen part goes on. What was trainable before is so again at the end.

    Parameters
    ----------
    network
        The network, changed inside.
    parts
        As :func:`parts_of` takes them.

    Yields
    ------
    Nothing; it is a context manager.

    Raises
    ------
    ValueError
        When there is no such part.

    Examples
    --------
    >>> from scgpt.nn import ScGPTConfig, ScGPTNetwork
    >>> from scgpt.train import frozen
    >>> network = ScGPTNetwork(ScGPTConfig(n_tokens=100, d_model=16, n_heads=2, n_layers=1, d_feed_forward=16))
    >>> with frozen(network, ["genes"]):
    ...     print(network.genes.embedding.weight.requires_grad)
    False
    >>> network.genes.embedding.weight.requires_grad
    True
    """
    parts = parts_of(network, parts)
    held = [p for name, p in network.named_parameters() if p.requires_grad and within(name, parts)]
    norms = [m for name, m in network.named_modules() if within(name, parts) and hasattr(m, "running_mean")]
    modes = [norm.training for norm in norms]
    for parameter in held:
        parameter.requires_grad_(False)
    for norm in norms:
        norm.eval()
    try:
        yield
    finally:
        for parameter in held:
            parameter.requires_grad_(True)
        for norm, mode in zip(norms, modes, strict=True):
            norm.train(mode)


def check_trainable(network: nn.Module, objectives: Iterable[Objective]) -> None:
    """Raise where an objective reaches nothing that is trained.

    Parameters
    ----------
    network
        The network, with parts that are frozen.
    objectives
        What it is to be trained for.

    Raises
    ------
    ValueError
        When all parts that an objective depends on are frozen.

    Examples
    --------
    >>> from scgpt.module import make_objectives
    >>> from scgpt.nn import ScGPTConfig, ScGPTNetwork
    >>> from scgpt.train import check_trainable, frozen
    >>> network = ScGPTNetwork(ScGPTConfig(n_tokens=100, d_model=16, n_heads=2, n_layers=1, d_feed_forward=16))
    >>> with frozen(network, ["genes", "layers"]):
    ...     check_trainable(network, make_objectives(["gep"]))  # the decoder is still trained
    """
    trained = {name.split(".")[0] for name, p in network.named_parameters() if p.requires_grad}
    for objective in objectives:
        if not any(part not in TASK_PARTS or set(TASK_PARTS[part]) & set(objective.heads) for part in trained):
            raise ValueError(
                f"Objective {objective.name!r} has nothing to train: every part of the network that it depends on is "
                "frozen. Freeze less, or leave the objective out."
            )
