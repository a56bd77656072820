import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import anndata
import numpy as np
import pytest
import torch
from lightning.pytorch import Callback
from lightning.pytorch.utilities import rank_zero_only
from safetensors.torch import load_file

import scgpt
from scgpt import hub
from scgpt.cli import main
from scgpt.corpus import build
from scgpt.data import GeneVocab
from scgpt.model import SCGPT
from scgpt.pretraining import pretrain

GENES = [f"G{i}" for i in range(40)]
pytestmark = pytest.mark.filterwarnings("ignore:.*does not have many workers", "ignore:`weights_only` was not set")


def weights(run: Path) -> dict[str, torch.Tensor]:
    return load_file(run / "model" / "model.safetensors")


def quiet(settings, *callbacks) -> Path:
    return pretrain(settings, callbacks=callbacks, progress_bar=False)


class Cells(Callback):
    """Writes down which cells each batch has, and kills the process after one."""

    def __init__(self, path: Path | None = None, kill_after: int | None = None):
        self.path, self.kill_after, self.seen = path, kill_after, {}

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        number = trainer.current_epoch * trainer.num_training_batches + batch_idx
        self.seen[number] = batch.cell_index.tolist()
        if self.path is not None:
            with self.path.open("a") as file:
                file.write(json.dumps([number, batch.cell_index.tolist()]) + "\n")
        if number == self.kill_after:
            os.kill(os.getpid(), signal.SIGKILL)


def test_a_run_leaves_a_model_a_state_its_settings_and_a_log(settings, corpus, tmp_path, log_of):
    folder = quiet(settings())
    assert folder == tmp_path / "run" / "model"
    assert [path.name for path in (tmp_path / "run" / "states").iterdir()] == ["step=16.ckpt"]

    log = log_of(tmp_path / "run")
    steps = [line for line in log if "train_loss" in line]
    assert [line["step"] for line in steps] == list(range(1, 17))
    assert {"gen_train", "gen_gene_prompt_train", "tokens_per_s", "cells_per_s", "loader_wait", "lr"} <= set(steps[0])
    assert "gen_cell_prompt_train" not in steps[3] and "gen_cell_prompt_train" in steps[4]
    assert steps[0]["lr"] == pytest.approx(2 * 1e-3 / 4)  # that of the next step
    validated = [line for line in log if "validation_loss" in line]
    assert [line["step"] for line in validated] == [6, 12, 16]
    assert validated[-1]["gen_gepc_validation"] < validated[0]["gen_gepc_validation"]

    model = SCGPT.from_pretrained(folder)
    assert model.vocab == corpus.vocab
    assert model.tokenizer.ties == "middle"
    assert model.extras["pretraining_steps"] == 16
    cells = anndata.AnnData(np.eye(3, 40, dtype=np.float32) + 1)
    cells.var_names = GENES
    embedding = model.get_latent_representation(cells, progress_bar=False)
    assert embedding.shape == (3, 8) and np.isfinite(embedding).all()


def test_a_finished_run_is_left_as_it_is_and_one_of_other_settings_is_refused(settings, tmp_path, log_of):
    quiet(settings(max_steps=3))
    before, log = weights(tmp_path / "run"), log_of(tmp_path / "run")
    quiet(settings(max_steps=3, log_every=2))
    assert log_of(tmp_path / "run") == log
    assert all(torch.equal(before[name], tensor) for name, tensor in weights(tmp_path / "run").items())
    with pytest.raises(ValueError, match="state of another training: lr differ"):
        quiet(settings(max_steps=3, lr=1e-4))


def test_steps_are_those_of_the_optimiser_where_batches_are_accumulated(settings, tmp_path, log_of):
    quiet(settings(accumulate=2, max_steps=4))
    assert [line["step"] for line in log_of(tmp_path / "run") if "train_loss" in line] == [1, 2, 3, 4]


def test_masked_prediction_is_a_mode_too(settings, tmp_path, log_of):
    folder = quiet(settings(objectives={"gep": 1, "gepc": 1, "zero": 10}, max_steps=2))
    config = SCGPT.from_pretrained(folder).module.network.config
    assert (config.n_flags, config.zero) == (0, True)
    assert {"gep_train", "zero_train"} <= set(log_of(tmp_path / "run")[0])


def test_a_checkpoint_is_gone_on_from_and_learns_new_genes(settings, corpus, tmp_path):
    few = GeneVocab.from_genes(GENES[:25])
    start = SCGPT.from_pretrained(quiet(settings(max_steps=2, out=str(tmp_path / "first"))))
    checkpoint = hub.read_checkpoint(tmp_path / "first" / "model")
    old = {name: tensor for name, tensor in checkpoint.state_dict.items() if not name.startswith("flags")}
    rows = [start.vocab[token] for token in few]
    old["genes.embedding.weight"] = old["genes.embedding.weight"][rows]
    config = checkpoint.config.changed(n_tokens=len(few), n_flags=0)
    tokenizer = type(checkpoint.tokenizer)(few)
    smaller = hub.Checkpoint(config, old, tokenizer, checkpoint.report)
    hub.write_checkpoint(smaller, tmp_path / "small")

    given = {"model": str(tmp_path / "small"), "network": {}, "max_steps": 1, "lr": 1e-9}
    kept = SCGPT.from_pretrained(quiet(settings(**given)))
    assert kept.vocab == few
    grown = SCGPT.from_pretrained(quiet(settings(**given, grow_vocabulary=True, out=str(tmp_path / "grown"))))
    assert grown.vocab.tokens[: len(few)] == few.tokens
    assert set(grown.vocab.genes) == set(GENES)
    embedding = grown.module.network.genes.embedding.weight
    torch.testing.assert_close(embedding[: len(few)], old["genes.embedding.weight"])
    assert 0.01 < embedding[len(few) :].std() < 0.03
    assert grown.module.network.config.n_flags == 2  # generative attention needs the embedding of unknown genes


def test_what_cannot_be_run_is_said_before_it_starts(settings, corpus, tmp_path, write_cells):
    with pytest.raises(ValueError, match="batch_size=32 cannot be divided among 3 processes.* multiple of 3"):
        quiet(settings(devices=3, strategy="ddp"))
    with pytest.raises(ValueError, match="no network settings|Unknown network settings"):
        quiet(settings(network={"width": 3}))
    with pytest.raises(ValueError, match="too few for batches of 1000"):
        quiet(settings(batch_size=1000))
    with pytest.raises(FileNotFoundError, match="There is no corpus"):
        quiet(settings(corpus=str(tmp_path / "nowhere")))
    other = build([write_cells("other.h5ad", [f"X{i}" for i in range(40)])], tmp_path / "o.zarr", min_genes=1)
    model = quiet(settings(corpus=str(corpus.path), max_steps=1))
    with pytest.raises(ValueError, match="No gene of the corpus"):
        quiet(settings(corpus=str(other.path), model=str(model), network={}, out=str(tmp_path / "more")))


def test_a_folder_that_holds_something_else_is_left_alone(settings, tmp_path):
    notes = tmp_path / "run" / "model" / "notes.txt"
    notes.parent.mkdir(parents=True)
    notes.write_text("mine")
    with pytest.raises(FileExistsError, match="holds other files"):
        quiet(settings())
    assert notes.read_text() == "mine"


def test_a_corpus_that_holds_nothing_out_is_warned_of(settings, tmp_path, write_cells):
    corpus = build([write_cells("one.h5ad", GENES)], tmp_path / "one.zarr", min_genes=1)
    with pytest.warns(UserWarning, match="holds no cells out"):
        quiet(settings(corpus=str(corpus.path), max_steps=1))


@pytest.fixture
def write_cells(tmp_path):
    def write(name: str, genes: list[str]) -> Path:
        counts = np.random.default_rng(0).poisson(2, (64, len(genes))).astype(np.float32)
        adata = anndata.AnnData(counts)
        adata.var_names = genes
        adata.write_h5ad(tmp_path / name)
        return tmp_path / name

    return write


RUN = """
import runpy, sys
from pathlib import Path
from scgpt.pretraining import PretrainingConfig, pretrain
settings = PretrainingConfig.from_yaml(sys.argv[1])
cells = runpy.run_path(sys.argv[3])["Cells"](Path(settings.out + ".cells"), int(sys.argv[2]) or None)
pretrain(settings, callbacks=[cells], progress_bar=False)
"""


def in_process(settings, path: Path, kill_after: int = 0) -> subprocess.CompletedProcess:
    path.write_text(settings.to_yaml())
    script = path.with_suffix(".py")  # Lightning starts it again for further processes
    script.write_text(RUN)
    environment = os.environ | {"PYTHONPATH": str(Path(scgpt.__file__).parents[1]), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(script), str(path), str(kill_after), __file__]
    return subprocess.run(command, env=environment, capture_output=True, text=True)


@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_validation_that_was_cut_off_is_made_up_for(settings, tmp_path, accumulate, log_of):
    class Fail(Callback):
        def on_validation_start(self, trainer, pl_module):
            if trainer.global_step == 5:  # where a state is due, too
                raise RuntimeError

    changes = {"accumulate": accumulate, "validate_every": 5}
    quiet(settings(**changes, out=str(tmp_path / "whole")))
    with pytest.raises(RuntimeError):
        quiet(settings(**changes), Fail())
    assert not list((tmp_path / "run").glob("states/*"))  # a state would be gone on from without the validation
    quiet(settings(**changes))
    log = tmp_path / "run" / "log.jsonl"
    log.write_text(log.read_text()[:-20])  # killed while it wrote of the last one
    quiet(settings(**changes))
    validated = [[line for line in log_of(tmp_path / run) if "validation_loss" in line] for run in ("run", "whole")]
    assert [line["step"] for line in validated[0]] == [5, 10, 15, 16]
    losses = [[line["validation_loss"] for line in lines] for lines in validated]
    assert losses[0] == losses[1]


@pytest.mark.slow
@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_run_that_is_killed_ends_as_one_that_was_not(settings, tmp_path, accumulate, log_of):
    changes = {"network": {"dropout": 0.2, **settings().network}, "accumulate": accumulate}
    undisturbed = Cells()
    quiet(settings(**changes, out=str(tmp_path / "whole")), undisturbed)
    killed = settings(**changes)
    for number in (2, 6, 13):  # before the first state, after it, and in the second epoch, if each has one batch a step
        done = in_process(killed, tmp_path / "p.yaml", kill_after=number)
        assert done.returncode == -signal.SIGKILL, done.stderr
    assert in_process(killed, tmp_path / "p.yaml").returncode == 0

    whole, again = weights(tmp_path / "whole"), weights(tmp_path / "run")
    assert all(torch.equal(whole[name], again[name]) for name in whole)
    seen = [json.loads(line) for line in (tmp_path / "run.cells").read_text().splitlines()]
    assert {number for number, _ in seen} == set(range(16 * accumulate))
    assert all(cells == undisturbed.seen[number] for number, cells in seen)

    def losses(run: Path) -> list[tuple]:
        return [(line["step"], line["train_loss"]) for line in log_of(run) if "train_loss" in line]

    assert losses(tmp_path / "run") == losses(tmp_path / "whole")
    assert len(losses(tmp_path / "run")) == 16


def test_batches_that_do_not_fit_are_trained_on_in_parts(settings, tmp_path, short_of_memory):
    quiet(settings(out=str(tmp_path / "whole")))
    short_of_memory(600)
    with pytest.warns(UserWarning, match="Memory did not suffice for 32 cells .*accumulate=2 alone"):
        quiet(settings())
    for name, tensor in weights(tmp_path / "whole").items():
        torch.testing.assert_close(weights(tmp_path / "run")[name], tensor, atol=2e-4, rtol=1e-3)


def test_the_command_prints_the_folder_of_the_model_and_nothing_else(settings, tmp_path, capfd):
    (tmp_path / "p.yaml").write_text(settings(max_steps=2).to_yaml())
    assert main(["pretrain", "--config", str(tmp_path / "p.yaml")]) == 0
    assert capfd.readouterr().out == f"{tmp_path / 'run' / 'model'}\n"


@pytest.mark.parametrize(("rank", "shown"), [(0, "folder\n"), (1, "")])
def test_of_several_processes_one_prints(settings, tmp_path, capsys, monkeypatch, rank, shown):
    (tmp_path / "p.yaml").write_text(settings().to_yaml())
    monkeypatch.setattr("scgpt.pretraining.pretrain", lambda *_, **__: Path("folder"))
    monkeypatch.setattr(rank_zero_only, "rank", rank, raising=False)
    assert main(["pretrain", "--config", str(tmp_path / "p.yaml")]) == 0
    assert capsys.readouterr().out == shown


@pytest.mark.slow
@pytest.mark.parametrize("accumulate", [1, 2])
def test_two_processes_train_as_one(settings, tmp_path, accumulate, log_of):
    quiet(settings(accumulate=accumulate, out=str(tmp_path / "one")))
    two = settings(accumulate=accumulate, devices=2, strategy="ddp")
    done = in_process(two, tmp_path / "p.yaml")
    assert done.returncode == 0, done.stderr
    one, two = log_of(tmp_path / "one"), log_of(tmp_path / "run")
    assert [line["step"] for line in one] == [line["step"] for line in two]
    assert len(one) == 16 + 3
    for a, b in zip(one, two, strict=True):
        losses = {name for name in a if name.endswith(("_train", "_loss", "_validation"))}
        assert {name: a[name] for name in losses} == pytest.approx({name: b[name] for name in losses}, rel=2e-5)
    one, two = weights(tmp_path / "one"), weights(tmp_path / "run")
    for name, tensor in one.items():
        torch.testing.assert_close(two[name], tensor, atol=2e-4, rtol=1e-3)
