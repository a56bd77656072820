"""Generative attention, against a mask and a softmax written out."""

import subprocess
import sys
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from scgpt.data import TokenBatch
from scgpt.nn import _attention
from scgpt.nn._attention import SelfAttention, attention
from scgpt.nn._backends import BACKENDS
from scgpt.nn._generative import attention_of_cls, generative_attention

WIDTH = 8


def make(lengths, share, seed=0, heads=2, dtype=torch.float64, scale=1.0):
    """Random queries, keys and values, and a batch of which some tokens are unknown, never ``<cls>``."""
    generator = torch.Generator().manual_seed(seed)
    n_tokens = sum(lengths)
    batch = TokenBatch(
        gene_ids=torch.arange(n_tokens),
        values=torch.zeros(n_tokens),
        offsets=torch.tensor([0, *lengths]).cumsum(0),
        cell_index=torch.arange(len(lengths)),
    )
    unknown = (torch.rand(n_tokens, generator=generator) < share).index_fill(0, batch.first, False)
    q, k, v = (torch.randn(n_tokens, heads, WIDTH, generator=generator, dtype=torch.float64) for _ in range(3))
    qkv = [(x * s).to(dtype).requires_grad_() for x, s in ((q, scale), (k, scale), (v, 1.0))]
    return qkv, replace(batch, unknown=unknown)


def masked_softmax(q, k, v, batch):
    """A length x length mask for each cell: known tokens, and the diagonal."""
    out = []
    for start, stop in pairwise(batch.boundaries):
        cell = slice(start, stop)
        sees = ~batch.unknown[cell].unsqueeze(0) | torch.eye(stop - start, dtype=torch.bool)
        scores = torch.einsum("ihe,jhe->hij", q[cell], k[cell]) / q.shape[-1] ** 0.5
        out.append(torch.einsum("hij,jhe->ihe", scores.masked_fill(~sees, -torch.inf).softmax(-1), v[cell]))
    return torch.cat(out)


def plain_varlen(q, k, v, queries, keys, dropout, scale):
    """Plain attention written out, in the place of a kernel on a GPU."""
    out = []
    for one, other in zip(pairwise(queries.boundaries), pairwise(keys.boundaries), strict=True):
        scores = torch.einsum("ihe,jhe->hij", q[slice(*one)], k[slice(*other)]) * scale
        out.append(torch.einsum("hij,jhe->ihe", scores.softmax(-1), v[slice(*other)]))
    return torch.cat(out)


@pytest.fixture(params=["cells", "softmax", "jagged", "plain"])
def backend(request, monkeypatch):
    monkeypatch.setitem(BACKENDS, "plain", plain_varlen)
    monkeypatch.setattr(_attention, "fastest", lambda q, dropout: request.param)


def forward_and_gradients(function, qkv, batch):
    out = function(*qkv, batch)
    weights = torch.linspace(-1, 1, out.numel(), dtype=out.dtype).view_as(out)
    return [out, *torch.autograd.grad((out * weights).sum(), qkv)]


SHAPES = [((4,), 0.5), ((1, 1), 0.5), ((7, 1, 12, 3), 0.25), ((60, 2, 33), 0.75), ((40, 9), 1.0), ((5, 6), 0.0)]


@pytest.mark.parametrize(("lengths", "share"), SHAPES)
@pytest.mark.parametrize("heads", [1, 3])
def test_equals_a_masked_softmax_forward_and_backward(backend, lengths, share, heads):
    qkv, batch = make(lengths, share, heads=heads)
    got, expected = (forward_and_gradients(f, qkv, batch) for f in (attention, masked_softmax))
    for ours, theirs in zip(got, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)


@pytest.mark.parametrize("seed", range(10))
def test_random_shapes_in_float32(seed):
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(1, 90, (5,), generator=generator).tolist()
    qkv, batch = make(lengths, float(torch.rand((), generator=generator)), seed, dtype=torch.float32)
    got, expected = (forward_and_gradients(f, qkv, batch) for f in (attention, masked_softmax))
    for ours, theirs in zip(got, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("lengths", "share"), SHAPES)
def test_queries_of_cls_alone_give_its_rows_of_the_whole(backend, lengths, share):
    (q, k, v), batch = make(lengths, share)

    def whole(q, k, v, batch):
        return attention(q, k, v, batch)[batch.first]

    def of_cls(q, k, v, batch):
        return attention(q[batch.first], k, v, batch)

    for ours, theirs in zip(*(forward_and_gradients(f, (q, k, v), batch) for f in (of_cls, whole)), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)


def test_with_all_known_it_is_plain_attention():
    qkv, batch = make((7, 1, 12), 0.0)
    torch.testing.assert_close(
        attention(*qkv, batch), attention(*qkv, replace(batch, unknown=None)), rtol=0, atol=1e-12
    )


@pytest.mark.parametrize("scale", [30.0, 1e3])
def test_scores_of_any_size_are_safe(backend, scale):
    """Scores of thousands and more, of either sign: where all weight falls on one key, itself or another."""
    qkv, batch = make((40, 9), 0.5, scale=scale)
    got, expected = (forward_and_gradients(f, qkv, batch) for f in (attention, masked_softmax))
    for ours, theirs in zip(got, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_as_close_as_that_of_a_masked_softmax(backend, dtype):
    qkv, batch = make((60, 20, 5), 0.5, dtype=dtype, scale=2.0)
    exact = forward_and_gradients(masked_softmax, [x.detach().double().requires_grad_() for x in qkv], batch)
    got, naive = (forward_and_gradients(f, qkv, batch) for f in (attention, masked_softmax))
    for ours, theirs, truth in zip(got, naive, exact, strict=True):
        assert ours.dtype == dtype
        assert (ours - truth).abs().mean() < 1.5 * (theirs - truth).abs().mean()


def test_nobody_sees_an_unknown_token_but_itself():
    (q, k, v), batch = make((12, 5, 9), 0.5, dtype=torch.float32)
    before = attention(q, k, v, batch)
    asked = int(batch.unknown.nonzero()[0])
    with torch.no_grad():
        for x in (q, k, v):
            x[asked] += 3
    changed = (before != attention(q, k, v, batch)).flatten(1).any(1)
    assert changed.nonzero().flatten().tolist() == [asked]


def test_a_known_token_is_seen_by_all_of_its_cell():
    (q, k, v), batch = make((12, 5, 9), 0.5, dtype=torch.float32)
    before = attention(q, k, v, batch)
    with torch.no_grad():
        v[batch.first[1]] += 1
    changed = (before != attention(q, k, v, batch)).flatten(1).any(1)
    assert changed.nonzero().flatten().tolist() == [12, 13, 14, 15, 16]


def test_dropout_drops_the_weight_of_oneself_as_any_other():
    """With equal scores; of two keys, one of which is the token itself, half are dropped and the others doubled."""
    n_cells = 4000
    batch = TokenBatch(
        torch.zeros(2 * n_cells),
        torch.zeros(2 * n_cells),
        torch.arange(n_cells + 1) * 2,
        torch.arange(n_cells),
        unknown=torch.tensor([False, True]).repeat(n_cells),
    )
    zeros = torch.zeros(2 * n_cells, 1, 4)
    v = torch.tensor([1.0, 10.0]).repeat(n_cells).view(-1, 1, 1).expand(-1, 1, 4)
    torch.manual_seed(0)
    out = attention(zeros, zeros, v, batch, dropout=0.5)[1::2, 0, 0]
    values, times = out.unique(return_counts=True)
    assert values.tolist() == [0, 1, 10, 11]
    assert (times / n_cells - 0.25).abs().max() < 0.03


@pytest.mark.parametrize("project_unknown", [True, False])
def test_the_projection_of_unknown_tokens_can_be_left_out(project_unknown):
    torch.manual_seed(0)
    module = SelfAttention(16, 4, dropout=0.0, project_unknown=project_unknown)
    _, batch = make((7, 1, 12), 0.5)
    x = torch.randn(batch.n_tokens, 16)
    q, k, v = module.qkv(x).view(-1, 3, 4, 4).unbind(1)
    mixed = masked_softmax(q, k, v, batch).flatten(1)
    expected = module.out(mixed)
    if not project_unknown:
        expected[batch.unknown] = mixed[batch.unknown]
    torch.testing.assert_close(module(x, batch), expected, rtol=0, atol=1e-6)
    torch.testing.assert_close(module(x, batch, cls_only=True), expected[batch.first], rtol=0, atol=1e-6)


def share_of_cls(q, k, batch, cell, token):
    """What ``<cls>`` gives to a token: known, or as if this one alone of the unknown were known, too."""
    start, stop = batch.boundaries[cell : cell + 2]
    known = [i for i in range(start, stop) if not batch.unknown[i] or i == token]
    scores = torch.einsum("he,jhe->hj", q[start], k[known]) / WIDTH**0.5
    return scores.softmax(-1)[:, known.index(token)].mean()


@pytest.mark.parametrize(("lengths", "share"), SHAPES)
@pytest.mark.parametrize("scale", [1.0, 30.0])
def test_attention_of_cls_is_a_softmax_over_the_known_tokens_and_the_one_asked_for(lengths, share, scale):
    (q, k, _), batch = make(lengths, share, heads=3, dtype=torch.float32, scale=scale)
    got = attention_of_cls(q[batch.first], k, batch)
    expected = [share_of_cls(q, k, batch, cell, token) for token, cell in enumerate(batch.cell_of_token.tolist())]
    torch.testing.assert_close(got, torch.stack(expected), rtol=1e-4, atol=1e-6)
    known = torch.zeros(batch.n_cells).index_add(0, batch.cell_of_token, got.masked_fill(batch.unknown, 0))
    torch.testing.assert_close(known, torch.ones(batch.n_cells), rtol=0, atol=1e-5)
    everything = replace(batch, unknown=None)
    torch.testing.assert_close(
        attention_of_cls(q[batch.first], k, everything),
        attention_of_cls(q[batch.first], k, replace(batch, unknown=torch.zeros_like(batch.unknown))),
    )


class LargestTensor(TorchDispatchMode):
    """Notes how many numbers the largest tensor holds that any operation gives."""

    numbers = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, tuple | list) else (out,):
            if isinstance(tensor, torch.Tensor):
                self.numbers = max(self.numbers, tensor.numel())
        return out


def test_no_tensor_is_of_length_times_length():
    """Nor are there any inside the kernel: the next test measures those."""
    qkv, batch = make((3000,), 0.5, heads=1, dtype=torch.float32)
    with LargestTensor() as largest:
        forward_and_gradients(attention, qkv, batch)
    assert largest.numbers <= 3001 * (WIDTH + 8)


MEASURE = """
import resource, torch
from scgpt._token_batch import TokenBatch
from scgpt.nn import attention

def peak(length):
    batch = TokenBatch(torch.zeros(length), torch.zeros(length), torch.tensor([0, length]), torch.zeros(1),
                       unknown=torch.arange(length) % 2 == 1)
    q, k, v = (torch.randn(length, 8, 32, requires_grad=True) for _ in range(3))
    attention(q, k, v, batch).sum().backward()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

peak(64)
print(*(peak(length) for length in (128, 512, 1024, 2048, 4096)))
"""


def test_peak_memory_grows_linearly_with_length():
    shown = subprocess.run([sys.executable, "-c", MEASURE], capture_output=True, text=True, check=True).stdout
    start, *peaks = map(float, shown.split())  # in MiB
    used = [peak - start for peak in peaks]
    # A single matrix of 4,096 x 4,096 scores of 8 heads would take 512.
    assert used[-1] < 120
    assert used[-1] < 3 * max(used[-2], 10)
    assert used[-2] < 3 * max(used[-3], 10)


def test_more_than_one_thread_gives_the_same_gradients_every_time():
    before = torch.get_num_threads()
    torch.set_num_threads(max(before, 2))
    try:
        qkv, batch = make((200, 150, 90), 0.5, heads=4, dtype=torch.float32)
        runs = {
            b"".join(x.detach().numpy().tobytes() for x in forward_and_gradients(attention, qkv, batch))
            for _ in range(10)
        }
    finally:
        torch.set_num_threads(before)
    assert len(runs) == 1


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_on_a_gpu_it_is_what_it_is_on_a_cpu(dtype):
    qkv, batch = make((300, 1, 77, 128), 0.5, dtype=dtype)
    expected = forward_and_gradients(attention, qkv, batch)
    got = forward_and_gradients(attention, [x.detach().cuda().requires_grad_() for x in qkv], batch.to("cuda"))
    tolerance = 1e-2 if dtype == torch.float32 else 0.1
    for ours, theirs in zip(got, expected, strict=True):
        torch.testing.assert_close(ours.cpu(), theirs, rtol=tolerance, atol=tolerance)


def test_it_takes_any_function_for_plain_attention():
    qkv, batch = make((7, 3), 0.5)

    def attend(q, k, v, queries, keys):
        assert q.shape[-1] == k.shape[-1] == v.shape[-1] == WIDTH + 8
        assert len(k) == int((~batch.unknown).sum()) + batch.n_cells
        return plain_varlen(q, k, v, queries, keys, 0.0, WIDTH**-0.5)

    out = generative_attention(*qkv, batch, batch, attend)
    torch.testing.assert_close(out, masked_softmax(*qkv, batch), rtol=0, atol=1e-12)
