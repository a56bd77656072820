from dataclasses import replace

import pytest
import torch

from scgpt.data import TokenBatch
from scgpt.module import Gep, Gepc, ScGPTModule
from scgpt.nn import ScGPTConfig

CONFIG = ScGPTConfig(n_tokens=20, d_model=8, n_heads=2, n_layers=1, d_feed_forward=8, dropout=0.0)


@pytest.fixture
def module() -> ScGPTModule:
    torch.manual_seed(0)
    return ScGPTModule(CONFIG)


@pytest.fixture
def batch() -> TokenBatch:
    return TokenBatch(
        gene_ids=torch.arange(6),
        values=torch.tensor([-2.0, 3, -1, -2, 4, -1]),
        offsets=torch.tensor([0, 3, 6]),
        cell_index=torch.arange(2),
        targets=torch.tensor([-2.0, 3, 5, -2, 4, 7]),
        predict=torch.tensor([False, False, True] * 2),
    )


def test_loss_is_the_weighted_sum_and_objectives_are_reported_unweighted(module, batch):
    module.objectives = (Gep(weight=2.0), Gepc(weight=0.5))
    _, output, losses = module(batch)
    gep, gepc = losses.extra_metrics["gep"], losses.extra_metrics["gepc"]
    assert gep.item() == pytest.approx(((output.gep - batch.targets)[batch.predict] ** 2).mean().item())
    assert losses.loss.item() == pytest.approx(2 * gep.item() + 0.5 * gepc.item())
    assert losses.n_obs_minibatch == 2


def test_only_heads_that_an_objective_reads_are_run(module, batch):
    module.objectives = (Gep(),)
    _, output, _ = module(batch)
    assert output.gepc is None


def test_a_loss_that_is_not_finite_names_its_objective(module, batch):
    module.objectives = (Gep(), Gepc())
    with torch.no_grad():
        module.network.gepc.value.weight.fill_(torch.inf)
    with pytest.raises(FloatingPointError, match="gepc is not finite"):
        module(batch)


def test_a_network_without_expression_heads_gets_an_objective_that_fits():
    module = ScGPTModule(replace(CONFIG, expression="affine", gepc=False))
    assert [o.name for o in module.objectives] == ["ecs"]


def test_embed_gives_float32_without_gradients(module, batch):
    embedding = module.embed(batch)
    assert embedding.dtype == torch.float32
    assert not embedding.requires_grad
    assert torch.equal(embedding, module.network(batch).cells)
