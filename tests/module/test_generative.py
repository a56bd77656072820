from dataclasses import replace

import pytest
import torch

from scgpt.data import TokenBatch
from scgpt.module import CellPrompt, GenePrompt, GenGepc, Gep, ScGPTModule, make_objectives
from scgpt.nn import ScGPTConfig

CONFIG = ScGPTConfig(n_tokens=20, d_model=8, n_heads=2, n_layers=2, d_feed_forward=8, dropout=0.0, n_flags=2)
PARTS = ("gen_gene_prompt", "gen_gepc", "gen_cell_prompt")


@pytest.fixture
def module() -> ScGPTModule:
    torch.manual_seed(0)
    module = ScGPTModule(CONFIG)
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    module.objectives = make_objectives(["gen"])
    return module


@pytest.fixture
def batch() -> TokenBatch:
    unknown = torch.tensor([0, 0, 1, 1, 0, 0, 1], dtype=torch.bool)
    values = torch.tensor([-2.0, 3, 5, 9, -2, 4, 7])
    return TokenBatch(
        gene_ids=torch.arange(7),
        values=values,
        offsets=torch.tensor([0, 4, 7]),
        cell_index=torch.arange(2),
        unknown=unknown,
        targets=values,
        predict=unknown,
    )


def error(prediction: torch.Tensor, batch: TokenBatch, where: torch.Tensor) -> float:
    return (prediction - batch.targets)[where].square().mean().item()


@torch.no_grad()
def test_parts_by_hand(module, batch):
    first = module.network(batch, ("gep", "gepc"))
    second = module.network(batch, ("gep",), cell_prompt=first.cells)
    losses = module(batch)[-1]
    expected = [error(x, batch, batch.unknown) for x in (first.gep, first.gepc, second.gep)]
    assert [losses.extra_metrics[name].item() for name in PARTS] == pytest.approx(expected)
    assert losses.extra_metrics["gen"].item() == pytest.approx(sum(expected))
    assert losses.loss.item() == pytest.approx(sum(expected))


@torch.no_grad()
def test_with_all_genes_unknown_the_second_pass_asks_for_all_of_them(module, batch):
    module.objectives = make_objectives({"gen": {"all_unknown": True}})
    genes = torch.tensor([0, 1, 1, 1, 0, 1, 1], dtype=torch.bool)
    cells = module.network(batch).cells
    second = module.network(replace(batch, unknown=genes), ("gep",), cell_prompt=cells)
    losses = module(batch)[-1].extra_metrics
    assert losses["gen_cell_prompt"].item() == pytest.approx(error(second.gep, batch, genes))
    assert losses["gen_gene_prompt"].item() == pytest.approx(
        error(module.network(batch, ("gep",)).gep, batch, batch.unknown)
    )
    assert [o.mean_over(batch) for o in module.objectives] == ["tokens", "tokens", "genes"]


def test_cell_prompts_count_after_the_warm_up_and_where_there_is_no_step(module, batch, monkeypatch):
    module.objectives = make_objectives({"gen": {"warmup_steps": 10}, "ecs": 2})
    passes = []
    run = module.network.forward
    monkeypatch.setattr(
        module.network, "forward", lambda *args, **kwargs: passes.append(kwargs) or run(*args, **kwargs)
    )
    for step, has_second in ((0, False), (9, False), (10, True), (None, True)):
        passes.clear()
        losses = module(batch, step=step)[-1]
        assert ("gen_cell_prompt" in losses.extra_metrics) == has_second
        assert len(passes) == 1 + has_second
        parts = [losses.extra_metrics[name].item() for name in PARTS[: 2 + has_second]]
        assert losses.extra_metrics["gen"].item() == pytest.approx(sum(parts))
        assert losses.loss.item() == pytest.approx(sum(parts) + 2 * losses.extra_metrics["ecs"].item())


def test_the_prompt_passes_no_gradient_on(module, batch):
    out = module.network(batch)
    cells = replace(out, cells=out.cells.detach().requires_grad_())
    objective = CellPrompt()
    loss = objective(*objective.scored_on(module.network, cells, batch))
    (gradient,) = torch.autograd.grad(loss, cells.cells, allow_unused=True)
    assert loss.requires_grad and gradient is None


def test_the_three_parts_share_weight_and_settings():
    parts = make_objectives({"gen": {"weight": 2, "warmup_steps": 5, "all_unknown": True}})
    assert parts == (GenePrompt(2), GenGepc(2), CellPrompt(2, 5, True))
    assert [part.name for part in parts] == list(PARTS)
    assert make_objectives(["gen"])[2] == CellPrompt(warmup_steps=1000, all_unknown=False)


def test_masked_or_unknown_but_not_both():
    with pytest.raises(ValueError, match="name it, or these"):
        make_objectives(["gen", "gepc"])
    with pytest.raises(ValueError, match="name it, or these"):
        make_objectives([GenePrompt(), Gep()])
    with pytest.raises(ValueError, match="each once"):
        make_objectives(["gen", GenGepc()])
