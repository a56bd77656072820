"""How much goes through a network at a time, and in which precision."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Literal, TypeVar

import torch

from scgpt.data import TokenBatch
from scgpt.module import MemoryLimit
from scgpt.nn import ScGPTNetwork, has_bfloat16, layers_in

T = TypeVar("T")
Precision = Literal["auto", "float32", "bfloat16"]

# Tokens in a pass through the network times its width, on a CPU for each thread. What stays in a cache between two layers
# is not fetched again, and large temporaries cost page faults; a GPU wants to be filled.
_NUMBERS_PER_PASS = {"cpu": 2**18, "cuda": 2**27}


def resolve_precision(device: torch.device, precision: Precision) -> Precision:
    """Return what ``"auto"`` means on a device.

    Raises
    ------
    ValueError
        When the precision is none of those known.
    """
    if not isinstance(precision, str) or precision not in ("auto", "float32", "bfloat16"):
        raise ValueError(f"precision must be 'auto', 'float32' or 'bfloat16', not {precision!r}.")
    if precision != "auto":
        return precision
    return "bfloat16" if has_bfloat16(device) else "float32"


def tokens_per_pass(network: ScGPTNetwork) -> int:
    """Return how many tokens go through a network at a time."""
    kind = _device_of(network).type
    most = _NUMBERS_PER_PASS.get(kind, 2**25) * (torch.get_num_threads() if kind == "cpu" else 1)
    return max(1, most // network.config.d_model)


class Passes:
    """Sends cells through a network that is not trained, as many at a time as the memory of its device takes.

    Parameters
    ----------
    network
        The network.
    """

    def __init__(self, network: ScGPTNetwork):
        self._device = _device_of(network)
        self._limit = MemoryLimit(
            tokens_per_pass(network),
            effect="No result depends on it; precision='bfloat16' and a smaller max_length need less.",
            remedy="fewer genes (max_length=, genes=), precision='bfloat16' or on the CPU (model.to_device('cpu'))",
        )

    def __call__(
        self, function: Callable[[TokenBatch], T], batches: Iterable[TokenBatch]
    ) -> Iterator[tuple[TokenBatch, T]]:
        """Yield parts of batches, on the CPU as they came, each with what a function gave for it on the device.

        Raises
        ------
        MemoryError
            When a single cell does not fit.
        """

        def on_device(part: TokenBatch) -> T:
            return function(part.to(self._device))

        for batch in batches:
            yield from self._limit.run(batch, on_device)


@contextmanager
def in_precision(network: ScGPTNetwork, precision: Precision) -> Iterator[None]:
    """Let a network compute in a precision, see :func:`scgpt.nn.layers_in`."""
    half = resolve_precision(_device_of(network), precision) == "bfloat16"
    with layers_in(network, torch.bfloat16 if half else torch.float32):
        yield


def _device_of(network: ScGPTNetwork) -> torch.device:
    return next(network.parameters()).device
