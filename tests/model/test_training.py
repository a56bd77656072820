import os
import signal
from collections.abc import Iterator
from dataclasses import replace

import anndata
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import torch
from lightning.pytorch.callbacks import Callback
from scvi.train import SaveCheckpoint

from scgpt.model import SCGPT

TINY = {"d_model": 8, "n_layers": 1, "n_heads": 2}


def embed(model, adata):
    return model.get_latent_representation(adata, progress_bar=False)


def test_training_lowers_the_loss_of_cells_it_never_saw(counts):
    """Below the loss of the best constant, the variance of the hidden bins, as no untrained network is."""
    SCGPT.setup_anndata(counts)
    model = SCGPT(counts, d_model=16, n_layers=1, n_heads=2, dropout=0.0)
    state = torch.random.get_rng_state()
    model.train(40, lr=3e-3, batch_size=8, train_size=0.8, enable_progress_bar=False)
    assert torch.equal(state, torch.random.get_rng_state())
    held_out = model.history["gep_validation"]["gep_validation"].astype(float)
    assert model.is_trained
    assert held_out.iloc[-1] < 0.5 * held_out.iloc[0]
    assert len(model.train_indices) == 96
    assert set(model.train_indices).isdisjoint(model.validation_indices)


def test_which_genes_are_expressed_can_be_learnt_from_cells_without_zeros(counts):
    SCGPT.setup_anndata(counts)
    model = SCGPT(counts, d_model=16, n_layers=1, n_heads=2, dropout=0.0, zero=True)
    model.train(20, lr=3e-3, batch_size=8, train_size=0.8, objectives={"zero": 1}, enable_progress_bar=False)
    expressed = counts.X.toarray() > 0
    held_out, trained = expressed[model.validation_indices], expressed[model.train_indices].mean(0).clip(0.01, 0.99)
    by_gene = -np.where(held_out, np.log(trained), np.log(1 - trained)).mean()
    assert float(model.history["zero_validation"]["zero_validation"].iloc[-1]) < 0.95 * by_gene


def test_bins_can_be_predicted_by_cross_entropy(counts, tmp_path):
    """Better than by how often each bin is seen."""
    SCGPT.setup_anndata(counts)
    model = SCGPT(counts, d_model=16, n_layers=1, n_heads=2, n_bins=6, gep_bins=6, dropout=0.0)
    model.train(20, lr=3e-3, batch_size=8, train_size=0.8, objectives=["gep"], enable_progress_bar=False)
    held_out = np.concatenate([b.targets[b.predict] for b in model.trainer.datamodule.val_dataloader()]).astype(int)
    share = np.bincount(held_out, minlength=6) / len(held_out)
    of_shares = -(share[share > 0] * np.log(share[share > 0])).sum()
    assert float(model.history["gep_validation"]["gep_validation"].iloc[-1]) < 0.9 * of_shares
    model.save(tmp_path / "model")
    assert np.array_equal(embed(SCGPT.load(tmp_path / "model"), counts), embed(model, counts))


def test_a_checkpoint_that_predicts_values_can_be_taught_bins(golden, rng):
    cells = anndata.AnnData(
        sp.csr_matrix(rng.poisson(1.0, (40, 50)).astype(np.float32)),
        var=pd.DataFrame(index=[f"G{i:04d}" for i in range(50)]),
    )
    SCGPT.setup_anndata(cells)
    with pytest.raises(ValueError, match=r"gep.value.4.weight \(1, 64\) instead of \(51, 64\).*fresh=\['gep'\]"):
        SCGPT.from_pretrained(golden / "checkpoint", cells, gep_bins=51)
    model = SCGPT.from_pretrained(golden / "checkpoint", cells, fresh=["gep"], gep_bins=51)
    model.train(1, objectives=["gep"], enable_progress_bar=False)
    # Of random weights, about that of a uniform choice.
    assert float(model.history["gep_train"]["gep_train"].iloc[0]) == pytest.approx(np.log(51), rel=0.1)


def test_training_goes_on_from_a_checkpoint(golden, rng):
    cells = anndata.AnnData(
        sp.csr_matrix(rng.poisson(1.0, (40, 50)).astype(np.float32)),
        var=pd.DataFrame(index=[f"G{i:04d}" for i in range(50)]),
    )
    SCGPT.setup_anndata(cells)
    model = SCGPT.from_pretrained(golden / "checkpoint", cells)
    before = {name: tensor.clone() for name, tensor in model.module.state_dict().items()}
    model.train(1, enable_progress_bar=False)
    after = model.module.state_dict()
    assert any(not torch.equal(before[name], after[name]) for name in before)
    # Embeddings of genes that the data did not measure have no gradient, and no decay moves them.
    rows = "network.genes.embedding.weight"
    assert torch.equal(before[rows][50:200], after[rows][50:200])


def test_a_second_setup_does_not_change_the_labels_of_the_first_model(counts):
    SCGPT.setup_anndata(counts, batch_key="batch")
    model = SCGPT(counts, **TINY, adversary=True)
    counts.obs["donor"] = [f"d{i % 5}" for i in range(counts.n_obs)]
    SCGPT.setup_anndata(counts, batch_key="donor")
    expected = (counts.obs["batch"] == "b").to_numpy()
    assert np.array_equal(model._registered_cells().batch_labels, expected)


def test_history_grows_when_a_loaded_model_trains_on(counts, tmp_path):
    SCGPT.setup_anndata(counts)
    model = SCGPT(counts, **TINY)
    model.train(2, enable_progress_bar=False)
    model.train(1, seed=1, objectives=["gep"], enable_progress_bar=False)
    assert model.history["train_loss"].index.tolist() == [0, 1, 2]
    assert len(model.history["gepc_train"]) == 2
    model.save(tmp_path / "model")
    loaded = SCGPT.load(tmp_path / "model", counts)
    loaded.train(2, enable_progress_bar=False)
    assert len(loaded.history["train_loss"]) == 2


def test_history_is_in_the_form_of_scvi_tools(counts):
    SCGPT.setup_anndata(counts)
    model = SCGPT(counts, **TINY)
    model.train(2, enable_progress_bar=False)
    assert set(model.history) == {
        f"{name}_{mode}" if name in ("gep", "gepc") else f"{mode}_{name}"
        for name in ("gep", "gepc", "loss")
        for mode in ("train", "validation")
    }
    for name, frame in model.history.items():
        assert isinstance(frame, pd.DataFrame)
        assert (frame.index.name, frame.index.tolist(), frame.columns.tolist()) == ("epoch", [0, 1], [name])
        assert frame[name].map(type).eq(float).all()


def test_early_stopping_stops_and_history_has_all_epochs(counts):
    SCGPT.setup_anndata(counts)
    model = SCGPT(counts, **TINY)
    settings = {"early_stopping_patience": 2, "early_stopping_min_delta": 1e9, "enable_progress_bar": False}
    model.train(20, early_stopping=True, **settings)
    assert {len(frame) for frame in model.history.values()} == {3}
    assert model.is_trained


def test_a_training_that_stopped_early_is_over(counts, tmp_path):
    settings = {"early_stopping_patience": 1, "early_stopping_min_delta": 1e9, "enable_progress_bar": False}
    for _ in range(2):
        SCGPT.setup_anndata(counts)
        model = SCGPT(counts, **TINY)
        model.train(20, early_stopping=True, checkpoints=tmp_path, checkpoint_every=1, **settings)
        assert model.history["train_loss"].index.tolist() == [0, 1]


def test_history_is_whole_where_a_training_goes_on_in_the_same_model(counts, tmp_path):
    class Fail(Callback):
        def on_train_epoch_start(self, trainer, module):
            if trainer.current_epoch == 1:
                raise RuntimeError

    SCGPT.setup_anndata(counts)
    model = SCGPT(counts, **TINY)
    settings = {"checkpoints": tmp_path, "checkpoint_every": 1, "enable_progress_bar": False}
    with pytest.raises(RuntimeError):
        model.train(3, callbacks=[Fail()], **settings)
    assert model.history["train_loss"].index.tolist() == [0]
    for _ in range(2):
        model.train(3, **settings)
        assert model.history["train_loss"].index.tolist() == [0, 1, 2]


def test_an_interrupt_by_hand_comes_through_and_can_be_repeated(counts):
    class Interrupt(Callback):
        def on_train_batch_start(self, *args):
            raise KeyboardInterrupt

    SCGPT.setup_anndata(counts)
    model = SCGPT(counts, **TINY)
    handler = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        model.train(1, callbacks=[Interrupt()], enable_progress_bar=False)
    assert signal.getsignal(signal.SIGINT) == handler


@pytest.fixture
def hears_interrupts() -> Iterator[None]:
    """Ctrl-C raises, as at a terminal: shells let what they run in the background ignore it."""
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, handler)


@pytest.mark.usefixtures("hears_interrupts")
@pytest.mark.parametrize("how", ["plain", "lora", "checkpoint"])
def test_after_an_interrupt_the_model_is_used_saved_and_trained_to_the_end(counts, golden, tmp_path, how):
    class Interrupt(Callback):
        def on_train_batch_end(self, trainer, *args):
            if trainer.global_step == 5:
                os.kill(os.getpid(), signal.SIGINT)  # as Ctrl-C in a notebook

    def new() -> SCGPT:
        if how == "plain":
            return SCGPT(counts, **TINY)
        return SCGPT.from_pretrained(pretrained, counts)

    SCGPT.setup_anndata(counts)
    pretrained = SCGPT(counts, **TINY).to_checkpoint()
    settings = {"checkpoint_every": 2, "seed": 1, "enable_progress_bar": False, "lora": 2 if how == "lora" else None}
    expected = new()
    expected.train(2, **settings)
    model = new()
    before = embed(new(), counts)
    with pytest.raises(KeyboardInterrupt):
        model.train(2, callbacks=[Interrupt()], checkpoints=tmp_path / "states", **settings)
    assert model.is_trained and not model.module.training
    assert model.history["train_loss"].index.tolist() == [0]
    learnt = embed(model, counts)
    assert np.isfinite(learnt).all() and not np.array_equal(learnt, before)
    assert model.extras["mask_share"] == 0.4
    if how != "plain":
        assert model.load_report == expected.load_report  # no longer that of the file
    model.save(tmp_path / "model")
    assert np.array_equal(embed(SCGPT.load(tmp_path / "model", counts), counts), learnt)

    again = new()
    again.train(2, checkpoints=tmp_path / "states", **settings)
    assert np.array_equal(embed(again, counts), embed(expected, counts))
    pd.testing.assert_frame_equal(again.history["train_loss"], expected.history["train_loss"])


def test_states_do_not_pile_up_where_a_training_goes_on(counts, tmp_path):
    class Fail(Callback):
        def __init__(self, at):
            self.at = at

        def on_train_batch_start(self, trainer, *args):
            if trainer.global_step == self.at:
                raise RuntimeError

    SCGPT.setup_anndata(counts)
    (tmp_path / ".step=1.ckpt.part").write_bytes(b"of a process that was killed")
    (tmp_path / "best.ckpt.txt").write_text("of the user")
    for at in (3, 6):
        with pytest.raises(RuntimeError):
            SCGPT(counts, **TINY).train(
                2, checkpoints=tmp_path, checkpoint_every=1, callbacks=[Fail(at)], enable_progress_bar=False
            )
        assert {path.name for path in tmp_path.iterdir()} == {f"step={at}.ckpt", "best.ckpt.txt"}


def test_objectives_are_those_of_the_call(counts):
    SCGPT.setup_anndata(counts)
    model = SCGPT(counts, **TINY)
    with pytest.raises(ValueError, match="'cls' needs head"):
        model.train(1, objectives=["cls"])
    model.train(1, objectives=["ecs"], enable_progress_bar=False)
    model.train(1, enable_progress_bar=False)
    assert [o.name for o in model.module.objectives] == ["gep", "gepc"]


@pytest.mark.parametrize(
    ("network", "training"),
    [
        ({}, {"precision": "bf16-mixed"}),
        ({}, {"accumulate_grad_batches": 2, "plan_kwargs": {"lr": 0.01}}),
        ({"value_encoder": "categorical"}, {}),
        (
            {"norm": "pre", "pooling": "mean", "include_zeros": True, "zero": True},
            {"objectives": ["gep", "gepc", "zero"]},
        ),
        ({"adversary": True, "batch_embedding": True, "n_classes": 3}, {"objectives": ["gep", "dar", "cls", "ecs"]}),
        ({"input_norm": "batch"}, {"early_stopping": True}),
        ({"n_flags": 2}, {"objectives": ["gen"], "mask_share": 0.3}),
        (
            {"n_flags": 2, "value_encoder": "categorical", "norm": "pre", "pooling": "weighted", "gep_bins": 51},
            {"objectives": {"gen": {"warmup_steps": 0, "all_unknown": True}, "ecs": 1}, "precision": "bf16-mixed"},
        ),
        (
            {"n_flags": 2, "input_norm": "domain"},
            {"objectives": {"gen": {"warmup_steps": 3}}, "mask_share": [0.2, 0.8]},
        ),
    ],
)
def test_configurations_train(counts, network, training):
    SCGPT.setup_anndata(counts, batch_key="batch", labels_key="cell_type")
    model = SCGPT(counts, **TINY, **network)
    model.train(2, enable_progress_bar=False, **training)
    assert np.isfinite(model.history["train_loss"].to_numpy(float)).all()
    assert np.isfinite(embed(model, counts)).all()


class TestWrongInput:
    def test_a_network_of_another_size_than_the_data(self, counts):
        SCGPT.setup_anndata(counts, batch_key="batch", labels_key="cell_type")
        with pytest.raises(ValueError, match="2 classes and the data 3"):
            SCGPT(counts, **TINY, n_classes=2).train(objectives=["cls"])
        with pytest.raises(ValueError, match="3 batches and the data 2"):
            SCGPT(counts, **TINY, n_batches=3, batch_embedding=True).train()

    def test_several_devices_and_checkpoints_that_cannot_be_resumed(self, counts):
        SCGPT.setup_anndata(counts)
        model = SCGPT(counts, **TINY)
        with pytest.raises(ValueError, match="several devices"):
            model.train(devices=2)
        with pytest.raises(ValueError, match="checkpoints='folder'"):
            model.train(callbacks=[SaveCheckpoint(monitor="validation_loss")])

    def test_no_data(self, golden):
        with pytest.raises(ValueError, match="no data to train on"):
            SCGPT.from_pretrained(golden / "checkpoint").train()

    def test_objective_without_its_head(self, counts):
        SCGPT.setup_anndata(counts)
        model = SCGPT(counts, **TINY)
        with pytest.raises(ValueError, match="'cls' needs head 'cls'"):
            model.train(objectives=["gep", "cls"])

    def test_early_stopping_without_validation_cells(self, counts):
        SCGPT.setup_anndata(counts)
        model = SCGPT(counts, **TINY)
        with pytest.raises(ValueError, match="lower train_size"):
            model.train(1, early_stopping=True, train_size=1.0)

    def test_cross_entropy_over_bins_that_the_tokenizer_does_not_make(self, counts):
        SCGPT.setup_anndata(counts)
        with pytest.raises(ValueError, match="gep_bins=50 bins and the tokenizer makes n_bins=51"):
            SCGPT(counts, **TINY, gep_bins=50).train()
        model = SCGPT(counts, **TINY, gep_bins=51)
        model.tokenizer = replace(model.tokenizer, n_bins=None)
        with pytest.raises(ValueError, match="n_bins=None: cross-entropy needs binned values"):
            model.train()


class TestGenerative:
    def test_every_part_falls_below_the_best_constant_of_each_gene(self, counts):
        """Its mean bin, which no untrained network knows, on cells that training never saw."""
        SCGPT.setup_anndata(counts)
        model = SCGPT(counts, d_model=16, n_layers=1, n_heads=2, dropout=0.0, n_flags=2)
        objectives = {"gen": {"warmup_steps": 100}}
        model.train(40, lr=3e-3, batch_size=8, train_size=0.8, objectives=objectives, enable_progress_bar=False)
        data = model.trainer.datamodule
        trained, asked = (
            pd.concat(pd.DataFrame({"gene": b.gene_ids[b.unknown], "bin": b.targets[b.unknown]}) for b in loader)
            for loader in (data.train_dataloader(), data.val_dataloader())
        )
        constants = asked["gene"].map(trained.groupby("gene")["bin"].mean()).fillna(trained["bin"].mean())
        constant = ((asked["bin"] - constants) ** 2).mean()
        for part in ("gen_gene_prompt", "gen_gepc", "gen_cell_prompt"):
            assert float(model.history[f"{part}_validation"].iloc[-1, 0]) < 0.97 * constant, part

    def test_how_genes_were_hidden_is_kept(self, counts, tmp_path):
        SCGPT.setup_anndata(counts)
        model = SCGPT(counts, **TINY, n_flags=2)
        model.train(1, objectives=["gen"], enable_progress_bar=False)
        model.save(tmp_path / "model")
        loaded = SCGPT.load(tmp_path / "model", counts)
        assert loaded.extras == {"mask_share": [0.25, 0.5, 0.75], "unknown": True, "drop_share": 0.0}
        assert np.array_equal(embed(loaded, counts), embed(model, counts))
        loaded.train(1, enable_progress_bar=False)
        assert loaded.extras == {"mask_share": 0.4, "unknown": False, "drop_share": 0.0}

    def test_a_query_of_a_generative_model_hides_genes_alike(self, counts):
        SCGPT.setup_anndata(counts, batch_key="batch")
        model = SCGPT(counts, **TINY, n_flags=2, input_norm="domain")
        model.train(1, objectives=["gen"], enable_progress_bar=False)
        renamed = counts.copy()
        renamed.obs["batch"] = [f"new {b}" for b in renamed.obs["batch"]]
        query = SCGPT.load_query_data(renamed, model)
        assert {batch.unknown is not None for batch in query._new_cells(2)} == {True}
        query.train(1, objectives=["gen"], enable_progress_bar=False)
        assert query.extras == model.extras

    def test_a_checkpoint_of_the_authors_goes_on_generatively(self, golden, rng):
        cells = anndata.AnnData(
            sp.csr_matrix(rng.poisson(1.0, (40, 50)).astype(np.float32)),
            var=pd.DataFrame(index=[f"G{i:04d}" for i in range(50)]),
        )
        SCGPT.setup_anndata(cells)
        with pytest.raises(ValueError, match=r"pass n_flags=2, and fresh=\['flags'\]"):
            SCGPT.from_pretrained(golden / "checkpoint", cells).train(1, objectives=["gen"])
        model = SCGPT.from_pretrained(golden / "checkpoint", cells, n_flags=2, fresh=["flags"])
        before = model.module.network.flags.weight.detach().clone()
        model.train(1, objectives=["gen"], enable_progress_bar=False)
        moved = (model.module.network.flags.weight != before).any(1)
        assert moved.tolist() == [False, True]

    @pytest.mark.parametrize(
        ("network", "objectives", "message"),
        [
            ({}, ["gen"], "pass n_flags=2"),
            ({"n_flags": 2, "gepc": False}, ["gen"], "'gen_gepc' needs head 'gepc'"),
            ({"n_flags": 2}, ["gen", "gep"], "holds what 'gep' and 'gepc' ask for"),
            ({"n_flags": 2}, {"gen": {"warmup": 3}}, "does not take"),
        ],
    )
    def test_what_does_not_fit_is_said(self, counts, network, objectives, message):
        SCGPT.setup_anndata(counts)
        with pytest.raises(ValueError, match=message):
            SCGPT(counts, **TINY, **network).train(1, objectives=objectives)
