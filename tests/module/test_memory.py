import math
import warnings

import pytest
import torch

from scgpt.data import TokenBatch
from scgpt.module import MemoryLimit, is_out_of_memory

LENGTHS = (2, 5, 3, 1, 4)


@pytest.fixture
def batch() -> TokenBatch:
    offsets = torch.tensor([0, *LENGTHS]).cumsum(0)
    n_tokens = sum(LENGTHS)
    return TokenBatch(torch.arange(n_tokens), torch.zeros(n_tokens), offsets, torch.arange(len(LENGTHS)))


@pytest.fixture
def limit() -> MemoryLimit:
    return MemoryLimit(effect="Nothing else changes.", remedy="shorter cells")


def of_at_most(most: int, tried: list[int]):
    """A function of batches that fails with more tokens than that."""

    def function(batch: TokenBatch) -> list[int]:
        tried.append(batch.n_tokens)
        if batch.n_tokens > most:
            raise RuntimeError("CUDA error: out of memory")
        return batch.gene_ids.tolist()

    return function


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("whatever it says"),
        torch.OutOfMemoryError(),
        RuntimeError("CUDA error: out of memory\nCompile with `TORCH_USE_CUDA_DSA` to enable assertions."),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("CUDA driver error: cudaErrorMemoryAllocation"),
        RuntimeError("MPS backend out of memory (MPS allocated: 8.8 GB, max allowed: 9.1 GB)."),
        RuntimeError("[enforce fail at alloc_cpu.cpp:121] err == 0. DefaultCPUAllocator: can't allocate memory"),
    ],
)
def test_ways_to_say_it(error):
    assert is_out_of_memory(error)


@pytest.mark.parametrize(
    "text",
    ["CUDA error: device-side assert triggered", "cuDNN error: CUDNN_STATUS_NOT_SUPPORTED.", "mat1 and mat2 ..."],
)
def test_other_errors_are_not_caught(limit, batch, text):
    assert not is_out_of_memory(RuntimeError(text))

    def fails(batch):
        raise RuntimeError(text)

    with pytest.raises(RuntimeError, match=text):
        list(limit.run(batch, fails))
    assert limit.most == math.inf


@pytest.mark.parametrize(
    ("most", "tried", "sizes"),
    [
        pytest.param(15, [15], [5], id="all fit"),
        pytest.param(14, [15, 7, 8], [2, 3], id="two parts"),
        pytest.param(7, [15, 7, 8, 4, 4], [2, 2, 1], id="the second part has to be cut again"),
        pytest.param(5, [15, 7, 2, 5, 4, 4], [1, 1, 2, 1], id="the first part has to be cut again"),
    ],
)
@pytest.mark.filterwarnings("ignore:Memory did not suffice")
def test_what_does_not_fit_is_cut_between_cells_and_loses_nothing(limit, batch, most, tried, sizes):
    asked = []
    found = list(limit.run(batch, of_at_most(most, asked)))
    assert asked == tried
    assert [part.n_cells for part, _ in found] == sizes
    assert sum((result for _, result in found), []) == list(range(15))
    # It goes on as it has learnt.
    asked.clear()
    assert len(list(limit.run(batch, of_at_most(most, asked)))) == len(asked)


def test_it_is_said_once_and_as_it_ends(limit, batch):
    with pytest.warns(UserWarning) as caught:
        list(limit.run(batch, of_at_most(7, [])))
        list(limit.run(batch, of_at_most(5, [])))
    assert limit.most == 4
    assert [str(warning.message) for warning in caught] == [
        "Memory did not suffice for 5 cells of 15 tokens together: from here on at most 4 tokens go through the network "
        "at a time. Nothing else changes."
    ]
    assert caught[0].filename == __file__


def test_nothing_is_said_where_all_fits(limit, batch):
    with warnings.catch_warnings(action="error"):
        list(limit.run(batch, of_at_most(15, [])))


def test_a_cell_that_does_not_fit_alone_is_an_error_that_says_what_to_do(limit, batch):
    with pytest.raises(MemoryError, match="One cell of 5 tokens .* even alone. .* with shorter cells") as caught:
        list(limit.run(batch, of_at_most(4, [])))
    assert caught.value.__notes__ == ["CUDA error: out of memory"]
    assert caught.value.__cause__ is caught.value.__context__ is None  # which would hold on to what was computed


def test_what_has_to_stay_together_is_not_cut(limit, batch):
    with pytest.raises(
        MemoryError, match="5 cells of 15 tokens .* cannot be taken apart: they are friends. Take a small"
    ):
        list(limit.run(batch, of_at_most(14, []), whole="they are friends"))
    assert len(list(limit.run(batch, of_at_most(15, []), whole="they are friends"))) == 1


def test_what_a_failed_attempt_held_is_free_before_the_next(limit, batch):
    held = []

    class Held:
        def __init__(self):
            held.append(self)

        def __del__(self):
            freed.append(self.n)

    freed, alive = [], []

    def function(batch: TokenBatch) -> int:
        alive.append(n_made - len(freed))
        return needs(batch)

    n_made = 0

    def needs(batch: TokenBatch) -> int:
        nonlocal n_made
        n_made += 1
        activations = Held()
        activations.n = batch.n_tokens
        held.clear()
        if batch.n_tokens > 8:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return batch.n_tokens

    with pytest.warns(UserWarning, match="Memory did not suffice"):
        list(limit.run(batch, function))
    assert alive == [0, 0, 0]
