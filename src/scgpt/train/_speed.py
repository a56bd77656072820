"""How fast a training goes."""

from __future__ import annotations

import time
from itertools import pairwise

import torch

from scgpt._token_batch import TokenBatch
from scgpt.module import CellPrompt, ScGPTModule

# Dense bf16 operations of one device, in 10^12 a second, by what its name holds.
_PEAK_TFLOPS = {"A100": 312.0, "H100 PCIe": 756.0, "H100": 989.0, "H200": 989.0, "L40S": 362.0, "L4": 121.0}


class Speed:
    """Counts what passes through a network between :meth:`begin` and :meth:`rates`.

    Parameters
    ----------
    module
        What is trained.
    peak_tflops
        What a device could compute, in 10^12 operations a second; None if it is not known.
    n_processes
        That train together and see as much each.

    Attributes
    ----------
    flops
        Operations of all passes since :meth:`begin`.
    """

    def __init__(self, module: ScGPTModule, peak_tflops: float | None = None, n_processes: int = 1):
        self.module, self.peak_tflops, self.n_processes = module, peak_tflops, n_processes
        network = module.network
        # Looking up an embedding is no arithmetic.
        self._n_weights = sum(p.numel() for p in network.parameters()) - network.genes.embedding.weight.numel()
        self._paused_at: float | None = None
        self.begin()

    def begin(self) -> None:
        """Count from 0."""
        self._started = time.perf_counter()
        self._cells = self._tokens = 0
        self.flops = 0.0

    def add(self, batch: TokenBatch, step: int) -> None:
        """Count a batch in, that passed forward and backward."""
        self._cells += batch.n_cells
        self._tokens += batch.n_tokens
        self.flops += self._flops_of(batch, step)

    def pause(self) -> None:
        """Stop the clock."""
        self._paused_at = time.perf_counter()

    def go_on(self) -> None:
        """Let the clock run again."""
        if self._paused_at is not None:
            self._started += time.perf_counter() - self._paused_at
        self._paused_at = None

    @property
    def seconds(self) -> float:
        """Since :meth:`begin`, but what the clock stood."""
        return (self._paused_at or time.perf_counter()) - self._started

    def rates(self) -> dict[str, float]:
        """Return ``cells_per_s`` and ``tokens_per_s`` over all processes, and ``mfu`` where the device's peak is known.

        The latter is the share of the peak that forward and backward passes need, without what is computed twice to save
        memory.
        """
        seconds = self.seconds
        rates = {
            "cells_per_s": self._cells * self.n_processes / seconds,
            "tokens_per_s": self._tokens * self.n_processes / seconds,
        }
        if self.peak_tflops:
            rates["mfu"] = self.flops / seconds / (self.peak_tflops * 1e12)
        return rates

    def _flops_of(self, batch: TokenBatch, step: int) -> float:
        """Operations of forward and backward passes: 6 for each weight and token, 12 for each width and pair of tokens.

        As :cite:t:`Chowdhery2023` count them, with pairs of tokens of one cell.
        """
        c = self.module.network.config
        passes = 1 + any(isinstance(o, CellPrompt) and o.counts_at(step) for o in self.module.objectives)
        # On the host, where attention has asked for the boundaries already: the device is not waited for.
        pairs = float(sum((stop - start) ** 2 for start, stop in pairwise(batch.boundaries)))
        return passes * (6.0 * self._n_weights * batch.n_tokens + 12.0 * c.n_layers * c.d_model * pairs)


def known_peak(device: torch.device, precision: object) -> float | None:
    """Return the 10^12 operations a second that a device could do in a precision, None if they are not known."""
    if device.type != "cuda" or "bf16" not in str(precision):
        return None
    name = torch.cuda.get_device_name(device)
    return next((peak for part, peak in _PEAK_TFLOPS.items() if part in name), None)
