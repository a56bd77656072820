"""Training where the memory does not suffice for a batch, on the way to the loss or back."""

import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import Callback

from scgpt.model import SCGPT
from scgpt.train import ScGPTTrainingPlan

MIXED = {"gep": 1, "gepc": 0.5, "zero": 1, "cls": 2, "dar": 1}
GENERATIVE = {"gen": {"warmup_steps": 3, "all_unknown": True}}


class Steps(Callback):
    """Keeps the gradient and the values of each step of the optimiser, and fails before one."""

    def __init__(self, fail_at: int | None = None):
        self.fail_at, self.gradients, self.values = fail_at, [], []

    def on_train_batch_start(self, trainer, module, batch, batch_idx):
        if trainer.global_step == self.fail_at:
            raise RuntimeError("the cluster is down")

    def on_before_optimizer_step(self, trainer, module, optimizer):
        self.gradients.append({name: p.grad.clone() for name, p in module.named_parameters() if p.grad is not None})

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        self.values.append(module.step_values | {"outputs": outputs["loss"].item()})


def train(adata, *, epochs=1, network=None, steps=None, plan=None, **settings) -> tuple[SCGPT, Steps]:
    SCGPT.setup_anndata(adata, batch_key="batch", labels_key="cell_type")
    config = {"dropout": 0.0, "n_classes": 3, "adversary": True, "zero": True, "n_flags": 2} | (network or {})
    model = SCGPT(adata, d_model=8, n_layers=2, n_heads=2, **config)
    steps = steps or Steps()
    settings = {"objectives": MIXED, "batch_size": 32, "gradient_clip_val": None, "seed": 3} | settings
    # With this epsilon Adam does not make much of gradients that are nothing but rounding.
    plan = {"eps": 1e-2} | (plan or {})
    model.train(epochs, plan_kwargs=plan, callbacks=[steps], enable_progress_bar=False, **settings)
    return model, steps


def weights(model: SCGPT) -> dict[str, torch.Tensor]:
    return model.module.state_dict()


@pytest.mark.parametrize("going_back", [False, True], ids=["forward", "backward"])
@pytest.mark.parametrize(
    "settings",
    [
        pytest.param({}, id="mixed"),
        pytest.param({"objectives": GENERATIVE, "batch_size": 24}, id="generative"),
        pytest.param({"accumulate_grad_batches": 3, "batch_size": 16}, id="accumulated"),
        pytest.param({"plan": {"activation_checkpointing": True}}, id="checkpointed"),
    ],
)
def test_parts_have_the_gradient_of_the_whole_batch(counts, short_of_memory, settings, going_back):
    tried = short_of_memory(np.inf)
    whole, undisturbed = train(counts, **settings)
    most = int(max(tried) * 0.55)  # two parts fit
    tried = short_of_memory(most, going_back=going_back)
    with pytest.warns(UserWarning) as caught:
        parts, steps = train(counts, **settings)
    said = [str(warning.message) for warning in caught if "gradients are summed" in str(warning.message)]
    assert len(said) == 1 and "accumulate_grad_batches=2" in said[0]
    assert sum(n > most for n in tried) <= 2  # later steps begin with parts; the generative objective has two passes
    assert len(steps.gradients) == len(undisturbed.gradients) > 1
    for expected, got in zip(undisturbed.gradients, steps.gradients, strict=True):
        assert expected.keys() == got.keys()
        for name, gradient in expected.items():
            torch.testing.assert_close(got[name], gradient, rtol=1e-3, atol=1e-5 * gradient.abs().max().item() + 1e-7)
    for expected, got in zip(undisturbed.values, steps.values, strict=True):
        assert got == pytest.approx(expected, rel=1e-4)
    for name, tensor in weights(whole).items():
        torch.testing.assert_close(weights(parts)[name], tensor, rtol=1e-4, atol=1e-5)
    for name, logged in whole.history.items():
        np.testing.assert_allclose(parts.history[name].to_numpy(float), logged.to_numpy(float), rtol=1e-4)


def test_in_bfloat16_parts_are_as_near_to_the_gradient_as_the_whole_batch(counts, short_of_memory):
    runs = [train(counts)[1], train(counts, precision="bf16-mixed")[1]]
    short_of_memory(400, going_back=True)
    with pytest.warns(UserWarning, match="Memory did not suffice"):
        runs.append(train(counts, precision="bf16-mixed")[1])
    exact, whole, parts = (run.gradients[0] for run in runs)
    for name, gradient in exact.items():
        rounding = (whole[name] - gradient).norm()
        assert (parts[name] - gradient).norm() < 1.2 * rounding + 0.01 * gradient.norm(), name


@pytest.mark.filterwarnings("ignore:Memory did not suffice")
def test_dropout_is_a_function_of_the_step_and_not_of_what_failed(counts, short_of_memory, tmp_path):
    settings = {"network": {"dropout": 0.2}, "epochs": 2}
    results = {}
    for going_back in (False, True):
        short_of_memory(400, going_back=going_back)
        results[going_back], _ = train(counts, **settings)

    # A run that was cut off goes on with the parts that it had, where it fails no more.
    settings |= {"checkpoints": tmp_path, "checkpoint_every": 1}
    short_of_memory(400)
    with pytest.raises(RuntimeError, match="the cluster is down"):
        train(counts, steps=Steps(fail_at=5), **settings)
    short_of_memory(np.inf)
    results["resumed"], _ = train(counts, **settings)
    short_of_memory(350)  # parts begin elsewhere
    other, _ = train(counts, network={"dropout": 0.2}, epochs=2)
    expected = weights(results[False])
    assert not torch.equal(weights(other)["network.genes.embedding.weight"], expected["network.genes.embedding.weight"])
    for model in results.values():
        assert all(torch.equal(weights(model)[name], x) for name, x in expected.items())


@pytest.mark.parametrize(
    ("network", "objectives", "named"),
    [
        ({}, {"gep": 1, "ecs": 10}, "ecs sees"),
        ({"input_norm": "domain"}, ["gep"], "input_norm sees"),
        ({"input_norm": "batch"}, {"gep": 1, "ecs": 1}, "ecs and input_norm sees"),
    ],
)
@pytest.mark.parametrize("going_back", [False, True], ids=["forward", "backward"])
def test_what_sees_several_cells_is_not_taken_apart(counts, short_of_memory, network, objectives, named, going_back):
    short_of_memory(300, going_back=going_back)
    with pytest.raises(MemoryError, match=rf"32 cells of .* {named} all cells .* smaller batch_size.*bf16-mixed"):
        train(counts, network=network, objectives=objectives)


@pytest.mark.filterwarnings("ignore:Memory did not suffice")
def test_a_norm_whose_statistics_stand_still_is_no_hindrance(counts, short_of_memory):
    short_of_memory(600)
    train(counts, network={"input_norm": "domain"}, objectives=["gep"], freeze=["input_norm"])


def test_a_cell_that_cannot_be_trained_on_alone(counts, short_of_memory):
    short_of_memory(3, going_back=True)
    with pytest.raises(MemoryError, match="One cell of .* activation_checkpointing=True"):
        train(counts, batch_size=2)


@pytest.mark.parametrize(("going_back", "named"), [(False, "several processes"), (True, "The way back of a batch")])
def test_one_of_several_processes_stops(counts, short_of_memory, monkeypatch, going_back, named):
    monkeypatch.setattr(ScGPTTrainingPlan, "_alone", False)
    short_of_memory(300, going_back=going_back)
    with pytest.raises(MemoryError, match=f"{named}.* smaller batch_size"):
        train(counts)


def test_validation_goes_on_in_parts(counts, short_of_memory):
    """Of 24 training and 96 validation cells the latter come in larger batches."""
    settings = {"train_size": 0.2, "validation_size": 0.8, "batch_size": 48}
    whole, _ = train(counts, **settings)
    short_of_memory(700)
    with pytest.warns(UserWarning, match="Memory did not suffice for 48 cells .* What is logged does not depend on it"):
        parts, steps = train(counts, **settings)
    assert len(steps.values) == 1
    for name, logged in whole.history.items():
        np.testing.assert_allclose(parts.history[name].to_numpy(float), logged.to_numpy(float), rtol=1e-5)
