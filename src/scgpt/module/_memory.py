"""What is done where the memory of a device runs out: fewer cells go through the network at a time."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import TypeVar

import torch
from lightning.pytorch.utilities.memory import garbage_collection_cuda

from scgpt._messages import warn_user
from scgpt._token_batch import TokenBatch

T = TypeVar("T")

# Torch's own allocator has a class of errors for it. CUDA, its libraries and the allocators of other devices tell it in
# words alone; Lightning's is_oom_error misses cuBLAS, and takes all that cuDNN does not support for it.
_SIGNS = ("out of memory", "cudaErrorMemoryAllocation", "ALLOC_FAILED", "DefaultCPUAllocator")


def is_out_of_memory(error: RuntimeError) -> bool:
    """Whether an error says that the memory of a device ran out."""
    return isinstance(error, torch.OutOfMemoryError) or any(sign in str(error) for sign in _SIGNS)


class MemoryLimit:
    """How many tokens go through a network at a time: fewer once the memory did not suffice.

    Parameters
    ----------
    most
        Tokens at a time; a cell is never cut.
    effect
        What it means that they become fewer, which the user is told once.
    remedy
        What needs less memory, for the error where they cannot become fewer.

    Attributes
    ----------
    most
        Tokens at a time, as it stands.
    """

    def __init__(self, most: float = math.inf, *, effect: str, remedy: str):
        self.most, self.effect, self.remedy = most, effect, remedy
        self._ran_out: str | None = None  # for what, the first time
        self._told = False

    def run(
        self, batch: TokenBatch, function: Callable[[TokenBatch], T], whole: str | None = None
    ) -> Iterator[tuple[TokenBatch, T]]:
        """Yield the consecutive parts of a batch that fit, each with what a function returned of it.

        Parameters
        ----------
        batch
            The cells.
        function
            Of a batch. It is called again with fewer cells where it is out of memory, and must have done nothing then.
        whole
            Why the batch must not be cut, where that is so.

        Raises
        ------
        MemoryError
            When a part that cannot be cut does not fit.
        """
        waiting = [batch]
        while waiting:
            part, *others = waiting.pop().split(self.most)
            waiting += reversed(others)
            try:
                result = function(part)
            except RuntimeError as error:
                if not is_out_of_memory(error):
                    raise
                said = str(error)
            else:
                yield part, result
                continue
            # Not before the error is gone, and with it the tensors of the calls that it came through.
            garbage_collection_cuda()
            size = f"{part.n_cells} cells of {part.n_tokens} tokens together"
            if part.n_cells == 1:
                raise self.failure(f"One cell of {part.n_tokens} tokens does not fit into memory, even alone", said)
            if whole:
                raise self.failure(
                    f"{size} do not fit into memory, and cannot be taken apart: {whole}. Take a smaller batch_size",
                    said,
                )
            self._ran_out = self._ran_out or size
            self.most = _larger_half(part)
            waiting.append(part)
        if self._ran_out and not self._told:
            self._told = True
            warn_user(
                f"Memory did not suffice for {self._ran_out}: from here on at most {self.most} tokens go through the "
                f"network at a time. {self.effect}"
            )

    def failure(self, what: str, said: str) -> MemoryError:
        """Return an error that says what did not fit, what to do, and what torch said."""
        error = MemoryError(f"{what}. Less memory is needed with {self.remedy}.")
        error.add_note(said)
        return error


def _larger_half(batch: TokenBatch) -> int:
    """Return the tokens of the larger of two parts, as equal as cells let them be."""
    return min(max(place, batch.n_tokens - place) for place in batch.boundaries[1:-1])
