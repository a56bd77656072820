"""Rounds of generation, against a padded network with masks written out."""

from dataclasses import replace
from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F

from scgpt.data import TokenBatch
from scgpt.module import ScGPTModule, generate
from scgpt.nn import ScGPTConfig, ScGPTNetwork

CLS = 39
BOUNDS = (0.0, 50.0)


def make_module(**settings) -> ScGPTModule:
    sizes = {"n_tokens": 40, "d_model": 16, "n_heads": 2, "n_layers": 2, "d_feed_forward": 24, "n_flags": 2}
    torch.manual_seed(1)
    module = ScGPTModule(ScGPTConfig(**sizes | settings))
    for name, parameter in module.named_parameters():
        torch.nn.init.normal_(parameter, mean=float("norm" in name and name.endswith("weight")), std=0.4)
    torch.nn.init.constant_(module.network.gep.value[-1].bias, 20.0)  # predictions lie within the bounds
    return module.eval()


@pytest.fixture(scope="module")
def module() -> ScGPTModule:
    return make_module()


@pytest.fixture(scope="module")
def batch() -> TokenBatch:
    """Cells with 12, 1, 1 and 5 known genes and 12, 17, 2 and 0 unknown ones, in any order."""
    generator = torch.Generator().manual_seed(0)
    lengths, n_unknown = (25, 19, 4, 6), (12, 17, 2, 0)
    genes = torch.cat([torch.randperm(CLS, generator=generator)[:n] for n in lengths])
    offsets = torch.tensor([0, *lengths]).cumsum(0)
    values = torch.randint(1, 51, (sum(lengths),), generator=generator).float()
    genes[offsets[:-1]], values[offsets[:-1]] = CLS, -2.0
    unknown = torch.zeros(sum(lengths), dtype=torch.bool)
    for start, n, k in zip(offsets[:-1], lengths, n_unknown, strict=True):
        unknown[start + 1 + torch.randperm(n - 1, generator=generator)[:k]] = True
    return TokenBatch(genes, values, offsets, torch.arange(4), unknown=unknown)


@pytest.fixture(scope="module")
def prompts() -> torch.Tensor:
    return torch.randn(4, 16, generator=torch.Generator().manual_seed(5)) * 2


def padded_pass(network: ScGPTNetwork, p: dict, unknown: torch.Tensor, cell_prompt):
    """Predictions and the order of acceptance, by length x length masks over padded cells."""
    w, heads = network.state_dict(), network.config.n_heads

    def linear(x, name):
        return F.linear(x, w[f"{name}.weight"], w[f"{name}.bias"])

    def norm(x, name):
        return F.layer_norm(x, x.shape[-1:], w[f"{name}.weight"], w[f"{name}.bias"])

    hidden = torch.relu(linear(p["values"].unsqueeze(-1), "values.linear1"))
    values = norm(linear(hidden, "values.linear2"), "values.norm")
    values[unknown] = w["flags.weight"][1]
    x = norm(w["genes.embedding.weight"][p["gene_ids"]], "genes.norm") + values
    if cell_prompt is not None:
        x[:, 0] = cell_prompt
    length = x.shape[1]
    known = ~unknown & ~p["padding"]
    sees = known[:, None, :] | torch.eye(length, dtype=torch.bool)
    for i in range(network.config.n_layers):
        q, k, v = (
            y.view(len(x), length, heads, -1).transpose(1, 2)
            for y in linear(x, f"layers.{i}.attention.qkv").chunk(3, dim=-1)
        )
        scores = q @ k.transpose(-1, -2) / k.shape[-1] ** 0.5
        weights = scores.masked_fill(~sees[:, None], -torch.inf).softmax(-1)
        mixed = (weights @ v).transpose(1, 2).flatten(2)
        x = norm(x + linear(mixed, f"layers.{i}.attention.out"), f"layers.{i}.norm1")
        x = norm(
            x + linear(torch.relu(linear(x, f"layers.{i}.feed_forward.0")), f"layers.{i}.feed_forward.3"),
            f"layers.{i}.norm2",
        )
    order = torch.full(unknown.shape, -torch.inf)
    for cell, token in unknown.nonzero().tolist():  # as if this one alone were known, too
        seen = torch.cat([scores[cell, :, 0, known[cell]], scores[cell, :, 0, token].unsqueeze(1)], dim=1)
        order[cell, token] = seen.softmax(-1)[:, -1].mean()
    y = F.leaky_relu(linear(F.leaky_relu(linear(x, "gep.value.0")), "gep.value.2"))
    return linear(y, "gep.value.4").squeeze(-1), order


def padded_rounds(network, batch, n_rounds, cell_prompt=None):
    """Round by round and cell by cell."""
    p = batch.to_padded()
    unknown, values = p["unknown"].clone(), p["values"].clone()
    asked = unknown.sum(1).tolist()
    taken = [0] * len(asked)
    for i in range(1, n_rounds + 1):
        predicted, order = padded_pass(network, p | {"values": values}, unknown, cell_prompt)
        for cell, n in enumerate(asked):
            of_cell = min(n_rounds, n) or 1
            until = min(-(-n * i // of_cell), n)
            for token in order[cell].argsort(descending=True)[: until - taken[cell]]:
                values[cell, token], unknown[cell, token] = predicted[cell, token], False
            taken[cell] = until
    return values[~p["padding"]]


@torch.no_grad()
@pytest.mark.parametrize("n_rounds", [1, 2, 3, 5, 100])
@pytest.mark.parametrize("from_cell", [False, True])
def test_equals_padded_rounds(module, batch, prompts, n_rounds, from_cell):
    prompt = prompts if from_cell else None
    got = module.generate(batch, n_rounds, cell_prompt=prompt, bounds=BOUNDS)
    expected = padded_rounds(module.network, batch, n_rounds, prompt)
    assert 0 < expected[batch.unknown].min() and expected[batch.unknown].max() < 50
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-5)


@torch.no_grad()
def test_one_round_is_one_forward_pass(module, batch, prompts):
    for prompt in (None, prompts):
        out = module.network(batch, ["gep"], prompt).gep
        got = module.generate(batch, 1, cell_prompt=prompt, bounds=BOUNDS)
        torch.testing.assert_close(got[batch.unknown], out[batch.unknown], rtol=0, atol=0)


def test_known_values_stay_and_the_batch_is_left_as_it_is(module, batch):
    before, unknown = batch.values.clone(), batch.unknown.clone()
    for n_rounds in (1, 4):
        got = module.generate(batch, n_rounds, bounds=(3.0, 7.0))
        assert torch.equal(got[~batch.unknown], before[~unknown])
        assert got[batch.unknown].min() >= 3 and got[batch.unknown].max() <= 7
    assert torch.equal(batch.values, before) and torch.equal(batch.unknown, unknown)


def test_values_of_unknown_genes_in_the_input_have_no_effect(module, batch):
    other = replace(batch, values=torch.where(batch.unknown, 33.0, batch.values))
    for n_rounds in (1, 4):
        got, again = (module.generate(b, n_rounds, bounds=BOUNDS) for b in (batch, other))
        assert torch.equal(got, again)


def test_genes_are_accepted_in_the_order_of_attention(module, batch, monkeypatch):
    seen = []
    run = module.network.forward

    def watch(batch, *args, **kwargs):
        seen.append((batch.unknown, run(batch, *args, **kwargs)))
        return seen[-1][1]

    monkeypatch.setattr(module.network, "forward", watch)
    module.generate(batch, 4, bounds=BOUNDS)
    assert [out.attention is None for _, out in seen] == [False, False, False, True]
    left = [[int(u[start:stop].sum()) for u, _ in seen] for start, stop in ((0, 25), (25, 44), (44, 48), (48, 54))]
    assert left == [[12, 9, 6, 3], [17, 12, 8, 4], [2, 1, 0, 0], [0, 0, 0, 0]]
    for (before, out), (after, _) in pairwise(seen):
        for part in (slice(0, 25), slice(25, 44)):
            accepted, waiting = (before & ~after)[part], after[part]
            assert out.attention[part][accepted].min() > out.attention[part][waiting].max()


def test_of_equal_genes_the_lower_id_comes_first(batch):
    module = make_module()
    torch.nn.init.zeros_(module.network.layers[-1].attention.qkv.weight)
    torch.nn.init.zeros_(module.network.layers[-1].attention.qkv.bias)
    first = module.generate(batch, 2, bounds=BOUNDS)
    half = batch.unknown.clone()
    for start, stop, n in ((0, 25, 6), (25, 44, 9), (44, 48, 1)):
        ids = torch.where(batch.unknown[start:stop], batch.gene_ids[start:stop], 1000)
        half[start + ids.argsort()[:n]] = False
    second = module.network(replace(batch, values=first, unknown=half), ["gep"]).gep
    torch.testing.assert_close(first[half], second[half], rtol=0, atol=1e-5)


def test_a_cell_depends_on_itself_alone(module, batch, prompts):
    whole = module.generate(batch, 3, cell_prompt=prompts, bounds=BOUNDS)
    for start, stop in ((0, 1), (1, 2), (1, 4), (3, 4)):
        tokens = slice(batch.boundaries[start], batch.boundaries[stop])
        part = module.generate(batch.cells(start, stop), 3, cell_prompt=prompts[start:stop], bounds=BOUNDS)
        torch.testing.assert_close(part, whole[tokens], rtol=0, atol=1e-4)


def test_prompts_make_a_difference(module, batch, prompts):
    asked = batch.unknown
    genes = module.generate(batch, 3, bounds=BOUNDS)
    both = module.generate(batch, 3, cell_prompt=prompts, bounds=BOUNDS)
    nothing_known = replace(batch, unknown=torch.ones_like(asked).index_fill(0, batch.first, False))
    cell = module.generate(nothing_known, 3, cell_prompt=prompts, bounds=BOUNDS)
    for x, y in ((genes, both), (genes, cell), (both, cell)):
        assert torch.isfinite(x).all() and (x - y)[asked].abs().mean() > 0.1


def test_a_categorical_encoder_reads_whole_numbers(batch):
    module = make_module(value_encoder="categorical", n_values=60)
    known = replace(batch, values=batch.values.index_fill(0, batch.first, 51.0))
    values = module.generate(known, 4, bounds=BOUNDS)[batch.unknown]
    assert torch.equal(values, values.round()) and values.unique().numel() > 3


@pytest.mark.parametrize("from_cell", [False, True])
@torch.no_grad()
def test_genes_that_are_not_expressed_are_left_out_and_zero(batch, prompts, from_cell):
    module = make_module(zero=True)
    share, prompt = torch.tensor([0.1, 0.5, 0.9, 0.5]), prompts if from_cell else None
    got = module.generate(batch, 3, cell_prompt=prompt, bounds=(1.0, 50.0), share=share)
    cells = prompts if from_cell else module.network(batch).cells  # which unknown genes have no part in
    genes = batch.gene_ids[batch.unknown].unique()
    probability = module.network.expressed(genes, cells, share.unsqueeze(1))
    on = torch.tensor(
        [
            probability[cell, genes == gene].sum() > 0.5
            for cell, gene in zip(batch.cell_of_token, batch.gene_ids, strict=True)
        ]
    )
    assert 0 < (on & batch.unknown).sum() < batch.unknown.sum()
    assert torch.equal(got != 0, ~batch.unknown | on)
    kept = batch.keep(~batch.unknown | on)
    expected = module.generate(kept, 3, cell_prompt=prompt, bounds=(1.0, 50.0))
    torch.testing.assert_close(got[~batch.unknown | on], expected, rtol=0, atol=0)


@torch.no_grad()
def test_the_probability_of_expression_is_that_of_the_head_zero(batch):
    """For networks that embed batches, too: it is what training asked for."""
    module = make_module(zero=True, n_batches=2, batch_embedding=True)
    measured, expressed = (
        torch.arange(20),
        (torch.rand(4, 20, generator=torch.Generator().manual_seed(0)) < 0.4).float(),
    )
    labels = torch.tensor([0, 1, 1, 0])
    known = replace(batch, measured=measured, levels=expressed, batch_labels=labels)
    out = module.network(known, ["zero"])
    ours = module.network.expressed(measured, out.cells, expressed.mean(1, keepdim=True), labels)
    torch.testing.assert_close(ours, out.expressed, rtol=0, atol=1e-6)


def test_without_unknown_genes_there_is_nothing_to_do(module, batch):
    with pytest.raises(ValueError, match="which genes are to be generated"):
        generate(module.network, replace(batch, unknown=None), 2)
    with pytest.raises(ValueError, match="n_flags=2"):
        make_module(n_flags=0).generate(batch, 2)


def test_no_round_is_refused(module, batch):
    with pytest.raises(ValueError, match="n_rounds must be at least 1, not 0"):
        generate(module.network, batch, 0)
