from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from scgpt.data import TokenBatch
from scgpt.nn import ScGPTConfig, ScGPTNetwork, attention

from ._networks import ALL_HEADS, EVERYTHING, PaddedReference, outputs, per_cell


def assert_close(a, b, atol=1e-5):
    torch.testing.assert_close(a, b, rtol=1e-6, atol=atol)


def reorder(batch: TokenBatch, cells: list[int]) -> TokenBatch:
    """The batch with its cells in another order."""
    padded = batch.to_padded()
    return TokenBatch.from_padded(**{name: x[cells] for name, x in padded.items()})


@pytest.mark.parametrize("norm", ["post", "pre"])
@torch.no_grad()
def test_packed_equals_padded(norm, make_network, batch):
    network = make_network(norm=norm, **EVERYTHING)
    got, expected = outputs(network(batch, ALL_HEADS)), PaddedReference(network)(batch)
    assert set(got) == set(expected)
    for name in expected:
        assert_close(got[name], expected[name])


@torch.no_grad()
def test_order_of_cells_does_not_matter(make_network, batch):
    network = make_network(**EVERYTHING)
    order = [2, 0, 3, 1]
    before, after = (outputs(network(b, ALL_HEADS)) for b in (batch, reorder(batch, order)))
    pieces = batch.lengths.tolist()
    for name, x in before.items():
        expected = x[order] if per_cell(name) else torch.cat([x.split(pieces)[cell] for cell in order])
        assert_close(after[name], expected)


@torch.no_grad()
def test_order_of_genes_does_not_matter(make_network, batch):
    network = make_network(**EVERYTHING)
    generator = torch.Generator().manual_seed(0)
    order = torch.cat(  # <cls> stays first
        [
            start + torch.cat([torch.zeros(1, dtype=torch.int64), 1 + torch.randperm(n - 1, generator=generator)])
            for start, n in zip(batch.first.tolist(), batch.lengths.tolist(), strict=True)
        ]
    )
    names = ("gene_ids", "values", "condition_ids", "modality_ids")
    permuted = replace(batch, **{name: getattr(batch, name)[order] for name in names})
    before, after = (outputs(network(b, ALL_HEADS)) for b in (batch, permuted))
    for name, x in before.items():
        assert_close(after[name], x if per_cell(name) else x[order])


@pytest.mark.parametrize("pooling", ["cls", "mean", "weighted"])
@torch.no_grad()
def test_a_cell_does_not_depend_on_its_batch(pooling, make_network, batch):
    network = make_network(pooling=pooling, **EVERYTHING)
    together = outputs(network(batch, ALL_HEADS))
    alone = [outputs(network(part, ALL_HEADS)) for part in batch.split(1)]
    assert len(alone) == 4
    for name, x in together.items():
        assert_close(torch.cat([out[name] for out in alone]), x)


@torch.no_grad()
def test_mean_pooling_is_over_all_tokens(make_network, batch):
    out = make_network(pooling="mean")(batch)
    for cell, tokens in zip(out.cells, out.tokens.split(batch.lengths.tolist()), strict=True):
        assert_close(cell, tokens.mean(0))


@torch.no_grad()
def test_weighted_pooling_is_over_expressed_genes_by_their_values(make_network, batch):
    out = make_network(pooling="weighted")(batch)
    pieces = batch.lengths.tolist()
    for cell, tokens, values in zip(out.cells, out.tokens.split(pieces), batch.values.split(pieces), strict=True):
        if len(tokens) > 1:
            assert_close(cell, (tokens[1:] * values[1:, None]).sum(0) / values[1:].sum())
        else:
            assert_close(cell, tokens[0])  # a cell with nothing but <cls> is not 0 / 0


@torch.no_grad()
def test_weighted_pooling_of_masked_and_zero_values_alone_is_cls(make_network):
    batch = TokenBatch.from_padded(torch.tensor([[29, 3, 5]]), torch.tensor([[-2.0, -1.0, 0.0]]), torch.zeros(1, 3))
    out = make_network(pooling="weighted")(batch)
    assert_close(out.cells[0], out.tokens[0])


@torch.no_grad()
def test_cls_pooling_is_the_output_of_cls(make_network, batch):
    out = make_network()(batch)
    assert torch.equal(out.cells, out.tokens[[0, 7, 8, 20]])


@pytest.mark.parametrize(
    ("pooling", "heads", "skips"),
    [
        ("cls", (), True),
        ("cls", ("cls", "dar", "gepc"), True),
        ("cls", ("cls", "gep"), False),
        ("cls", ("zero",), False),
        ("mean", ("cls",), False),
    ],
)
def test_without_tokens_all_else_is_the_same(pooling, heads, skips, make_network, batch):
    network = make_network(pooling=pooling, **EVERYTHING)
    whole, short = network(batch, heads), network(batch, heads, tokens=False)
    assert (short.tokens is None) == skips
    others = {name: x for name, x in outputs(whole).items() if name != "tokens"}
    assert others.keys() == outputs(short).keys() - {"tokens"}
    gradients = []
    for out in (whole, short):
        sum(x.float().square().sum() for name, x in outputs(out).items() if name != "tokens").backward()
        gradients.append({name: p.grad for name, p in network.named_parameters() if p.grad is not None})
        network.zero_grad()
    for name, x in others.items():
        assert_close(outputs(short)[name], x)
    assert gradients[0].keys() == gradients[1].keys()
    for name, gradient in gradients[0].items():
        scale = float(gradient.abs().max())
        torch.testing.assert_close(gradients[1][name], gradient, rtol=1e-4, atol=1e-5 * max(scale, 1))


@torch.no_grad()
def test_cell_prompt_takes_the_place_of_the_cls_input(make_network, batch):
    network = make_network(n_conditions=3)
    embedded = network.embed_tokens(network.genes(batch.gene_ids), batch)
    plain = network(batch, ["gep"])
    # The input embedding that <cls> has anyway changes nothing.
    assert_close(network(batch, ["gep"], cell_prompt=embedded[batch.first]).gep, plain.gep)

    prompt = torch.randn(4, 16, generator=torch.Generator().manual_seed(3))
    expected = embedded.clone()
    for position, row in zip(batch.first.tolist(), prompt, strict=True):
        expected[position] = row
    for layer in network.layers:
        expected = layer(expected, batch)
    out = network(batch, ["gep"], cell_prompt=prompt)
    assert_close(out.tokens, expected)
    assert (out.gep - plain.gep).abs().max() > 0.1


def test_cell_prompt_passes_gradients_on(make_network, batch):
    prompt = torch.randn(4, 16, requires_grad=True)
    make_network()(batch, ["gep"], cell_prompt=prompt).gep.sum().backward()
    assert (prompt.grad.abs().sum(1) > 0).all()


@torch.no_grad()
def test_batch_and_modality_enter_after_the_transformer(make_network, batch):
    network = make_network(**EVERYTHING)
    other = replace(batch, batch_labels=(batch.batch_labels + 1) % 3, modality_ids=(batch.modality_ids + 1) % 4)
    before, after = network(batch, ALL_HEADS), network(other, ALL_HEADS)
    for name in ("tokens", "cells", "cls", "dar"):
        assert torch.equal(getattr(before, name), getattr(after, name))
    for name in ("gep", "gepc", "zero", "zero_gepc"):
        assert (getattr(before, name) - getattr(after, name)).abs().max() > 1e-3


@torch.no_grad()
def test_without_modalities_a_genes_query_has_no_context(make_network, batch):
    network = make_network(n_batches=3, batch_embedding=True)
    query = torch.sigmoid(network.gepc.query(network.genes(batch.gene_ids)))
    cells = torch.cat([network(batch).cells, network.batches(batch.batch_labels)], dim=1)
    expected = (network.gepc.value(query) * cells[batch.cell_of_token]).sum(1)
    assert_close(network(batch, ["gepc"]).gepc, expected)


@torch.no_grad()
def test_several_conditions_of_a_token_are_summed_and_none_is_zero(make_network, batch):
    network = make_network(n_conditions=3)
    genes = network.genes(batch.gene_ids)
    none = replace(batch, condition_ids=torch.zeros(batch.n_tokens, 1, dtype=torch.int64))
    rows = network.conditions.weight[batch.condition_ids]
    assert_close(network.embed_tokens(genes, batch), network.embed_tokens(genes, none) + rows[:, 0] + rows[:, 1])
    assert_close(network.embed_tokens(genes, none), genes + network.values(batch.values))


def test_many_conditions_learn_as_rows_that_are_summed_and_that_of_none_never_does(make_network, batch):
    network = make_network(n_conditions=50)
    ids = torch.randint(0, 50, (batch.n_tokens, 40), generator=torch.Generator().manual_seed(4))
    ids[:, 30:] = 0
    genes = network.genes(batch.gene_ids).detach()
    weight = torch.randn(batch.n_tokens, 16, generator=torch.Generator().manual_seed(5))
    out = network.embed_tokens(genes, replace(batch, condition_ids=ids))
    (got,) = torch.autograd.grad((out * weight).sum(), network.conditions.weight)
    plain = network.conditions.weight.detach().clone().requires_grad_()
    summed = F.embedding(ids, plain, padding_idx=0).sum(1)
    assert_close(out, genes + network.values(batch.values) + summed)
    (expected,) = torch.autograd.grad((summed * weight).sum(), plain)
    assert_close(got, expected)
    assert not got[0].any()


@pytest.mark.parametrize("training", [False, True])
def test_plain_input_norm_equals_batch_norm_of_the_summed_embeddings(training, make_network, batch):
    network, plain = make_network(input_norm="batch"), make_network()
    plain.load_state_dict({k: v for k, v in network.state_dict().items() if not k.startswith("input_norm")})
    norm = torch.nn.BatchNorm1d(16, eps=6.1e-5)
    norm.load_state_dict(network.input_norm.state_dict())
    network.input_norm.train(training)
    norm.train(training)
    genes = network.genes(batch.gene_ids)
    assert_close(network.embed_tokens(genes, batch), norm(plain.embed_tokens(genes, batch)))
    assert_close(network.input_norm.running_var, norm.running_var)


@torch.no_grad()
def test_domain_norm_uses_the_label_of_each_tokens_cell(make_network, batch):
    network, plain = make_network(input_norm="domain", n_batches=3), make_network()
    plain.load_state_dict({k: v for k, v in network.state_dict().items() if not k.startswith("input_norm")})
    genes = network.genes(batch.gene_ids)
    x = plain.embed_tokens(genes, batch)
    label = torch.repeat_interleave(batch.batch_labels, batch.lengths)
    mean, var = network.input_norm.running_mean[label], network.input_norm.running_var[label]
    assert_close(network.embed_tokens(genes, batch), (x - mean) / torch.sqrt(var + 6.1e-5))


@torch.no_grad()
def test_categorical_values_replace_the_continuous_encoder(make_network, batch):
    network = make_network(value_encoder="categorical", n_values=12)
    whole = replace(batch, values=batch.values.clamp(min=0))
    genes = network.genes(batch.gene_ids)
    rows = network.values.embedding.weight[whole.values.long()]
    expected = genes + F.layer_norm(rows, (16,), network.values.norm.weight, network.values.norm.bias)
    assert_close(network.embed_tokens(genes, whole), expected)


@torch.no_grad()
def test_a_cell_answers_for_every_gene_that_was_measured(make_network, batch):
    network = make_network(zero=True, n_batches=3, batch_embedding=True)
    network.gepc.expressed.weight.mul_(0.1)  # far from certain, where rounding would hide a shift
    of_tokens = network(batch, ["zero"])
    assert of_tokens.expressed is None  # nobody said what was measured
    # Half of the genes that a cell's batch measured are expressed: even odds, which change no answer.
    expressed = torch.tensor([[1, 0, 1, 0, 1, 0, torch.nan], [torch.nan, 1, 1, 1, 0, 0, 0]]).repeat(2, 1)
    batch = replace(batch, measured=torch.arange(5, 12), levels=expressed)
    out = network(batch, ["zero"])
    assert out.expressed.shape == (4, 7)
    assert out.zero is None and out.zero_gepc is None  # tokens are not asked then
    # Where a cell has a token for the gene, it is the same answer.
    compared = 0
    for token, gene in enumerate(batch.gene_ids.tolist()):
        if 5 <= gene < 12:
            assert_close(out.expressed[batch.cell_of_token[token], gene - 5], of_tokens.zero_gepc[token])
            compared += 1
    assert compared > 3
    # The share that a cell expresses shifts the odds of all its genes alike.
    more = expressed.clone()
    more[0, :6], more[1], more[2, :6] = 1, 0, torch.tensor([1.0, 1, 1, 0, 0, 0])
    shift = torch.logit(network(replace(batch, levels=more), ["zero"]).expressed) - torch.logit(out.expressed)
    # None and all of 7 genes count as half a gene more and less.
    bounds = torch.log(torch.tensor([13.0, 1 / 13, 1, 1]))
    assert_close(shift, bounds.unsqueeze(1).expand(4, 7), atol=1e-4)


@torch.no_grad()
def test_a_cell_tells_the_level_of_every_gene_that_was_measured(make_network, batch):
    network = make_network(n_batches=3, batch_embedding=True)
    of_tokens = network(batch, ["gepc"]).gepc
    with pytest.raises(ValueError, match="measured"):
        network(batch, ["levels"])
    levels = network(replace(batch, measured=torch.arange(5, 12)), ["levels"]).levels
    assert levels.shape == (4, 7)
    asked = (batch.gene_ids >= 5) & (batch.gene_ids < 12)
    assert asked.sum() > 3
    assert_close(levels[batch.cell_of_token[asked], batch.gene_ids[asked] - 5], of_tokens[asked])


@torch.no_grad()
def test_heads_may_read_the_direction_of_a_cell_alone(make_network, batch):
    plain, normed = (make_network(cell_norm=on, zero=True, n_classes=3) for on in (False, True))
    normed.load_state_dict(plain.state_dict())
    batch = replace(batch, measured=torch.arange(5, 12), levels=(torch.arange(28) % 2).view(4, 7).float())
    heads = ("gepc", "zero", "levels", "cls")
    before, after = (network(batch, heads) for network in (plain, normed))
    assert_close(before.cells, after.cells)  # the embedding itself is as it was
    cells = F.normalize(before.cells, dim=1) * 16**0.5
    assert_close(after.cls, plain.cls(cells))
    share = torch.full((4, 1), 0.5)
    share[:, 0] = batch.levels.mean(1)
    assert_close(after.expressed, plain.expressed(batch.measured, cells, share))
    assert_close(after.levels, plain.levels(batch.measured, cells))
    assert not torch.allclose(after.levels, before.levels, atol=1e-3)


@torch.no_grad()
def test_with_modalities_the_odds_are_those_of_a_features_own(make_network, batch):
    network = make_network(zero=True, n_batches=3, batch_embedding=True, n_modalities=3)
    network.gepc.expressed.weight.mul_(0.1)
    modality_of = torch.arange(batch.n_tokens) % 2 + 1
    batch = replace(batch, modality_ids=modality_of.index_fill(0, batch.first, 0))
    measured, modality = torch.arange(5, 11), torch.tensor([1, 1, 2, 2, 2, 2])
    expressed = torch.tensor([[1, 0, 1, 0, 1, 0], [torch.nan, torch.nan, 1, 1, 0, 0]]).repeat(2, 1)
    batch = replace(batch, measured=measured, levels=expressed)
    with pytest.raises(ValueError, match="measured_modality_ids"):
        network(batch, ["zero"])
    out = network(replace(batch, measured_modality_ids=modality), ["zero"])
    # All odds are even; the queries are those of the genes with their modality, and the cells' context is that of <cls>.
    query = torch.cat([network.genes(measured), network.modalities(modality)], dim=1)
    of_cls = network.modalities(torch.zeros(4, dtype=torch.int64))
    cells = torch.cat([out.cells, network.batches(batch.batch_labels) + of_cls], dim=1)
    logits = network.gepc.expressed(torch.sigmoid(network.gepc.query(query)))
    known = ~expressed.isnan()
    assert_close(out.expressed[known], torch.sigmoid(cells @ logits.T)[known])
    # More of one modality shifts the odds of that one alone.
    more = replace(batch, levels=expressed.index_fill(1, torch.tensor([2, 3, 4]), 1), measured_modality_ids=modality)
    shift = torch.logit(network(more, ["zero"]).expressed) - torch.logit(out.expressed)
    three_of_four = torch.tensor([0.0, 0, 1, 1, 1, 1]) * np.log(3)
    assert_close(shift, three_of_four.expand(4, 6), atol=1e-4)


@torch.no_grad()
def test_affine_expression_reads_the_input_value(make_network, batch):
    network = make_network(expression="affine", n_conditions=3, gepc=False, zero=True)
    out = network(batch, ["perturb_gep", "zero"])
    head = network.gep
    assert_close(out.perturb_gep, head.coefficient(out.tokens) * batch.values + head.bias(out.tokens))
    assert_close(out.zero, head.coefficient.probability(out.tokens))
    assert out.zero_gepc is None


@pytest.mark.parametrize("expression", ["affine", "mlp"])
@torch.no_grad()
def test_decoders_read_the_tokens_under_conditions(expression, make_network, batch):
    head = "perturb_gep" if expression == "affine" else "gep"
    network = make_network(expression=expression, n_conditions=3, condition_context=True, gepc=False)
    conditions = torch.zeros_like(batch.condition_ids)  # of cells with 7, 1, 12 and 3 tokens
    conditions[2, 1] = 1
    conditions[5] = 2
    conditions[7, 0] = 1  # <cls>, alone in its cell
    conditions[19, 0] = 2
    batch = replace(batch, condition_ids=conditions)
    out = network(batch, [head])
    x = out.tokens
    context = torch.stack([x[2] + x[5], x[7], x[19], torch.zeros(16)])[batch.cell_of_token]
    expected = network.gep(torch.cat([x, context], 1), *([batch.values] if expression == "affine" else []))
    assert_close(getattr(out, head), expected)

    none = replace(batch, condition_ids=torch.zeros_like(conditions))
    plain = network(none, [head])
    nothing = torch.cat([plain.tokens, torch.zeros_like(plain.tokens)], 1)
    assert_close(getattr(plain, head), network.gep(nothing, *([batch.values] if expression == "affine" else [])))


@torch.no_grad()
def test_the_context_of_conditions_is_of_the_cell_alone_and_stands_beside_that_of_batches(make_network, batch):
    network = make_network(**EVERYTHING | {"condition_context": True})
    assert network.gep.value[0].in_features == 16 * 3
    together = outputs(network(batch, ALL_HEADS))
    alone = [outputs(network(part, ALL_HEADS)) for part in batch.split(1)]
    for name, x in together.items():
        assert_close(torch.cat([out[name] for out in alone]), x)


def test_conditions_learn_through_their_context(make_network, batch):
    """Without a layer that could carry it, the condition of one token reaches the others of its cell, and no other cell."""
    network = make_network(expression="affine", n_conditions=4, condition_context=True, gepc=False)
    for layer in network.layers:
        for name, weights in layer.named_parameters():
            if "attention.out" in name:
                torch.nn.init.zeros_(weights)
    conditions = torch.zeros(batch.n_tokens, 1, dtype=torch.int64)
    conditions[2], conditions[10] = 1, 2
    out = network(replace(batch, condition_ids=conditions), ["perturb_gep"]).perturb_gep
    for tokens, moved in ((slice(0, 7), 1), (slice(8, 20), 2), (slice(20, 23), None), (slice(7, 8), None)):
        (gradient,) = torch.autograd.grad(out[tokens].sum(), network.conditions.weight, retain_graph=True)
        assert gradient.any(1).nonzero().ravel().tolist() == ([] if moved is None else [moved])


def test_heads_that_are_not_asked_for_are_none(make_network, batch):
    network = make_network(**EVERYTHING)
    assert set(outputs(network(batch))) == {"tokens", "cells"}
    assert set(outputs(network(batch, ["gepc"]))) == {"tokens", "cells", "gepc"}
    assert set(outputs(network(batch, ["zero"]))) == {"tokens", "cells", "zero", "zero_gepc"}


@pytest.mark.parametrize("head", ["gepc", "zero", "cls", "dar", "perturb_gep"])
def test_a_head_that_is_off_is_an_error(head, make_network, batch):
    with pytest.raises(ValueError, match=rf"\['{head}'\] are not switched on .*this network has \['gep'\]"):
        make_network(gepc=False)(batch, ["gep", head])


def test_a_head_that_does_not_exist_is_an_error(make_network, batch):
    with pytest.raises(ValueError, match=r"\['mvc'\] are unknown; this network has \['gep', 'gepc', 'levels'\]"):
        make_network()(batch, ["mvc"])


@pytest.mark.parametrize(
    ("field", "settings", "heads"),
    [
        ("condition_ids", {"n_conditions": 3}, ()),
        ("modality_ids", {"n_modalities": 4}, ("gep",)),
        ("batch_labels", {"n_batches": 3, "batch_embedding": True}, ("gep",)),
        ("batch_labels", {"n_batches": 3, "input_norm": "domain"}, ()),
    ],
)
def test_a_field_that_the_config_asks_for_is_needed(field, settings, heads, make_network, batch):
    with pytest.raises(ValueError, match=f"needs {field} in the TokenBatch"):
        make_network(**settings)(replace(batch, **{field: None}), heads)


@torch.no_grad()
def test_a_cells_embedding_needs_nothing_that_is_for_the_decoders(make_network, batch):
    network = make_network(n_batches=3, batch_embedding=True, n_modalities=4, n_classes=2)
    bare = replace(batch, batch_labels=None, modality_ids=None)
    assert torch.equal(network(bare, ["cls"]).cells, network(batch).cells)


def test_every_parameter_learns(make_network, batch):
    network = make_network(**EVERYTHING)
    out = network(batch, ALL_HEADS)
    sum(x.square().sum() for x in outputs(out).values()).backward()
    assert [name for name, p in network.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_the_adversary_pushes_the_encoder_the_other_way(make_network, batch):
    network = make_network(n_batches=3, adversary=True)
    encoder = network.layers[0].attention.out.weight
    own = network.dar.classifier[0].weight

    def gradients(logits):
        return torch.autograd.grad(F.cross_entropy(logits, batch.batch_labels), [encoder, own])

    reversed_ = gradients(network(batch, ["dar"]).dar)
    plain = gradients(network.dar.classifier(network(batch).cells))
    assert plain[0].abs().max() > 1e-4
    assert_close(reversed_[0], -plain[0])
    assert_close(reversed_[1], plain[1])


def test_a_choice_among_bins_has_logits_and_the_value_to_expect(make_network, batch):
    out = make_network(gep_bins=11)(batch, ["gep"])
    assert out.gep_logits.shape == (batch.n_tokens, 11)
    assert_close(out.gep, out.gep_logits.softmax(1) @ torch.arange(11.0))
    assert make_network()(batch, ["gep"]).gep_logits is None


def test_dropout_acts_in_training_alone(make_network, batch):
    network = make_network(dropout=0.2)
    assert torch.equal(network(batch).tokens, network(batch).tokens)
    network.train()
    assert not torch.equal(network(batch).tokens, network(batch).tokens)


@torch.no_grad()
def test_half_precision_stays_close(make_network, batch):
    network = make_network(pooling="mean")
    expected = network(batch, ["gep"])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = network(batch, ["gep"])
    assert F.cosine_similarity(out.cells.float(), expected.cells).min() > 0.999


def hide(batch: TokenBatch, share: float = 0.5) -> TokenBatch:
    chance = torch.rand(batch.n_tokens, generator=torch.Generator().manual_seed(7))
    asked = {"measured": torch.arange(5, 12), "measured_modality_ids": torch.ones(7, dtype=torch.int64)}
    return replace(batch, unknown=(chance < share).index_fill(0, batch.first, False), **asked)


class TestUnknown:
    """Genes whose values are to be generated."""

    @pytest.fixture(params=["cls", "mean", "weighted", "pre", "skip", "perturb"])
    def network(self, request, make_network) -> ScGPTNetwork:
        settings = {
            "pre": {"norm": "pre"},
            "skip": {"skip_unknown_projection": True},
            "perturb": {"expression": "affine", "zero": False},
        }.get(request.param, {"pooling": request.param})
        return make_network(n_flags=2, **EVERYTHING | settings)

    @torch.no_grad()
    def test_a_value_that_is_unknown_changes_nothing(self, network, batch):
        batch = hide(batch)
        before = outputs(network(batch, network.config.heads))
        for position in batch.unknown.nonzero().flatten().tolist():
            for value in (9.0, torch.inf, torch.nan):
                values = batch.values.index_fill(0, torch.tensor(position), value)
                after = outputs(network(replace(batch, values=values), network.config.heads))
                assert all(torch.equal(after[name], x) for name, x in before.items())

    @torch.no_grad()
    def test_a_known_value_changes_every_output_of_its_cell(self, network, batch):
        batch = hide(batch)
        before = outputs(network(batch, network.config.heads))
        position = 10
        assert not batch.unknown[position] and batch.cell_of_token[position] == 2
        values = batch.values.index_fill(0, torch.tensor(position), 30.0)
        after = outputs(network(replace(batch, values=values), network.config.heads))
        for name, x in before.items():
            changed = (after[name] != x).view(len(x), -1).any(1)
            expected = (torch.arange(4) if per_cell(name) else batch.cell_of_token) == 2
            assert not (changed & ~expected).any()
            assert name.startswith("zero") or changed[expected].all()  # a probability may be 1 before and after

    @torch.no_grad()
    def test_an_unknown_gene_is_seen_by_itself_alone(self, network, batch):
        batch = hide(batch)
        before = outputs(network(batch, network.config.heads))
        position = int(batch.unknown.nonzero()[1])
        genes = batch.gene_ids.index_fill(0, torch.tensor(position), 28)
        after = outputs(network(replace(batch, gene_ids=genes), network.config.heads))
        for name, x in before.items():
            changed = (after[name] != x).view(len(x), -1).any(1).nonzero().flatten().tolist()
            assert changed == ([] if per_cell(name) else [position]) or (name.startswith("zero") and not changed)

    @torch.no_grad()
    def test_known_genes_and_the_cell_are_as_if_there_were_no_others(self, network, batch):
        batch = hide(batch)
        alone = replace(batch, unknown=None).keep(~batch.unknown)
        whole, without = (outputs(network(b, network.config.heads)) for b in (batch, alone))
        for name, x in whole.items():
            assert_close(x if per_cell(name) else x[~batch.unknown], without[name])

    def test_without_tokens_all_else_is_the_same(self, network, batch):
        batch = hide(batch)
        whole, short = (outputs(network(batch, ("cls", "gepc"), tokens=t)) for t in (True, False))
        for name, x in short.items():
            assert_close(x, whole[name])

    @torch.no_grad()
    def test_the_flag_stands_in_for_the_value(self, make_network, batch):
        network, batch = make_network(n_flags=2, n_conditions=3), hide(batch)
        genes = network.genes(batch.gene_ids)
        x = network.embed_tokens(genes, batch)
        rows = network.conditions.weight[batch.condition_ids].sum(1)
        expected = genes + rows + network.values(batch.values)
        expected[batch.unknown] = (genes + rows + network.flags.weight[1])[batch.unknown]
        assert_close(x, expected)

    @torch.no_grad()
    def test_with_all_genes_unknown_the_cell_prompt_is_all_that_is_known(self, make_network, batch):
        network = make_network(n_flags=2)
        prompt = torch.randn(4, 16, generator=torch.Generator().manual_seed(3))
        everything = hide(batch, 1.0)
        before = network(everything, ["gep"], cell_prompt=prompt).gep
        other = replace(everything, values=everything.values + 5)
        assert torch.equal(network(other, ["gep"], cell_prompt=prompt).gep, before)
        assert ((network(everything, ["gep"], cell_prompt=-prompt).gep - before).abs() > 1e-3).all()

    def test_every_parameter_and_the_flag_learn(self, make_network, batch):
        network = make_network(n_flags=2, **EVERYTHING)
        out = network(hide(batch), ALL_HEADS)
        sum(x.square().sum() for x in outputs(out).values()).backward()
        assert [name for name, p in network.named_parameters() if p.grad is None or not p.grad.any()] == []
        assert not network.flags.weight.grad[0].any()  # known genes have values

    @torch.no_grad()
    def test_half_precision_stays_close(self, make_network, batch):
        network, batch = make_network(n_flags=2), hide(batch)
        expected = network(batch, ["gep"])
        with torch.autocast("cpu", dtype=torch.bfloat16):
            out = network(batch, ["gep"])
        assert F.cosine_similarity(out.tokens.float(), expected.tokens).min() > 0.999

    def test_categorical_values_too(self, make_network, batch):
        network, batch = make_network(value_encoder="categorical", n_values=12, n_flags=2), hide(batch)
        values = batch.values.clamp(min=0).masked_fill(batch.unknown, -1)  # no row of the embedding
        assert network(replace(batch, values=values), ["gep"]).gep.isfinite().all()

    def test_without_a_flag_they_are_refused_not_read_as_known(self, make_network, batch):
        with pytest.raises(ValueError, match="no embedding of unknown genes: it needs n_flags=2"):
            make_network()(hide(batch))

    def test_cls_cannot_be_unknown(self, make_network, batch):
        with pytest.raises(ValueError, match="True at a <cls>"):
            make_network(n_flags=2)(replace(batch, unknown=torch.ones(batch.n_tokens, dtype=torch.bool)))


def test_the_classifier_reads_a_part_of_the_cell_embedding_in_training():
    torch.manual_seed(0)
    config = ScGPTConfig(
        n_tokens=9,
        d_model=8,
        n_heads=2,
        n_layers=1,
        d_feed_forward=8,
        dropout=0.0,
        n_classes=3,
        classifier_dropout=0.5,
        classifier_norm=True,
        norm="pre",
    )
    network = ScGPTNetwork(config)
    batch = TokenBatch.from_padded(torch.tensor([[8, 3, 5]]), torch.ones(1, 3), torch.zeros(1, 3, dtype=torch.bool))
    first, second = network(batch, heads=("cls",)), network(batch, heads=("cls",))
    assert torch.equal(first.cells, second.cells) and not torch.equal(first.cls, second.cls)
    network.eval()
    assert torch.equal(network(batch, heads=("cls",)).cls, network.cls(network.cls_norm(network(batch).cells)))
    assert not torch.allclose(network.cls_norm(network(batch).cells), network(batch).cells)


@pytest.mark.parametrize("norm", ["post", "pre", "pre_stream"])
@torch.no_grad()
def test_attention_of_cls_is_that_of_the_last_layer(norm, make_network, make_batch):
    """Attention is linear in the values: with those of one token at 1 and of all others at 0 its share comes out."""
    network, batch = make_network(norm=norm, n_flags=2), make_batch((6, 1, 4))
    batch = replace(batch, unknown=torch.zeros(11, dtype=torch.bool))
    got = network(batch, attention=True).attention
    assert network(batch).attention is None
    last, seen = network.layers[-1].attention, []
    last.register_forward_hook(lambda module, args, out: seen.append(args[0]))
    network(batch)
    q, k, _ = last.qkv(seen[0]).view(11, 3, 2, -1).unbind(1)
    one_hot = torch.eye(11).unsqueeze(1).expand(-1, 2, -1)
    padded = F.pad(q, (0, 11 - q.shape[-1])), F.pad(k, (0, 11 - k.shape[-1]))
    shares = attention(padded[0] * (11 / q.shape[-1]) ** 0.5, padded[1], one_hot, replace(batch, unknown=None))
    expected = shares.mean(1)[batch.first[batch.cell_of_token], torch.arange(11)]
    assert_close(got, expected, atol=1e-6)
