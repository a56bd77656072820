"""Training that was killed goes on to the weights of training that was not."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import anndata
import pandas as pd
import pytest
import torch
from lightning.pytorch.callbacks import Callback

from scgpt.model import SCGPT
from scgpt.train import latest_checkpoint

EPOCHS, BATCH_SIZE = 3, 16
STEPS_AN_EPOCH = 7  # of 108 training cells


VARIANTS = {
    "plain": {},
    "accumulation": {"accumulate_grad_batches": 2},
    "freezing": {"freeze": ["embeddings", "layers.0.attention"]},
    "lora": {"lora": {"rank": 2, "dropout": 0.1}},
    "generative": {"objectives": {"gen": {"warmup_steps": 9}}},  # within the second epoch
}


class Steps(Callback):
    """Writes down the loss and the cells of each batch, and kills the process before one, or raises an error."""

    def __init__(self, log: Path, kill_at: int | None = None, how: str = "kill"):
        self.file, self.kill_at, self.how, self.n = log, kill_at, how, None

    def on_train_batch_start(self, trainer, module, batch, batch_idx):
        self.n = trainer.current_epoch * STEPS_AN_EPOCH + batch_idx
        if self.n == self.kill_at and self.how == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if self.n == self.kill_at:
            raise RuntimeError("the cluster is down")

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        with self.file.open("a") as file:
            file.write(f"{self.n} {outputs['loss'].item()!r} {batch.cell_index.tolist()}\n")


def train(
    data: Path,
    folder: Path | None,
    log: Path,
    kill_at: int | None = None,
    every: int = 2,
    variant: str = "plain",
    how: str = "kill",
) -> SCGPT:
    adata = anndata.read_h5ad(data)
    SCGPT.setup_anndata(adata)
    model = SCGPT(adata, d_model=8, n_layers=1, n_heads=2, dropout=0.1, n_flags=2 if variant == "generative" else 0)
    model.is_trained_ = True  # adapters are for weights that were trained
    model.train(
        EPOCHS,
        batch_size=BATCH_SIZE,
        checkpoints=folder,
        checkpoint_every=every,
        seed=5,
        ties="spread",
        enable_progress_bar=False,
        callbacks=[Steps(log, kill_at, how)],
        plan_kwargs={"schedule": "cosine", "warmup_steps": 3, "weight_decay": 0.01},
        **VARIANTS[variant],
    )
    return model


def killed(data: Path, folder: Path, log: Path, kill_at: int, every: int, variant: str = "plain") -> None:
    """Train in a process of its own that is killed."""
    code = (
        "import sys; from pathlib import Path; from importlib.util import module_from_spec, spec_from_file_location;"
        "spec = spec_from_file_location('this', sys.argv[1]); this = module_from_spec(spec);"
        "spec.loader.exec_module(this);"
        "this.train(*map(Path, sys.argv[2:5]), kill_at=int(sys.argv[5]), every=int(sys.argv[6]), variant=sys.argv[7])"
    )
    arguments = [__file__, data, folder, log, kill_at, every, variant]
    process = subprocess.run([sys.executable, "-c", code, *map(str, arguments)], capture_output=True, text=True)
    assert process.returncode == -signal.SIGKILL, process.stderr


def steps_of(log: Path) -> dict[str, str]:
    """Loss and cells of each batch; one that was seen again counts as it was seen last."""
    return dict(line.split(" ", 1) for line in log.read_text().splitlines())


@pytest.fixture(scope="module")
def data(_counts, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("data") / "cells.h5ad"
    _counts.copy().write_h5ad(path)
    return path


@pytest.fixture(scope="module")
def undisturbed(data, tmp_path_factory) -> tuple[SCGPT, dict[str, str]]:
    log = tmp_path_factory.mktemp("undisturbed") / "steps"
    return train(data, None, log), steps_of(log)


def assert_same_as_undisturbed(model: SCGPT, log: Path, undisturbed: tuple[SCGPT, dict[str, str]]) -> None:
    expected, steps = undisturbed
    assert steps_of(log) == steps
    assert len(steps) == EPOCHS * STEPS_AN_EPOCH
    weights, expected_weights = model.module.state_dict(), expected.module.state_dict()
    assert weights.keys() == expected_weights.keys()
    assert all(torch.equal(weights[name], tensor) for name, tensor in expected_weights.items())
    assert_same_history(model, expected)


def assert_same_history(model: SCGPT, expected: SCGPT) -> None:
    assert model.history.keys() == expected.history.keys()
    for name, frame in expected.history.items():
        late = name == "gen_cell_prompt_train"
        assert frame.index.tolist() == list(range(late, EPOCHS))
        pd.testing.assert_frame_equal(model.history[name], frame, check_exact=True)


def test_killed_in_the_middle_of_an_epoch(data, undisturbed, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder, log = tmp_path / "checkpoints", tmp_path / "steps"
    killed(data, folder, log, kill_at=11, every=2)
    assert [p.name for p in folder.iterdir()] == ["step=10.ckpt"]
    assert_same_as_undisturbed(train(data, folder, log), log, undisturbed)
    assert {p.name for p in tmp_path.iterdir()} == {"checkpoints", "steps"}  # scvi-tools left no log of its own


@pytest.fixture(scope="module", params=list(VARIANTS))
def variant(data, tmp_path_factory, request) -> tuple[str, SCGPT, dict[str, str]]:
    log = tmp_path_factory.mktemp(request.param) / "steps"
    return request.param, train(data, None, log, variant=request.param), steps_of(log)


@pytest.mark.parametrize("fail_at", [10, 14])
def test_a_training_that_failed_goes_on(data, variant, tmp_path, fail_at):
    """Where batches are accumulated, the first fails between the two of a step; the second at an epoch's beginning."""
    name, *undisturbed = variant
    folder, log = tmp_path / "checkpoints", tmp_path / "steps"
    for at in (5, fail_at):  # twice, so that states of a training that was continued are read, too
        with pytest.raises(RuntimeError, match="cluster"):
            train(data, folder, log, kill_at=at, every=1, variant=name, how="raise")
    assert_same_as_undisturbed(train(data, folder, log, every=1, variant=name), log, undisturbed)


@pytest.mark.slow
@pytest.mark.parametrize("kill_at", [9, 12])
def test_killed_in_each_variant(data, variant, tmp_path, kill_at):
    name, *undisturbed = variant
    folder, log = tmp_path / "checkpoints", tmp_path / "steps"
    killed(data, folder, log, kill_at=kill_at, every=1, variant=name)
    assert_same_as_undisturbed(train(data, folder, log, every=1, variant=name), log, undisturbed)


@pytest.mark.slow
@pytest.mark.parametrize("kill_at", [1, 6, 7, 8, 13, 14, 15, 20])
def test_killed_anywhere(data, undisturbed, tmp_path, kill_at):
    """Around the ends of epochs too, with a checkpoint after every step, and before the first checkpoint."""
    folder, log = tmp_path / "checkpoints", tmp_path / "steps"
    killed(data, folder, log, kill_at=kill_at, every=1)
    assert_same_as_undisturbed(train(data, folder, log, every=1), log, undisturbed)


@pytest.mark.slow
def test_killed_twice(data, undisturbed, tmp_path):
    folder, log = tmp_path / "checkpoints", tmp_path / "steps"
    killed(data, folder, log, kill_at=5, every=2)
    killed(data, folder, log, kill_at=16, every=2)
    assert_same_as_undisturbed(train(data, folder, log), log, undisturbed)


def test_two_runs_are_bit_identical(data, undisturbed, tmp_path):
    assert_same_as_undisturbed(train(data, None, tmp_path / "steps"), tmp_path / "steps", undisturbed)


def test_a_finished_training_is_not_done_again(data, undisturbed, tmp_path):
    folder = tmp_path / "checkpoints"
    train(data, folder, tmp_path / "first", every=STEPS_AN_EPOCH)
    again = train(data, folder, tmp_path / "second", every=STEPS_AN_EPOCH)
    assert not (tmp_path / "second").exists()
    assert_same_history(again, undisturbed[0])
    expected = undisturbed[0].module.state_dict()
    assert all(torch.equal(expected[name], tensor) for name, tensor in again.module.state_dict().items())


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"lr": 0.5}, "lr"),
        ({"objectives": ["gep"]}, "objectives"),
        ({"ties": "middle"}, "tokenizer"),
        ({"batch_size": 8}, "batch_size"),
        ({"seed": 1}, "seed"),
        ({"train_size": 0.8}, "cells"),
        ({"plan_kwargs": {"weight_decay": 0.1}}, "weight_decay"),
        ({"freeze": ["genes"]}, "freeze"),
        ({"accumulate_grad_batches": 2}, "accumulate_grad_batches"),
    ],
)
def test_the_state_of_another_training_is_refused(counts, tmp_path, change, named):
    settings = {"checkpoints": tmp_path, "checkpoint_every": 2, "ties": "spread", "enable_progress_bar": False}

    def fresh_model(d_model=8):
        SCGPT.setup_anndata(counts)
        return SCGPT(counts, d_model=d_model, n_layers=1, n_heads=2)

    fresh_model().train(1, **settings)
    with pytest.raises(ValueError, match=rf"state of another training: .*\b{named}\b.* differ"):
        fresh_model().train(1, **settings | change)
    with pytest.raises(ValueError, match="state of another training: network differ"):
        fresh_model(d_model=16).train(1, **settings)


def test_half_written_checkpoints_are_passed_over(tmp_path, caplog):
    torch.save({"a": torch.zeros(3)}, tmp_path / "step=1.ckpt")
    whole = (tmp_path / "step=1.ckpt").read_bytes()
    (tmp_path / "step=2.ckpt").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "step=3.ckpt").write_bytes(b"")
    assert latest_checkpoint(tmp_path) == tmp_path / "step=1.ckpt"
    assert "step=2.ckpt is incomplete" in caplog.text
    assert latest_checkpoint(tmp_path / "nowhere") is None


def test_a_checkpoint_that_would_execute_code_is_not_read(tmp_path):
    class Touch:
        def __reduce__(self):
            return os.system, (f"touch {tmp_path / 'executed'}",)

    torch.save({"a": Touch()}, tmp_path / "step=1.ckpt")
    assert latest_checkpoint(tmp_path) is None
    assert not (tmp_path / "executed").exists()
