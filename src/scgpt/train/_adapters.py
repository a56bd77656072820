"""Low-rank adapters: training a network through a few parameters beside its weights."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from scgpt.nn import ScGPTNetwork

from ._freezing import TASK_PARTS, within


@dataclass(frozen=True)
class Lora:
    """Settings of low-rank adapters (LoRA, :cite:t:`Hu2022`).

    Parameters
    ----------
    rank
        Rank of the update of each weight matrix.
    alpha
        The update is scaled by ``alpha / rank``; by default ``rank``.
    dropout
        Dropout of what enters the adapters, in training.
    target
        Linear layers that get one: those whose name in the network holds one of these, such as ``"qkv"``,
        ``"feed_forward"``, ``"layers.3"``, ``"layers.3.attention.out"``.

    Raises
    ------
    ValueError
        When a setting is out of range.

    Examples
    --------
    >>> from scgpt.train import Lora
    >>> Lora(rank=4, target=["qkv"]).rank, Lora.of({"rank": 16}).rank, Lora.of(None)
    (4, 16, None)
    """

    rank: int = 8
    alpha: int | None = None
    dropout: float = 0.0
    target: Iterable[str] = ("qkv", "out")

    def __post_init__(self) -> None:
        target = (self.target,) if isinstance(self.target, str) else tuple(self.target)
        object.__setattr__(self, "target", target)
        if isinstance(self.rank, bool) or not isinstance(self.rank, int) or self.rank < 1:
            raise ValueError(f"The rank of lora must be a whole number of at least 1, not {self.rank!r}.")
        if not 0 <= self.dropout < 1 or (self.alpha is not None and self.alpha <= 0):
            raise ValueError(f"The dropout of lora must lie in [0, 1) and alpha above 0, not as in {self}.")

    @classmethod
    def of(cls, given: int | Mapping[str, Any] | Lora | None) -> Lora | None:
        """Build from a rank or from a mapping of settings.

        Raises
        ------
        ValueError
            When a setting is unknown or out of range.
        """
        if given is None or isinstance(given, Lora):
            return given
        if not isinstance(given, Mapping):
            return cls(rank=given)
        if unknown := sorted(set(given) - set(cls.__dataclass_fields__)):
            raise ValueError(f"lora has no settings {unknown}; it has {list(cls.__dataclass_fields__)}.")
        return cls(**given)


def target_layers(network: ScGPTNetwork, target: Iterable[str], frozen: Iterable[str] = ()) -> list[str]:
    """Return the names of the linear layers that adapters are for, among those that encode and are not frozen.

    Raises
    ------
    ValueError
        When a target matches none.
    """
    spared = (*TASK_PARTS, *frozen)
    linear = [
        name for name, layer in network.named_modules() if isinstance(layer, nn.Linear) and not within(name, spared)
    ]
    matches = {part: [name for name in linear if f".{part}." in f".{name}."] for part in target}
    if empty := [part for part, names in matches.items() if not names]:
        raise ValueError(f"No linear layer to adapt is called {empty}; there are {linear}.")
    return [name for name in linear if any(name in names for names in matches.values())]


@contextmanager
def adapted(
    network: ScGPTNetwork, lora: Lora | None, *, seed: int, frozen: Iterable[str] = (), fresh: Iterable[str] = ()
) -> Iterator[None]:
    """Train a network through adapters: inside, they and the parts made for a task are all that is trainable.

    At the end they are merged into the weights, and the network is a plain one again. If an error is raised, they are
    thrown away, and the weights that they stand beside are as before. A norm of the input embeddings goes on with its
    statistics; freeze it to keep them.

    Parameters
    ----------
    network
        The network, changed in place.
    lora
        The adapters; None does nothing.
    seed
        Of the adapters' random weights.
    frozen
        Parts that get no adapter.
    fresh
        Parts that started from random weights; they are trained as a whole, too.

    Yields
    ------
    Nothing; it is a context manager.

    Raises
    ------
    ImportError
        When peft is not installed.
    ValueError
        When there is no layer to adapt.

    Examples
    --------
    >>> from scgpt.nn import ScGPTConfig, ScGPTNetwork
    >>> from scgpt.train import Lora, adapted
    >>> network = ScGPTNetwork(ScGPTConfig(n_tokens=100, d_model=16, n_heads=2, n_layers=1, d_feed_forward=16))
    >>> names = set(network.state_dict())
    >>> with adapted(network, Lora(rank=2), seed=0):
    ...     n_trained = sum(p.numel() for p in network.layers.parameters() if p.requires_grad)
    >>> n_trained, set(network.state_dict()) == names  # the adapters are merged
    (192, True)
    """
    if lora is None:
        yield
        return
    names = target_layers(network, lora.target, frozen)
    try:
        import peft  # takes seconds
    except ImportError as error:
        raise ImportError("lora needs the library peft: pip install 'scgpt-tools[peft]'.") from error
    config = peft.LoraConfig(
        r=lora.rank, lora_alpha=lora.alpha or lora.rank, lora_dropout=lora.dropout, target_modules=names
    )
    trainable = [p for p in network.parameters() if p.requires_grad]
    whole = (*TASK_PARTS, *fresh)
    trained_whole = [p for name, p in network.named_parameters() if p.requires_grad and within(name, whole)]
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        torch.manual_seed(seed)
        adapters = peft.LoraModel(network, config, "lora")
    for parameter in trained_whole:
        parameter.requires_grad_(True)
    try:
        yield
    except Exception:
        adapters.unload()
        raise
    except BaseException:  # interrupted by hand: what was learnt so far stays, as without adapters
        adapters.merge_and_unload()
        raise
    else:
        adapters.merge_and_unload()
    finally:
        for parameter in trainable:
            parameter.requires_grad_(True)
