import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import Callback

from scgpt.model import SCGPT
from scgpt.module import ScGPTModule
from scgpt.nn import ScGPTConfig
from scgpt.train import ScGPTTrainingPlan, parameter_groups

CONFIG = ScGPTConfig(n_tokens=20, d_model=8, n_heads=2, n_layers=1, d_feed_forward=8)


@pytest.fixture
def model(counts) -> SCGPT:
    SCGPT.setup_anndata(counts)
    return SCGPT(counts, d_model=8, n_layers=1, n_heads=2)


def trained_optimizer(model: SCGPT, **plan) -> torch.optim.Optimizer:
    model.train(1, enable_progress_bar=False, plan_kwargs=plan)
    return model.trainer.optimizers[0]


def test_optimizer_is_made_for_a_transformer(model):
    optimizer = trained_optimizer(model)
    assert isinstance(optimizer, torch.optim.Adam)
    assert {group["decoupled_weight_decay"] for group in optimizer.param_groups} == {True}
    assert {group["eps"] for group in optimizer.param_groups} == {1e-8}
    assert {group["weight_decay"] for group in optimizer.param_groups} == {0.0}


def test_weight_decay_spares_norms_biases_and_embeddings():
    module = ScGPTModule(CONFIG)
    decaying, others = parameter_groups(module, 0.1, 0.0)
    assert (decaying["weight_decay"], others["weight_decay"]) == (0.1, 0.0)
    names = {id(p): name for name, p in module.named_parameters()}
    spared = {names[id(p)] for p in others["params"]}
    assert all("norm" in n or "bias" in n or "embedding" in n for n in spared)
    assert not any("norm" in names[id(p)] or "embedding" in names[id(p)] for p in decaying["params"])
    assert len(decaying["params"]) + len(others["params"]) == len(list(module.parameters()))


def test_frozen_parameters_are_left_out():
    module = ScGPTModule(CONFIG)
    module.network.genes.requires_grad_(False)
    n_given = sum(len(group["params"]) for group in parameter_groups(module, 0.1, 0.1))
    assert n_given == len(list(module.parameters())) - 3


def test_a_penalty_of_genes_is_part_of_their_gradient():
    torch.manual_seed(0)
    module = ScGPTModule(CONFIG)
    genes = module.network.genes.embedding.weight
    before, grad = genes.detach().clone(), torch.randn_like(genes)
    optimizer = torch.optim.Adam(parameter_groups(module, 0.1, 0.3), lr=0.01, eps=1.0)
    optimizer.load_state_dict(optimizer.state_dict())  # as when a killed training goes on
    genes.grad = grad
    optimizer.step()
    penalised = grad + 2 * 0.3 * before
    torch.testing.assert_close(genes.detach(), before - 0.01 * penalised / (penalised.abs() + 1))


def rates_of(model: SCGPT, **settings) -> list[float]:
    """Learning rate of each step of the optimiser."""
    rates = []

    class Rates(Callback):
        def on_before_optimizer_step(self, trainer, module, optimizer):
            rates.append(optimizer.param_groups[0]["lr"])

    model.train(2, lr=0.1, batch_size=27, enable_progress_bar=False, callbacks=[Rates()], **settings)
    return rates


def test_warm_up_and_cosine_act_at_every_step(model):
    rates = rates_of(model, plan_kwargs={"schedule": "cosine", "warmup_steps": 4})
    assert rates == pytest.approx(
        [0.025, 0.05, 0.075, 0.1, 0.1, 0.1 * (1 + np.cos(np.pi / 4)) / 2, 0.05, 0.1 * (1 + np.cos(3 * np.pi / 4)) / 2]
    )


def test_the_rate_decays_after_each_epoch(model):
    settings = {"plan_kwargs": {"schedule": "epoch_decay", "decay": 0.5}}
    assert rates_of(model, **settings) == pytest.approx([0.1] * 4 + [0.05] * 4)
    assert rates_of(model, accumulate_grad_batches=3, **settings) == pytest.approx([0.1] * 2 + [0.05] * 2)


def gradient_norms(model: SCGPT, **settings) -> np.ndarray:
    """Norm of the gradient that each step of the optimiser was given."""
    norms = []

    class Norms(Callback):
        def on_train_batch_end(self, trainer, module, *args):
            gradients = [p.grad for p in module.parameters() if p.grad is not None]
            norms.append(torch.nn.utils.get_total_norm(gradients).item())

    model.train(1, lr=1e-6, enable_progress_bar=False, callbacks=[Norms()], **settings)
    return np.array(norms)


def test_gradients_are_clipped(model):
    assert (gradient_norms(model, gradient_clip_val=None) > 10).all()
    assert gradient_norms(model) == pytest.approx(1, rel=1e-4)  # the default, as the authors pretrained
    assert gradient_norms(model, gradient_clip_val=0.01) == pytest.approx(0.01, rel=1e-4)


def test_bfloat16_stays_close_to_float32_and_is_chosen_where_the_device_has_it(counts, monkeypatch):
    def losses(d_model: int = 8, **settings) -> np.ndarray:
        SCGPT.setup_anndata(counts)
        model = SCGPT(counts, d_model=d_model, n_layers=1, n_heads=2)
        model.train(3, enable_progress_bar=False, **settings)
        assert {p.dtype for p in model.module.parameters()} == {torch.float32}
        return model.history["validation_loss"].to_numpy(float)

    whole, half = losses(), losses(precision="bf16-mixed")
    assert (whole != half).any()
    assert half == pytest.approx(whole, rel=0.01)
    assert (losses(precision="32-true") == whole).all()
    wide = losses(256, precision="bf16-mixed")
    monkeypatch.setattr("scgpt.train._precision.has_bfloat16", lambda device: True)
    assert (losses() == whole).all()  # in a narrow network it does not pay
    assert (losses(256) == wide).all()


def test_bfloat16_clips_as_float32_does_with_a_fused_optimizer(model):
    norms = gradient_norms(model, precision="bf16-mixed")
    assert norms == pytest.approx(1, rel=1e-2)
    assert model.trainer.optimizers[0].defaults["fused"]


def test_layers_computed_again_have_the_same_gradient(counts):
    """Dropout included: what is drawn again is the same."""

    def weights(**plan) -> list[torch.Tensor]:
        SCGPT.setup_anndata(counts)
        model = SCGPT(counts, d_model=8, n_layers=3, n_heads=2)
        runs = []
        for layer in model.module.network.layers:
            layer.register_forward_pre_hook(lambda *_: runs.append(1))
        model.train(2, train_size=1.0, batch_size=60, enable_progress_bar=False, plan_kwargs=plan)
        assert len(runs) == 2 * 2 * 3 * (1 + plan.get("activation_checkpointing", False))
        assert not model.module.network.recomputes
        return list(model.module.parameters())

    kept, again = weights(), weights(activation_checkpointing=True)
    for one, other in zip(kept, again, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-7)


def test_logged_loss_is_the_mean_over_cells(model):
    """The last batch is smaller than the others, so a mean over batches would differ."""
    per_batch = []
    step = ScGPTTrainingPlan.training_step

    class Recording(ScGPTTrainingPlan):
        def training_step(self, batch, batch_idx):
            loss = step(self, batch, batch_idx)
            per_batch.append((batch.n_cells, loss.item()))
            return loss

    model._training_plan_cls = Recording
    model.train(1, batch_size=32, enable_progress_bar=False)
    sizes, losses = np.array(per_batch).T
    assert len(set(sizes)) == 2
    logged = float(model.history["train_loss"]["train_loss"].iloc[-1])
    assert logged == pytest.approx(np.average(losses, weights=sizes), rel=1e-5)
    assert logged != pytest.approx(np.mean(losses), rel=1e-5)


def test_every_objective_is_logged_for_training_and_validation(model):
    model.train(2, objectives={"gep": 1, "gepc": 0.5}, enable_progress_bar=False)
    history = model.history
    assert {"train_loss", "validation_loss", "gep_train", "gepc_train", "gep_validation", "gepc_validation"} <= set(
        history
    )
    for mode in ("train", "validation"):
        total = history[f"{mode}_loss"].to_numpy(float)
        parts = history[f"gep_{mode}"].to_numpy(float) + 0.5 * history[f"gepc_{mode}"].to_numpy(float)
        assert total == pytest.approx(parts, rel=1e-5)
        assert len(total) == 2


def test_with_nothing_to_train_the_network_still_runs(model):
    """As in surgery of a model that normalises batches apart: training gathers statistics."""
    model.module.network.requires_grad_(False)
    before = [p.clone() for p in model.module.parameters()]
    model.train(2, enable_progress_bar=False, plan_kwargs={"weight_decay": 0.1})
    assert all(torch.equal(old, new) for old, new in zip(before, model.module.parameters(), strict=True))
    assert np.isfinite(model.history["train_loss"].to_numpy(float)).all()


def generative_model(adata, **settings) -> SCGPT:
    SCGPT.setup_anndata(adata)
    return SCGPT(adata, d_model=8, n_layers=1, n_heads=2, n_flags=2, **settings)


PARTS = ("gen_gene_prompt", "gen_gepc", "gen_cell_prompt")


def test_the_parts_of_the_generative_objective_are_logged_with_their_sum(counts):
    model = generative_model(counts)
    model.train(2, objectives={"gen": {"weight": 3, "warmup_steps": 0}}, enable_progress_bar=False)
    for mode in ("train", "validation"):
        total = model.history[f"gen_{mode}"].to_numpy(float)
        assert total == pytest.approx(sum(model.history[f"{part}_{mode}"].to_numpy(float) for part in PARTS), rel=1e-5)
        assert model.history[f"{mode}_loss"].to_numpy(float) == pytest.approx(3 * total, rel=1e-5)


def test_cell_prompts_wait_for_the_warm_up_in_training_and_not_in_validation(counts):
    """4 steps an epoch: the first two epochs go without, the third has two steps with it."""
    model, seen = generative_model(counts), []
    step = ScGPTTrainingPlan._losses

    class Recording(ScGPTTrainingPlan):
        def _losses(self, batch, mode, at=None):
            losses = step(self, batch, mode, at)
            if mode == "training" and "gen_cell_prompt" in losses.extra_metrics:
                seen.append((at, batch.n_cells, losses.extra_metrics["gen_cell_prompt"].item()))
            return losses

    model._training_plan_cls = Recording
    model.train(3, objectives={"gen": {"warmup_steps": 10}}, enable_progress_bar=False)
    steps, sizes, losses = np.array(seen).T
    assert steps.tolist() == [10, 11]
    logged = model.history["gen_cell_prompt_train"]["gen_cell_prompt_train"]
    assert logged.index.tolist() == [2]
    assert float(logged.iloc[0]) == pytest.approx(np.average(losses, weights=sizes), rel=1e-5)
    assert model.history["gen_cell_prompt_validation"].index.tolist() == [0, 1, 2]
    model.train(2, seed=1, objectives={"gen": {"warmup_steps": 5}}, enable_progress_bar=False)
    assert model.history["gen_cell_prompt_train"].index.tolist() == [2, 4]  # epochs of both trainings are counted on
