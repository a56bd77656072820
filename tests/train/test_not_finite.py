"""Training stops where a loss or a weight is no longer a number."""

import pytest
import torch
from lightning.pytorch.callbacks import Callback

from scgpt.model import SCGPT
from scgpt.train import latest_checkpoint


@pytest.fixture
def model(counts) -> SCGPT:
    SCGPT.setup_anndata(counts)
    return SCGPT(counts, d_model=8, n_layers=1, n_heads=2)


class Ruin(Callback):
    """Spoils a weight at a batch of the second epoch: before its loss, or by its gradient."""

    def __init__(self, batch: int, where: str):
        self.batch, self.where = batch, where

    def on_train_batch_start(self, trainer, module, batch, batch_idx):
        if (trainer.current_epoch, batch_idx, self.where) == (1, self.batch, "loss"):
            with torch.no_grad():
                module.module.network.gepc.value.weight[0] = torch.nan

    def on_before_optimizer_step(self, trainer, module, optimizer):
        if (trainer.current_epoch, trainer.global_step, self.where) == (1, 4 + self.batch, "gradient"):
            module.module.network.layers[0].norm1.bias.grad[0] = torch.inf


def train(model: SCGPT, **settings) -> None:
    model.train(2, batch_size=27, enable_progress_bar=False, **settings)  # of 4 steps each


def weights_of(folder) -> dict[str, torch.Tensor]:
    state = torch.load(latest_checkpoint(folder), weights_only=True)["state_dict"]
    assert all(tensor.isfinite().all() for tensor in state.values())
    return state


def test_epoch_step_and_objective_are_named_and_the_last_good_state_stays(model, tmp_path):
    with pytest.raises(FloatingPointError, match="Epoch 1, step 6, training: Objective gepc is not finite"):
        train(model, callbacks=[Ruin(2, "loss")], checkpoints=tmp_path, checkpoint_every=2)
    assert [path.name for path in tmp_path.iterdir()] == ["step=6.ckpt"]
    weights_of(tmp_path)
    train(model, checkpoints=tmp_path, checkpoint_every=2)  # goes on from there
    assert model.history["train_loss"].index.tolist() == [0, 1]


def test_weights_that_a_step_has_ruined_do_not_replace_a_good_state(model, tmp_path):
    with pytest.raises(FloatingPointError, match="Epoch 1, step 6: weights are no longer finite, those of network"):
        train(model, callbacks=[Ruin(1, "gradient")], checkpoints=tmp_path, checkpoint_every=2, gradient_clip_val=None)
    assert [path.name for path in tmp_path.iterdir()] == ["step=4.ckpt"]
    weights_of(tmp_path)


def test_the_very_last_step_is_looked_at_too(model):
    with pytest.raises(FloatingPointError, match="weights are no longer finite"):
        train(model, callbacks=[Ruin(3, "gradient")], train_size=0.9, validation_size=0.0)


def test_validation_is_named(model):
    class Ruined(Callback):
        def on_validation_start(self, trainer, module):
            with torch.no_grad():
                module.module.network.gep.value[0].bias[0] = torch.nan

    with pytest.raises(FloatingPointError, match="Epoch 0, step 4, validation: Objective gep is not finite"):
        train(model, callbacks=[Ruined()])
