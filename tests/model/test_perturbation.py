import shutil
import tracemalloc
from dataclasses import replace

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import torch
from lightning.pytorch.callbacks import Callback

from scgpt.data import TokenBatch
from scgpt.model import SCGPT, SCGPTPerturbation, _passes
from scgpt.model._base import BaseSCGPT
from scgpt.model._perturbation import FROM_SCRATCH

pytestmark = pytest.mark.usefixtures("auto_is_float32")

TINY = {"d_model": 16, "n_layers": 1, "n_heads": 2}
SHORT = {"batch_size": 32, "plan_kwargs": {"warmup_steps": 0}, "enable_progress_bar": False, "accelerator": "cpu"}


def set_up(adata, **kwargs) -> SCGPTPerturbation:
    network = {key: kwargs.pop(key) for key in list(kwargs) if key in ("max_length", "seed", "dropout", "norm")}
    SCGPTPerturbation.setup_anndata(adata, "perturbation", **kwargs)
    return SCGPTPerturbation(adata, **TINY, **network)


def trained(adata, max_epochs=1, **kwargs) -> SCGPTPerturbation:
    model = set_up(adata, **kwargs)
    model.train(max_epochs, lr=1e-2, seed=0, **SHORT)
    return model


def predict(model, *args, **kwargs) -> pd.DataFrame:
    return model.predict(*args, progress_bar=False, **kwargs)


def assert_equal(got, expected, atol=1e-5):
    pd.testing.assert_frame_equal(got, expected, rtol=0, atol=atol)


def mean_of(adata, name) -> pd.Series:
    rows = adata[adata.obs["perturbation"] == name].X
    return pd.Series(np.asarray(rows.mean(axis=0)).ravel(), index=adata.var_names)


def change_of(model, names, adata) -> pd.DataFrame:
    return predict(model, names) - mean_of(adata, "control")


RAISED = {"A": ["GENE0", "GENE1", "GENE2"], "B": ["GENE3", "GENE4", "GENE5"], "C": ["GENE6", "GENE7", "GENE8"]}


class TestPrediction:
    def test_right_genes_move_in_the_right_direction_and_perturbations_are_told_apart(
        self, perturbation_model, perturbed
    ):
        change = change_of(perturbation_model, [*"ABC", "A+B", "control"], perturbed)
        assert change.index.tolist() == ["A", "B", "C", "A+B", "control"]
        truth = pd.DataFrame(
            {name: mean_of(perturbed, name) - mean_of(perturbed, "control") for name in change.index}
        ).T
        for name, genes in RAISED.items():
            assert (change.loc[name, genes] > 0.4).all()  # of 2
            assert set(change.loc[name].nlargest(3).index) == set(genes)
            assert change.loc[name, name] < -0.3
        assert (change.loc["A+B", RAISED["A"] + RAISED["B"]] > 0.7).all()
        assert change.loc["control"].abs().max() < 0.4
        single = list("ABC")
        correlation = np.corrcoef(change.loc[single], truth.loc[single])[:3, 3:]
        assert correlation.argmax(1).tolist() == correlation.argmax(0).tolist() == [0, 1, 2]
        assert np.diag(correlation).min() > 0.7

    def test_genes_and_combinations_that_no_cell_was_under(self, perturbation_model, perturbed):
        change = change_of(perturbation_model, ["A+C", "D", "A", "A+B+C"], perturbed)
        assert np.isfinite(change.to_numpy()).all()
        assert (change.loc["A+C", RAISED["A"] + RAISED["C"]] > 0.3).all()
        differences = (change.to_numpy()[:, None] - change.to_numpy()[None])[~np.eye(4, dtype=bool)]
        assert np.abs(differences).max(1).min() > 0.2

    def test_the_order_of_genes_in_a_name_and_the_control_label_have_no_meaning(self, perturbation_model):
        names = ["A+B", "B+A", "control+A+B", "A", "A+control", "control+A"]
        found = predict(perturbation_model, names)
        assert found.index.tolist() == names  # as they were asked for
        for group in (names[:3], names[3:]):
            assert (found.loc[group] == found.loc[group[0]]).all(axis=None)

    def test_it_depends_on_the_cell_and_the_perturbation_alone(self, perturbation_model, perturbed, monkeypatch, rng):
        def profiles(adata=None, **kwargs):
            found = perturbation_model.iter_predictions(["B", "A+C"], adata, progress_bar=False, **kwargs)
            return {one.name: one for one in found}

        whole = profiles()
        assert whole["B"].predicted.shape == whole["B"].control.shape == (30, 18)
        assert whole["B"].predicted.dtype == np.float32
        np.testing.assert_array_equal(whole["B"].control, perturbed.X[:30].toarray())
        (alone,) = perturbation_model.iter_predictions("B", progress_bar=False)
        np.testing.assert_array_equal(alone.predicted, whole["B"].predicted)
        some = profiles(indices=[7, 3, 40, 3])  # 40 is no control cell
        np.testing.assert_allclose(some["A+C"].predicted, whole["A+C"].predicted[[7, 3, 3]], atol=1e-5)
        genes = rng.permutation(18)
        other = perturbed[[20, 50, 4], genes].copy()
        other.var["extra"] = 0
        other = ad.concat(
            [other, ad.AnnData(np.ones((3, 1), np.float32), other.obs, pd.DataFrame(index=["Z"]))], axis=1, merge="same"
        )
        np.testing.assert_allclose(profiles(other)["A+C"].predicted, whole["A+C"].predicted[[20, 4]], atol=1e-5)
        monkeypatch.setitem(_passes._NUMBERS_PER_PASS, "cpu", 50 * perturbation_model.module.network.config.d_model)
        for name, one in profiles().items():
            np.testing.assert_allclose(one.predicted, whole[name].predicted, atol=1e-5)

    def test_columns_are_the_variables_of_the_data_in_the_order_of_the_models_genes(
        self, perturbation_model, perturbed
    ):
        other = perturbed[:30, ::-1].copy()
        other.var["gene_symbols"] = other.var_names
        other.var_names = [f"ENSG{i:011d}" for i in range(18)]
        found = predict(perturbation_model, ["A"], other)
        assert found.columns.tolist() == other.var_names[::-1].tolist()
        np.testing.assert_allclose(found, predict(perturbation_model, ["A"]), atol=1e-5)

    def test_it_is_what_the_network_says_of_these_tokens(self, perturbation_model, perturbed):
        """Put together by hand: all genes, <cls> first, and the perturbed one under condition 1."""
        vocab, network = perturbation_model.vocab, perturbation_model.module.network
        ids = torch.tensor([vocab.cls_id, *vocab.ids(perturbed.var_names)]).expand(2, -1)
        values = np.pad(perturbed.X[[0, 9]].toarray(), ((0, 0), (1, 0)), constant_values=-2.0)
        conditions = (ids == vocab["C"]).long().unsqueeze(2)
        batch = TokenBatch.from_padded(
            ids, torch.from_numpy(values), torch.zeros(ids.shape, dtype=torch.bool), condition_ids=conditions[:, :, 0]
        )
        with torch.no_grad():
            out = network(batch, ["perturb_gep"]).perturb_gep.reshape(2, -1)[:, 1:]
        (found,) = perturbation_model.iter_predictions("C", indices=[0, 9], progress_bar=False)
        np.testing.assert_allclose(found.predicted, out, atol=1e-5)

    def test_control_cells_are_drawn_by_seed(self, perturbation_model, perturbed):
        draw = perturbation_model.control_cells
        assert draw().tolist() == draw(n_cells=30).tolist() == draw(n_cells=300).tolist() == list(range(30))
        first = draw(n_cells=5)
        assert len(set(first)) == 5 and (np.diff(first) > 0).all() and first.max() < 30
        assert draw(n_cells=5).tolist() == first.tolist()
        assert draw(n_cells=5, seed=1).tolist() != first.tolist()
        assert set(draw(n_cells=5, indices=np.arange(110) > 20)) <= set(range(21, 30))
        few = predict(perturbation_model, ["A"], n_cells=5)
        assert_equal(few, predict(perturbation_model, ["A"], indices=first))
        assert not np.allclose(few, predict(perturbation_model, ["A"], n_cells=5, seed=1))
        unlabelled = perturbed[28:33].copy()
        del unlabelled.obs["perturbation"]
        assert draw(unlabelled).tolist() == [0, 1, 2, 3, 4]

    @pytest.mark.filterwarnings("ignore:The model is not trained")
    def test_means_alone_are_kept(self, rng):
        """tracemalloc sees what numpy holds."""
        names = [f"G{i}" for i in range(300)]
        cells = ad.AnnData(rng.gamma(1, 1, (24, 300)).astype(np.float32), var=pd.DataFrame(index=names))
        cells.obs["perturbation"] = ["control"] * 16 + ["G0"] * 8
        model, peaks = set_up(cells), []
        for n in (4, 64):
            tracemalloc.start()
            predict(model, names[:n])
            peaks.append(tracemalloc.get_traced_memory()[1])
            tracemalloc.stop()
        assert peaks[1] - peaks[0] < 60 * 300 * 4 * 5  # bytes; cells would be 16 of each mean


class TestStart:
    def test_random_weights_predict_no_change(self, perturbed):
        model = set_up(perturbed)
        with pytest.warns(UserWarning, match="not trained; its predictions mean nothing yet"):
            (found,) = model.iter_predictions("A+B", progress_bar=False)
        np.testing.assert_array_equal(found.predicted, found.control)
        assert model.module.network.config.heads == ("perturb_gep",)
        assert (model.tokenizer.n_bins, model.tokenizer.max_length) == (None, 1537)
        assert model.trained_on and model.names.control == "control"

    def test_weights_depend_on_the_seed(self, perturbed):
        first, second, other = (set_up(perturbed, seed=seed).module.state_dict() for seed in (0, 0, 1))
        assert all(torch.equal(first[name], second[name]) for name in first)
        assert not torch.equal(first["network.genes.embedding.weight"], other["network.genes.embedding.weight"])

    def test_other_networks_are_refused(self, perturbed, find_golden):
        SCGPTPerturbation.setup_anndata(perturbed, "perturbation")
        with pytest.raises(ValueError, match="no decoder of perturbations"):
            SCGPTPerturbation(perturbed, **TINY, expression="mlp")
        with pytest.raises(ValueError, match="value_encoder='categorical' reads bins"):
            SCGPTPerturbation(perturbed, **TINY, value_encoder="categorical")
        with pytest.raises(ValueError, match="no decoder of perturbations"):
            SCGPTPerturbation.from_pretrained(find_golden("checkpoint"))


class TestTraining:
    def test_the_settings_are_those_of_the_recipe_unless_named(self, perturbed):
        model = set_up(perturbed)
        model.train(2, enable_progress_bar=False, accelerator="cpu")
        plan = model.trainer.lightning_module
        assert (plan.lr, plan.schedule.kind) == (FROM_SCRATCH["training"]["lr"], "cosine")
        assert [o.name for o in model.module.objectives] == ["perturb_gep"]
        assert set(model.history) >= {"perturb_gep_train", "perturb_gep_validation", "train_loss", "validation_loss"}
        assert len(model.train_indices) == 99 and len(model.validation_indices) == 11
        for norm, lr, schedule in (("pre", 1e-3, "cosine"), ("post", 1e-4, "epoch_decay")):
            tuned = SCGPTPerturbation.from_pretrained(set_up(perturbed, norm=norm), perturbed)
            tuned.train(1, enable_progress_bar=False, accelerator="cpu")
            plan = tuned.trainer.lightning_module
            assert (plan.lr, plan.schedule.kind) == (lr, schedule)

    def test_how_long_it_trains_depends_on_the_cells_from_scratch_alone(
        self, perturbation_model, perturbed, monkeypatch
    ):
        SCGPTPerturbation.setup_anndata(perturbed, "perturbation")
        scratch = SCGPTPerturbation(perturbed, **TINY)
        tuned = SCGPTPerturbation.from_pretrained(perturbation_model, perturbed)
        epochs = []
        monkeypatch.setattr(BaseSCGPT, "train", lambda self, max_epochs, **kwargs: epochs.append(max_epochs))
        for model in (scratch, tuned):
            model.train()
            model.train(0)
        assert epochs == [FROM_SCRATCH["epochs"][1], 0, 15, 0]

    def test_fewer_genes_in_a_step_than_there_are(self, perturbed):
        model = trained(perturbed, max_length=6)
        lengths = {n for batch in model.trainer.datamodule.train_dataloader() for n in batch.lengths.tolist()}
        assert lengths == {6}
        assert predict(model, ["A"]).shape == (1, 18)  # all at once

    def test_it_is_a_function_of_the_seed(self, perturbed):
        def weights(seed):
            model = set_up(perturbed, dropout=0.1, max_length=10)
            model.train(2, seed=seed, **SHORT)
            return model.module.state_dict()

        first, second, other = weights(3), weights(3), weights(4)
        assert all(torch.equal(first[name], second[name]) for name in first)
        assert any(not torch.equal(first[name], other[name]) for name in first)

    @pytest.mark.parametrize("fail_at", [2, 6])
    def test_interrupted_and_run_again_it_gives_the_same_weights(self, perturbed, tmp_path, fail_at):
        """Of 4 steps an epoch."""

        class Fail(Callback):
            def on_train_batch_start(self, trainer, module, batch, batch_idx):
                if trainer.global_step == fail_at:
                    raise RuntimeError("the cluster is down")

        def train(**kwargs):
            model = set_up(perturbed, dropout=0.1, max_length=10, paired_within="type")
            model.train(2, seed=3, **SHORT, **kwargs)
            return model

        settings = {"checkpoints": tmp_path, "checkpoint_every": 1}
        whole = train().module.state_dict()
        with pytest.raises(RuntimeError, match="cluster"):
            train(**settings, callbacks=[Fail()])
        assert [path.name for path in tmp_path.iterdir()] == [f"step={fail_at}.ckpt"]
        again = train(**settings).module.state_dict()
        assert all(torch.equal(whole[name], again[name]) for name in whole)

    def test_the_state_of_a_training_on_other_pairs_is_refused(self, perturbed, tmp_path):
        trained(perturbed.copy())
        settings = SHORT | {"checkpoints": tmp_path, "checkpoint_every": 1}
        set_up(perturbed).train(1, **settings)
        with pytest.raises(ValueError, match="state of another training: conditions differ"):
            set_up(perturbed, paired_within="type").train(1, **settings)
        swapped = perturbed.copy()
        swapped.obs["perturbation"] = swapped.obs["perturbation"].cat.rename_categories({"A": "B", "B": "A"})
        with pytest.raises(ValueError, match="state of another training: conditions differ"):
            set_up(swapped).train(1, **settings)

    def test_what_hides_values_is_refused(self, perturbed):
        with pytest.raises(ValueError, match="drop_share, mask_share: .* none is hidden"):
            set_up(perturbed).train(1, mask_share=0.4, drop_share=0.1)

    def test_without_data(self, perturbation_model, tmp_path):
        perturbation_model.save(tmp_path / "model")
        with pytest.raises(ValueError, match="no data to train on"):
            SCGPTPerturbation.load(tmp_path / "model", False).train(1)


class TestConditions:
    def test_treatments_act_on_the_whole_cell(self, perturbed):
        """Names are no genes; the drug raises what A did."""
        perturbed.obs["perturbation"] = (
            perturbed.obs["perturbation"].astype(str).replace({"A": "drug", "A+B": "drug+B"})
        )
        model = trained(perturbed, 15, treatments=["drug"])
        assert model.module.network.config.n_conditions == 3
        change = change_of(model, ["drug", "drug+B", "drug+C"], perturbed)
        assert set(change.loc["drug"].nlargest(3).index) == set(RAISED["A"])
        with pytest.raises(KeyError, match=r"names \['placebo'\].*trained on \(drug\)"):
            predict(model, ["placebo"])

    def test_all_names_can_be_treatments(self, perturbed):
        perturbed.obs["perturbation"] = perturbed.obs["perturbation"].cat.rename_categories(lambda name: name.lower())
        model = trained(perturbed, treatments="all", paired_within=["type"])
        assert model.names.treatments == ("a", "b", "c")
        assert predict(model, ["a", "c+b"]).shape == (2, 18)
        with pytest.warns(UserWarning, match="a perturbed gene; what it predicts of A means nothing"):
            predict(model, ["A", "b"])
        for batch in model.trainer.datamodule.train_dataloader():
            under = (batch.condition_ids != 0).any(1)
            assert set(batch.gene_ids[under].tolist()) == {model.vocab.cls_id}
        one = set_up(perturbed[perturbed.obs["perturbation"].isin(["control", "a"])].copy(), treatments="a")
        assert one.names.treatments == ("a",)

    def test_a_gene_that_is_activated_is_not_one_that_is_inhibited(self, perturbed):
        """A raises its genes where it is activated, and does nothing where it is inhibited."""
        cells = perturbed[:50].copy()
        cells.obs["direction"] = ["control"] * 30 + ["activation", "inhibition"] * 10
        dense = cells.X.toarray()
        dense[31::2, 6:9] -= 2
        cells.X = sp.csr_matrix(dense.clip(0))
        model = set_up(cells, direction_key="direction")
        model.train(20, lr=2e-2, seed=0, **SHORT | {"batch_size": 8})
        assert model.names.directions == ("activation", "inhibition")
        by_direction = {
            d: predict(model, ["A"], direction=d)[RAISED["A"]].mean(axis=None) for d in model.names.directions
        }
        assert by_direction["activation"] - by_direction["inhibition"] > 0.7  # of 2
        assert predict(model, ["A"]).shape == (1, 18)
        with pytest.raises(KeyError, match="not trained on direction 'knock-out'"):
            predict(model, ["A"], direction="knock-out")
        # Other control cells need no direction.
        other = cells[:5].copy()
        del other.obs["direction"]
        assert predict(model, ["A"], other, direction="inhibition").shape == (1, 18)

    def test_pairs_are_of_one_group(self, perturbed):
        perturbed.obs["group"] = np.arange(110) % 3
        dense = perturbed.X.toarray()
        dense[:, -1] = 1 + perturbed.obs["group"]
        perturbed.X = dense
        model = trained(perturbed, paired_within="group", max_length=100)
        for batch in model.trainer.datamodule.train_dataloader():
            marker = batch.gene_ids == model.vocab["GENE11"]
            np.testing.assert_array_equal(batch.values[marker], batch.targets[marker])

    def test_a_perturbed_gene_that_was_not_measured_but_is_known(self, perturbed, caplog):
        SCGPT.setup_anndata(perturbed)
        pretrained = SCGPT(perturbed, **TINY)
        pretrained.train(1, enable_progress_bar=False, accelerator="cpu")
        cells = perturbed[:, 1:].copy()
        SCGPTPerturbation.setup_anndata(cells, "perturbation")
        with pytest.raises(ValueError, match=r"Perturbations name A, neither genes of the data nor .* gene_key="):
            SCGPTPerturbation(cells, **TINY)
        model = SCGPTPerturbation.from_pretrained(pretrained, cells)
        assert "Perturbed genes that were not measured are tokens without a value: A." in caplog.messages
        model.train(2, lr=1e-2, **SHORT)
        for batch in model.trainer.datamodule.train_dataloader():
            absent = batch.gene_ids == model.vocab["A"]
            assert not batch.predict[absent].any() and not batch.values[absent].any()
        found = predict(model, ["A", "control"])
        assert found.columns.tolist() == cells.var_names.tolist()
        assert np.abs(found.loc["A"] - found.loc["control"]).max() > 0.01

    def test_perturbed_genes_under_other_names(self, perturbed):
        plain = trained(perturbed.copy())
        perturbed.obs["perturbation"] = perturbed.obs["perturbation"].cat.rename_categories(
            {"A": "old A", "A+B": "B+old A"}
        )
        mapped = trained(perturbed, gene_mapping={"old A": "A"})
        assert_equal(predict(mapped, ["A", "old A+B"]).set_axis(["A", "A+B"]), predict(plain, ["A", "A+B"]))
        # Names that stand in a column of the variables.
        other = perturbed.copy()
        other.var["symbol"] = other.var_names
        other.var_names = [f"ENSG{i:011d}.2" for i in range(18)]
        named = trained(other, gene_key="symbol", gene_mapping={"old A": "A"})
        np.testing.assert_allclose(predict(named, ["A"]), predict(plain, ["A"]), atol=1e-5)
        assert predict(named, ["A"]).columns.tolist() == other.var_names.tolist()


class TestPersistence:
    def test_saved_and_loaded_it_predicts_the_same(self, perturbed, tmp_path):
        perturbed.obs["direction"] = np.where(perturbed.obs["perturbation"] == "B", "up", "down")
        model = trained(perturbed, treatments=["C"], direction_key="direction", max_length=7, paired_within="type")
        model.save(tmp_path / "model")
        expected = predict(model, ["A", "B+C"], direction="up")
        for loaded in (
            SCGPTPerturbation.load(tmp_path / "model", perturbed.copy()),
            SCGPTPerturbation.load(tmp_path / "model", False),
            SCGPTPerturbation.from_pretrained(tmp_path / "model"),
        ):
            assert_equal(predict(loaded, ["A", "B+C"], perturbed, direction="up"), expected, atol=0)
            assert loaded.tokenizer.settings() == model.tokenizer.settings()
            assert loaded.tokenizer.max_length == 7
            assert (loaded.names, loaded.trained_on) == (model.names, model.trained_on)
        with pytest.raises(ValueError, match="saved by SCGPTPerturbation, not SCGPT"):
            SCGPT.load(tmp_path / "model", adata=False)

    def test_a_loaded_model_trains_on(self, perturbation_model, perturbed, tmp_path):
        perturbation_model.save(tmp_path / "model")
        loaded = SCGPTPerturbation.load(tmp_path / "model", perturbed)
        before = predict(loaded, ["A"])
        loaded.train(1, **SHORT)
        assert np.abs(predict(loaded, ["A"]) - before).max(axis=None) > 1e-4

    def test_it_is_fine_tuned_from_what_another_kind_of_model_learnt(self, perturbed):
        SCGPT.setup_anndata(perturbed)
        pretrained = SCGPT(perturbed, **TINY, zero=True)
        pretrained.train(1, enable_progress_bar=False, accelerator="cpu")
        SCGPTPerturbation.setup_anndata(perturbed, "perturbation")
        model = SCGPTPerturbation.from_pretrained(pretrained, perturbed)
        assert model.load_report.fresh == ("conditions", "gep")
        for name in ("genes.embedding.weight", "layers.0.feed_forward.0.weight", "values.linear2.weight"):
            assert torch.equal(model.module.network.state_dict()[name], pretrained.module.network.state_dict()[name])
        assert model.module.network.config.condition_context and not model.module.network.config.zero
        assert model.module.network.config.dropout == 0
        (found,) = model.iter_predictions("A", progress_bar=False)
        np.testing.assert_array_equal(found.predicted, found.control)
        model.train(1, **SHORT)
        assert model.load_report.source.startswith("fine-tuned from")

    @pytest.mark.parametrize("input_norm", [None, "domain"])
    def test_a_model_that_was_integrated_is_fine_tuned(self, perturbed, input_norm):
        SCGPT.setup_anndata(perturbed, batch_key="type")
        integrated = SCGPT(perturbed, **TINY, batch_embedding=True, adversary=True, input_norm=input_norm)
        integrated.train(1, enable_progress_bar=False, accelerator="cpu")
        SCGPTPerturbation.setup_anndata(perturbed, "perturbation")
        model = SCGPTPerturbation.from_pretrained(integrated, perturbed)
        model.train(1, **SHORT)
        config = model.module.network.config
        assert (config.batch_embedding, config.adversary) == (False, False)
        assert config.input_norm == (input_norm and "batch")
        without = SCGPTPerturbation.from_pretrained(integrated, perturbed, input_norm=None)
        assert without.module.network.config.input_norm is None

    def test_a_model_of_perturbations_is_fine_tuned_on_others(self, perturbation_model, perturbed):
        perturbed.obs["perturbation"] = perturbed.obs["perturbation"].cat.rename_categories({"C": "D", "A+B": "A+D"})
        SCGPTPerturbation.setup_anndata(perturbed, "perturbation", treatments=["D"])
        model = SCGPTPerturbation.from_pretrained(perturbation_model, perturbed)
        assert model.load_report.fresh == ("conditions",)
        ours, theirs = model.module.network.state_dict(), perturbation_model.module.network.state_dict()
        assert all(torch.equal(ours[name], theirs[name]) for name in theirs if name != "conditions.weight")
        assert ours["conditions.weight"].shape == (3, 16)
        model.train(1, **SHORT)
        assert predict(model, ["D", "A"]).shape == (2, 18)
        assert perturbation_model.trained_on != model.trained_on

    def test_conditions_that_stand_for_the_same_are_kept(self, perturbation_model, perturbed):
        some = perturbed[perturbed.obs["perturbation"].isin(["control", "C"])].copy()
        SCGPTPerturbation.setup_anndata(some, "perturbation")
        model = SCGPTPerturbation.from_pretrained(perturbation_model, some)
        assert model.load_report.fresh == ()
        assert model.trained_on == ["C"]
        # What it learnt of others before is not lost.
        np.testing.assert_array_equal(predict(model, ["A"], perturbed), predict(perturbation_model, ["A"], perturbed))

    def test_cells_are_embedded_under_no_condition(self, perturbation_model, perturbed):
        embedded = perturbation_model.get_latent_representation(perturbed, progress_bar=False)
        assert embedded.shape == (110, 16)
        np.testing.assert_allclose(np.linalg.norm(embedded, axis=1), 1, atol=1e-5)


@pytest.mark.real
class TestOfficial:
    @pytest.fixture
    def cells(self, rng) -> ad.AnnData:
        names = [f"G{i:04d}" for i in range(30)]
        adata = ad.AnnData(rng.gamma(1, 1, (30, 30)).astype(np.float32), var=pd.DataFrame(index=names))
        adata.obs["perturbation"] = ["control"] * 10 + ["G0001"] * 10 + ["G0002+G0003"] * 10
        SCGPTPerturbation.setup_anndata(adata, "perturbation")
        return adata

    @pytest.fixture
    def folder(self, find_golden, tmp_path):
        return shutil.copytree(find_golden("checkpoint_perturb"), tmp_path / "official")

    def test_a_perturbation_model_of_the_authors(self, cells, folder):
        model = SCGPTPerturbation.from_pretrained(folder, cells)
        assert model.load_report.fresh == ("conditions",)
        assert not model.module.network.config.condition_context
        # Under no condition it is the authors' network, whose values are not binned.
        network = SCGPTPerturbation.from_pretrained(folder).module.network
        ids = torch.tensor([model.vocab.cls_id, *model.vocab.ids(cells.var_names)]).expand(10, -1)
        values = torch.from_numpy(np.pad(cells.X[:10], ((0, 0), (1, 0)), constant_values=-2.0))
        none = torch.zeros(ids.shape, dtype=torch.long)
        batch = TokenBatch.from_padded(ids, values, none.bool(), condition_ids=none)
        with torch.no_grad():
            expected = network(batch, ["perturb_gep"]).perturb_gep.reshape(10, -1)[:, 1:]
        (found,) = model.iter_predictions("control", progress_bar=False)
        np.testing.assert_allclose(found.predicted, expected, atol=1e-5)
        model.train(1, **SHORT)
        assert np.isfinite(predict(model, ["G0150", "G0001+G0002"])).all(axis=None)

    def test_without_data_it_names_no_perturbations(self, cells, folder):
        with pytest.raises(ValueError, match="Nothing says which perturbations this model knows"):
            predict(SCGPTPerturbation.from_pretrained(folder), ["G0001"], cells)

    def test_an_embedding_of_no_condition_is_no_obstacle(self, cells, folder):
        """The authors' pert_pad_id=2 gives row 0 a meaning; here all rows start anew."""
        weights = torch.load(folder / "best_model.pt", weights_only=True)
        weights["pert_encoder.weight"][0] = 1
        torch.save(weights, folder / "best_model.pt")
        assert SCGPTPerturbation.from_pretrained(folder, cells).load_report.fresh == ("conditions",)


class TestMatrices:
    @pytest.mark.parametrize("kind", ["dense", "csc", "view", "backed", "backed dense", "layer"])
    def test_it_makes_no_difference_where_values_stand(self, perturbation_model, perturbed, tmp_path, kind):
        expected, given, layer = predict(perturbation_model, ["A+C"]), perturbed, None
        if kind == "dense" or kind == "backed dense":
            given = ad.AnnData(perturbed.X.toarray(), perturbed.obs, perturbed.var)
        elif kind == "csc":
            given = ad.AnnData(perturbed.X.tocsc(), perturbed.obs, perturbed.var)
        elif kind == "layer":
            given.layers["log"], layer = given.X, "log"
            given.X = None
        elif kind == "view":
            given = ad.concat([perturbed[30:60], perturbed])[30:]
        if kind.startswith("backed"):
            given.write_h5ad(tmp_path / "cells.h5ad")
            given = ad.read_h5ad(tmp_path / "cells.h5ad", backed="r")
        assert_equal(predict(perturbation_model, ["A+C"], given, layer=layer), expected)

    def test_a_backed_file_and_a_layer_are_trained_on(self, perturbed, tmp_path):
        expected = predict(trained(perturbed.copy()), ["A"])
        perturbed.write_h5ad(tmp_path / "cells.h5ad")
        assert_equal(predict(trained(ad.read_h5ad(tmp_path / "cells.h5ad", backed="r")), ["A"]), expected)
        perturbed.layers["log"] = perturbed.X.copy()
        perturbed.X = perturbed.X.ceil()
        model = trained(perturbed, layer="log")
        assert_equal(predict(model, ["A"]), expected)
        with pytest.raises(ValueError, match="raw counts"):
            predict(model, ["A"], layer="X")

    def test_a_gene_of_several_variables_has_the_highest_value(self, perturbation_model, perturbed):
        again = perturbed[:, ["GENE0"]].copy()
        again.X = again.X * 0.5
        again.var_names = ["second"]
        several = ad.concat([perturbed, again], axis=1, merge="same")
        several.var["gene_name"] = [*perturbed.var_names, "GENE0"]
        with pytest.warns(UserWarning, match="carried by several variables"):
            found = predict(perturbation_model, ["A"], several)
        assert found.columns.tolist() == perturbed.var_names.tolist()
        assert_equal(found, predict(perturbation_model, ["A"]))


class TestWrongInput:
    def test_perturbations(self, perturbation_model):
        with pytest.raises(KeyError, match=r"Perturbation 'A\+Z' names \['Z'\]"):
            perturbation_model.iter_predictions(["A", "A+Z"])  # before the first is asked for
        with pytest.raises(ValueError, match="names A twice"):
            predict(perturbation_model, ["A+A"])
        with pytest.raises(ValueError, match="no perturbation to predict"):
            predict(perturbation_model, [])
        with pytest.raises(KeyError, match="not trained on direction 'up'"):
            predict(perturbation_model, ["A"], direction="up")

    def test_control_cells(self, perturbation_model, perturbed):
        with pytest.raises(ValueError, match=r"no control cell \('control' in .obs\['perturbation'\]\)"):
            predict(perturbation_model, ["A"], perturbed[30:].copy())
        with pytest.raises(ValueError, match="no control cell"):
            predict(perturbation_model, ["A"], indices=[40, 50])
        for n_cells in (0, -1):
            with pytest.raises(ValueError, match=f"n_cells must be a whole number of at least 1, not {n_cells}"):
                predict(perturbation_model, ["A"], n_cells=n_cells)
        with pytest.raises(ValueError, match="has no cell|no control cell"):
            predict(perturbation_model, ["A"], perturbed[:0].copy())

    def test_values(self, perturbation_model, perturbed):
        counts, scaled = perturbed.copy(), perturbed.copy()
        counts.X = counts.X.ceil()
        normalised = perturbed.copy()
        normalised.X = normalised.X.expm1() * 97.3
        for given, message in ((counts, "raw counts"), (normalised, "not log-transformed")):
            with pytest.raises(ValueError, match=f"The values are {message}"):
                predict(perturbation_model, ["A"], given)
            with pytest.raises(ValueError, match=f"The values are {message}"):
                SCGPTPerturbation.setup_anndata(given, "perturbation")
        scaled.X = -scaled.X
        with pytest.raises(ValueError, match="negative values"):
            predict(perturbation_model, ["A"], scaled)

    def test_columns_and_layers(self, perturbation_model, perturbed):
        with pytest.raises(KeyError, match="perturbation_key='gene' is not a column"):
            SCGPTPerturbation.setup_anndata(perturbed, "gene")
        with pytest.raises(KeyError, match="There is no layer 'log'"):
            SCGPTPerturbation.setup_anndata(perturbed, "perturbation", layer="log")
        with pytest.raises(KeyError, match="There is no layer 'log'"):
            predict(perturbation_model, ["A"], layer="log")
        with pytest.raises(TypeError, match="Expected an AnnData, not str"):
            SCGPTPerturbation.setup_anndata("cells.h5ad", "perturbation")
        other = perturbed.copy()
        other.var_names = [f"OTHER{i}" for i in range(18)]
        with pytest.raises(ValueError, match="None of the 18 genes is in the vocabulary"):
            predict(perturbation_model, ["A"], other)

    def test_perturbed_genes_that_nobody_knows(self, perturbed):
        perturbed.obs["perturbation"] = perturbed.obs["perturbation"].cat.rename_categories({"A": "Z", "A+B": "Z+B"})
        SCGPTPerturbation.setup_anndata(perturbed, "perturbation")
        with pytest.raises(
            ValueError, match=r"Perturbations name Z, neither genes .* or was not measured, in treatments="
        ):
            SCGPTPerturbation(perturbed, **TINY)

    def test_data_of_other_perturbations_for_a_saved_model(self, perturbation_model, perturbed, tmp_path):
        perturbation_model.save(tmp_path / "model")
        with pytest.raises(ValueError, match="no control cell that others could be paired with"):
            SCGPTPerturbation.load(tmp_path / "model", perturbed[30:].copy())
        perturbed.obs["perturbation"] = perturbed.obs["perturbation"].cat.rename_categories({"A": "Z"})
        loaded = SCGPTPerturbation.load(tmp_path / "model", perturbed)
        with pytest.raises(KeyError, match=r"'Z' names \['Z'\]"):
            loaded.train(1, **SHORT)

    def test_conditions_of_another_number(self, perturbation_model, perturbed):
        perturbed.obs["direction"] = "up"
        SCGPTPerturbation.setup_anndata(perturbed, "perturbation", direction_key="direction")
        checkpoint = perturbation_model.to_checkpoint()
        with pytest.raises(ValueError, match=r"2 conditions and the data 3.*fresh=\['conditions'\]"):
            SCGPTPerturbation(perturbed, checkpoint=replace(checkpoint, registry={}))
