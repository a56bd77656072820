import sys
from dataclasses import replace
from functools import partial
from importlib.machinery import ModuleSpec
from itertools import pairwise
from types import ModuleType, SimpleNamespace

import pytest
import torch

from scgpt.data import TokenBatch
from scgpt.nn import _backends
from scgpt.nn._attention import SelfAttention, attention
from scgpt.nn._backends import BACKENDS, fastest

# Those that run without a GPU.
FUNCTIONS = {name: partial(attention, backend=name) for name in ("cells", "softmax", "jagged")}
LENGTHS = pytest.mark.parametrize(
    "lengths", [(4,), (1, 1, 1), (7, 1, 12, 3), (5, 5)], ids=lambda lengths: "-".join(map(str, lengths))
)
HEADS, WIDTH = 2, 8


def random_qkv(n_tokens: int, dtype: torch.dtype = torch.float32) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(n_tokens, HEADS, WIDTH, generator=generator, dtype=dtype).requires_grad_() for _ in range(3)]


def padded_attention(q, k, v, batch):
    """Padded, with a mask over keys, and softmax written out."""
    shape = (batch.n_cells, int(batch.lengths.max()))
    present = torch.arange(shape[1]) < batch.lengths.unsqueeze(1)

    def pad(x):
        padded = x.new_zeros(*shape, HEADS, WIDTH)
        padded[present] = x
        return padded.transpose(1, 2)

    scores = pad(q) @ pad(k).transpose(-1, -2) / WIDTH**0.5
    weights = scores.masked_fill(~present[:, None, None, :], -torch.inf).softmax(-1)
    return (weights @ pad(v)).transpose(1, 2)[present]


def forward_and_gradients(function, qkv, batch):
    out = function(*qkv, batch)
    weights = torch.linspace(-1, 1, out.numel(), dtype=out.dtype).view_as(out)
    return [out, *torch.autograd.grad((out * weights).sum(), qkv)]


@LENGTHS
@pytest.mark.parametrize("name", FUNCTIONS)
def test_equals_padded_attention_forward_and_backward(name, lengths, make_batch):
    batch = make_batch(lengths)
    qkv = random_qkv(batch.n_tokens, torch.float64)
    got = forward_and_gradients(FUNCTIONS[name], qkv, batch)
    expected = forward_and_gradients(padded_attention, qkv, batch)
    for ours, theirs in zip(got, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)


@LENGTHS
def test_all_functions_agree_in_float32(lengths, make_batch):
    batch = make_batch(lengths)
    qkv = random_qkv(batch.n_tokens)
    first, *others = (forward_and_gradients(f, qkv, batch) for f in FUNCTIONS.values())
    for other in others:
        for a, b in zip(first, other, strict=True):
            torch.testing.assert_close(a, b, rtol=0, atol=1e-5)


@LENGTHS
@pytest.mark.parametrize("name", FUNCTIONS)
def test_queries_of_cls_alone_give_its_rows_of_the_whole(name, lengths, make_batch):
    batch = make_batch(lengths)
    q, k, v = random_qkv(batch.n_tokens, torch.float64)

    def whole(q, k, v, batch):
        return FUNCTIONS[name](q, k, v, batch)[batch.first]

    def of_cls(q, k, v, batch):
        return FUNCTIONS[name](q[batch.first], k, v, batch)

    pairs = zip(*(forward_and_gradients(f, (q, k, v), batch) for f in (of_cls, whole)), strict=True)
    for ours, theirs in pairs:
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)


def test_scores_of_long_cells_are_written_out_in_parts(make_batch, monkeypatch):
    batch = make_batch((7, 1, 12, 3))
    qkv = random_qkv(batch.n_tokens, torch.float64)
    whole = forward_and_gradients(FUNCTIONS["softmax"], qkv, batch)
    monkeypatch.setattr(_backends, "_SCORES_AT_ONCE", 5 * HEADS * 12)  # five of the 12 queries at a time
    most = []
    monkeypatch.setattr(_backends.F, "dropout", lambda scores, p: most.append(scores.numel()) or scores)
    for ours, theirs in zip(forward_and_gradients(FUNCTIONS["softmax"], qkv, batch), whole, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)
    assert max(most) == 5 * HEADS * 12
    assert len(most) == 1 + 1 + 3 + 1


def test_a_token_sees_no_other_cell(batch):
    q, k, v = random_qkv(batch.n_tokens)
    before = attention(q, k, v, batch)
    second = slice(7, 8)
    with torch.no_grad():
        for x in (q, k, v):
            x[second] += 100
    after = attention(q, k, v, batch)
    changed = (before != after).flatten(1).any(1)
    assert changed.nonzero().flatten().tolist() == [7]


@pytest.mark.parametrize("name", FUNCTIONS)
def test_dropout_drops_weights_and_scales_the_others(name):
    batch = TokenBatch.from_padded(torch.zeros(1, 400), torch.zeros(1, 400), torch.zeros(1, 400))
    q, k, v = (x.detach() for x in random_qkv(batch.n_tokens))
    torch.manual_seed(0)
    out = FUNCTIONS[name](torch.zeros_like(q), k, torch.ones_like(v), batch, 0.5)
    # Equal weights of equal values give 1 without dropout; with it, what is left of 400 weights, doubled.
    assert out.std() == pytest.approx(1 / 400**0.5, rel=0.2)
    assert out.mean() == pytest.approx(1, abs=0.01)


def flash_stub(monkeypatch) -> list[dict]:
    """Put a module in the place of flash-attn that notes how it was called, and computes each cell plainly."""
    calls = []

    def flash_attn_varlen_func(
        q, k, v, cu_seqlens_q, cu_seqlens_k, max_seqlen_q, max_seqlen_k, dropout_p=0.0, softmax_scale=None
    ):
        calls.append(
            {
                "offsets": (cu_seqlens_q, cu_seqlens_k),
                "longest": (max_seqlen_q, max_seqlen_k),
                "dropout": dropout_p,
                "dtypes": {x.dtype for x in (q, k, v)},
            }
        )
        parts = []
        for queries, keys in zip(pairwise(cu_seqlens_q.tolist()), pairwise(cu_seqlens_k.tolist()), strict=True):
            queries, keys = slice(*queries), slice(*keys)
            scores = torch.einsum("ihe,jhe->hij", q[queries], k[keys]) * softmax_scale
            parts.append(torch.einsum("hij,jhe->ihe", scores.softmax(-1), v[keys]))
        return torch.cat(parts)

    module = ModuleType("flash_attn")
    module.__spec__ = ModuleSpec("flash_attn", None)
    module.flash_attn_varlen_func = flash_attn_varlen_func
    monkeypatch.setitem(sys.modules, "flash_attn", module)
    return calls


def test_flash_attention_is_called_with_packed_cells(batch, monkeypatch):
    calls = flash_stub(monkeypatch)
    qkv = random_qkv(batch.n_tokens)
    out = attention(*qkv, batch, 0.25, backend="flash")
    torch.testing.assert_close(out, FUNCTIONS["cells"](*qkv, batch), rtol=0, atol=1e-5)
    (call,) = calls
    for offsets in call["offsets"]:
        assert offsets.dtype == torch.int32  # flash-attn takes no other
        assert offsets.tolist() == [0, 7, 8, 20, 23]
    assert call["longest"] == (12, 12)
    assert all(type(n) is int for n in call["longest"])
    assert call["dropout"] == 0.25


def test_flash_attention_of_cls_alone(batch, monkeypatch):
    calls = flash_stub(monkeypatch)
    q, k, v = random_qkv(batch.n_tokens)
    out = attention(q[batch.first], k, v, batch, backend="flash")
    torch.testing.assert_close(out, FUNCTIONS["cells"](q, k, v, batch)[batch.first], rtol=0, atol=1e-5)
    (call,) = calls
    assert [offsets.tolist() for offsets in call["offsets"]] == [[0, 1, 2, 3, 4], [0, 7, 8, 20, 23]]
    assert call["longest"] == (1, 12)


def test_varlen_attention_is_called_with_packed_cells(batch, monkeypatch):
    calls = []

    def varlen_attn(q, k, v, cu_seq_q, cu_seq_k, max_q, max_k, *, scale):
        calls.append((cu_seq_q, cu_seq_k, max_q, max_k))
        return BACKENDS["cells"](q, k, v, batch, batch, 0.0, scale)

    monkeypatch.setattr("torch.nn.attention.varlen.varlen_attn", varlen_attn)
    qkv = random_qkv(batch.n_tokens)
    torch.testing.assert_close(attention(*qkv, batch, backend="varlen"), attention(*qkv, batch), rtol=0, atol=0)
    ((of_queries, of_keys, *longest),) = calls
    assert of_queries.dtype == of_keys.dtype == torch.int32
    assert of_queries.tolist() == of_keys.tolist() == [0, 7, 8, 20, 23]
    assert longest == [12, 12]


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("backend", ["cells", "softmax", "jagged", "varlen", "flash", "auto"])
@pytest.mark.parametrize("share", [0.0, 0.5])
def test_backends_agree_on_a_gpu(backend, dtype, share):
    half = dtype == torch.bfloat16
    if backend in ("varlen", "flash") and not half:
        pytest.skip(f"{backend} has no float32")
    if backend == "flash":
        pytest.importorskip("flash_attn")
    lengths = torch.tensor([700, 1, 33, 1200])
    n_tokens = int(lengths.sum())
    unknown = torch.rand(n_tokens, generator=torch.Generator().manual_seed(1)) < share
    batch = TokenBatch(
        torch.zeros(n_tokens, dtype=torch.int64),
        torch.zeros(n_tokens),
        torch.nn.functional.pad(lengths.cumsum(0), (1, 0)),
        torch.arange(4),
    )
    if share:
        batch = replace(batch, unknown=unknown.index_fill(0, batch.first, False))
    qkv = random_qkv(n_tokens)
    expected = forward_and_gradients(attention, qkv, batch)
    on_gpu = [x.detach().to("cuda", dtype).requires_grad_() for x in qkv]
    got = forward_and_gradients(partial(attention, backend=backend), on_gpu, batch.to("cuda"))
    for ours, theirs in zip(got, expected, strict=True):
        torch.testing.assert_close(ours.cpu().float(), theirs, rtol=0, atol=0.05 if half else 1e-4)


@pytest.mark.parametrize(
    ("cuda", "dtype", "installed", "dropout", "expected"),
    [
        (False, torch.float32, True, 0.0, "cells"),
        (False, torch.bfloat16, True, 0.0, "cells"),
        (True, torch.bfloat16, True, 0.1, "flash"),
        (True, torch.float16, True, 0.0, "flash"),
        (True, torch.float32, True, 0.0, "jagged"),  # the others have no float32
        (True, torch.bfloat16, False, 0.0, "varlen"),
        (True, torch.bfloat16, False, 0.1, "jagged"),  # which has dropout
    ],
)
def test_the_fastest_backend_that_can_is_chosen(cuda, dtype, installed, dropout, expected, monkeypatch):
    if installed:
        flash_stub(monkeypatch)
    found = _backends.find_spec
    monkeypatch.setattr(_backends, "find_spec", lambda name: installed if name == "flash_attn" else found(name))
    q = SimpleNamespace(is_cuda=cuda, dtype=dtype, shape=(1, 2, 64))
    assert fastest(q, dropout) == expected
    with torch.no_grad():
        assert (fastest(q, dropout) == "softmax") == (not cuda and dtype == torch.bfloat16)
    if cuda:
        assert fastest(SimpleNamespace(is_cuda=True, dtype=dtype, shape=(1, 2, 12)), 0.0) == "jagged"


def test_self_attention_equals_torch_with_the_same_weights(batch):
    torch.manual_seed(0)
    ours = SelfAttention(16, 4, dropout=0.0)
    theirs = torch.nn.MultiheadAttention(16, 4, batch_first=True)
    theirs.in_proj_weight.data, theirs.in_proj_bias.data = ours.qkv.weight.data, ours.qkv.bias.data
    theirs.out_proj.load_state_dict(ours.out.state_dict())
    x = torch.randn(batch.n_tokens, 16)
    got = ours(x, batch)
    for start, stop in zip(batch.boundaries[:-1], batch.boundaries[1:], strict=True):
        cell = x[None, start:stop]
        torch.testing.assert_close(got[None, start:stop], theirs(cell, cell, cell)[0], rtol=0, atol=1e-5)


def test_self_attention_drops_in_training_alone(batch):
    torch.manual_seed(0)
    module = SelfAttention(16, 4, dropout=0.5)
    x = torch.randn(batch.n_tokens, 16)
    assert not torch.equal(module.train()(x, batch), module(x, batch))
    assert torch.equal(module.eval()(x, batch), module(x, batch))


def test_a_backend_that_does_not_exist_is_told_beside_those_that_do():
    batch = TokenBatch(torch.tensor([9, 1]), torch.ones(2), torch.tensor([0, 2]), torch.tensor([0]))
    x = torch.randn(2, 1, 4)
    with pytest.raises(ValueError, match="backend must be 'auto' or one of .*'cells'.*, not 'fast'"):
        attention(x, x, x, batch, backend="fast")
