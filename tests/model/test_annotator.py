import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.special
import torch

from scgpt.model import SCGPT, SCGPTAnnotator
from scgpt.model._calibration import fit_temperature

TINY = {"d_model": 16, "n_layers": 1, "n_heads": 2}


@pytest.fixture
def cells(counts):
    """Every fourth cell is of unknown type."""
    counts.obs["known"] = counts.obs["cell_type"].astype(object)
    counts.obs.loc[counts.obs_names[::4], "known"] = "Unknown"
    return counts


@pytest.fixture
def model(cells) -> SCGPTAnnotator:
    SCGPTAnnotator.setup_anndata(cells, labels_key="known")
    model = SCGPTAnnotator(cells, **TINY)
    model.train(30, lr=3e-3, seed=0, enable_progress_bar=False)
    return model


def predict(model, *args, **kwargs):
    return model.predict(*args, progress_bar=False, **kwargs)


def test_names_the_cells_whose_type_it_was_not_told(model, cells):
    unknown = (cells.obs["known"] == "Unknown").to_numpy()
    label = predict(model)
    assert list(label.index) == list(cells.obs_names)
    assert list(label.cat.categories) == model.labels == ["B", "NK", "T"]
    assert (label == cells.obs["cell_type"])[unknown].mean() > 0.8  # a third by chance
    probabilities = predict(model, soft=True)
    assert list(probabilities.columns) == model.labels
    assert np.allclose(probabilities.sum(1), 1, atol=1e-5)
    assert (probabilities.idxmax(axis=1) == label).all()
    some = predict(model, cells, indices=[5, 2])
    assert list(some) == list(label.iloc[[5, 2]]) and list(some.index) == list(label.index[[5, 2]])


def test_cells_of_unknown_type_are_neither_trained_nor_validated_on(model, cells):
    unknown = np.flatnonzero(cells.obs["known"] == "Unknown")
    used = np.concatenate([model.train_indices, model.validation_indices])
    assert len(used) == 90
    assert not set(used) & set(unknown)


def test_the_prediction_depends_on_the_cell_alone(model, cells, rng):
    whole = predict(model, soft=True)
    genes = rng.permutation(cells.n_vars)
    few = cells[[3, 50], genes].copy()
    np.testing.assert_allclose(predict(model, few, soft=True), whole.iloc[[3, 50]], atol=1e-5)


def test_genes_that_are_missing_or_have_other_names(model, cells):
    whole = predict(model, soft=True)
    ids = {name: f"ENSG{i:011d}" for i, name in enumerate(cells.var_names)}
    renamed = cells[:, ::-1].copy()
    renamed.var_names = [f"{ids[name]}.{i}" for i, name in enumerate(renamed.var_names)]
    mapped = predict(model, renamed, soft=True, gene_mapping={value: name for name, value in ids.items()})
    np.testing.assert_allclose(mapped, whole, atol=1e-5)
    with pytest.raises(ValueError, match="These are Ensembl ids"):
        predict(model, renamed)
    label = predict(model, cells[:, 10:].copy())
    assert (label == cells.obs["cell_type"]).mean() > 0.6  # a third by chance


def test_the_cells_of_a_new_batch_are_named_after_surgery(cells):
    new = cells[:20].copy()
    new.obs["batch"] = "c"
    SCGPTAnnotator.setup_anndata(cells, labels_key="known", batch_key="batch")
    reference = SCGPTAnnotator(cells, **TINY, input_norm="domain")
    reference.train(1, enable_progress_bar=False)
    with pytest.raises(ValueError, match=r"not trained on: \['c'\].*SCGPTAnnotator.load_query_data"):
        predict(reference, new)
    del new.obs["known"]
    model = SCGPTAnnotator.load_query_data(new, reference)
    assert (new.obs["known"] == "Unknown").all()
    assert model.labels == reference.labels
    assert len(predict(model)) == 20
    new.obs["known"] = "Treg"
    with pytest.raises(
        ValueError, match=r"\.obs\['known'\] names labels that the model was not trained on: \['Treg'\]"
    ):
        SCGPTAnnotator.load_query_data(new, reference)


def test_saved_and_loaded_it_keeps_names_order_and_temperature(model, cells, tmp_path):
    model.save(tmp_path / "model")
    loaded = SCGPTAnnotator.load(tmp_path / "model", adata=False)
    assert loaded.labels == model.labels
    assert loaded.temperature == model.temperature != 1.0
    pd.testing.assert_frame_equal(predict(loaded, cells, soft=True), predict(model, cells, soft=True))
    again = SCGPTAnnotator.from_pretrained(tmp_path / "model")
    pd.testing.assert_frame_equal(predict(again, cells, soft=True), predict(model, cells, soft=True))
    with pytest.raises(ValueError, match="saved by SCGPTAnnotator, not SCGPT"):
        SCGPT.load(tmp_path / "model", adata=False)


def test_fine_tunes_what_another_kind_of_model_learnt(cells):
    SCGPT.setup_anndata(cells)
    pretrained = SCGPT(cells, **TINY)
    pretrained.train(1, enable_progress_bar=False)
    SCGPTAnnotator.setup_anndata(cells, labels_key="known")
    model = SCGPTAnnotator.from_pretrained(pretrained, cells)
    assert model.load_report.fresh == ("cls",)
    assert torch.equal(model.module.network.genes.embedding.weight, pretrained.module.network.genes.embedding.weight)
    model.train(1, enable_progress_bar=False)
    assert [o.name for o in model.module.objectives] == ["cls"]
    # An annotator of other types, too: its classifier starts anew.
    cells.obs["known"] = np.where(cells.obs["cell_type"] == "T", "T", "other")
    SCGPTAnnotator.setup_anndata(cells, labels_key="known")
    assert SCGPTAnnotator.from_pretrained(model, cells).labels == ["T", "other"]


class TestClassWeights:
    def test_balanced_gives_every_type_the_same_say(self, cells):
        rare = cells[(cells.obs["cell_type"] != "NK") | (np.arange(120) % 4 == 1)].copy()
        SCGPTAnnotator.setup_anndata(rare, labels_key="cell_type")
        model = SCGPTAnnotator(rare, **TINY)
        model.train(1, class_weight="balanced", enable_progress_bar=False)
        weights = np.array(model.module.objectives[0].class_weights)
        n_cells = rare.obs["cell_type"].value_counts()[model.labels].to_numpy()
        assert np.allclose(weights * n_cells, rare.n_obs / 3)

    def test_a_rare_type_is_found(self):
        """Of 5 cells among 385; measured on 100 others."""
        rates = np.random.default_rng(0).gamma(0.4, 2.0, (3, 60))
        rates[2, 20:] = rates[0, 20:]  # it is like the most frequent type but for a third of the genes

        def draw(numbers, seed):
            types = np.repeat(np.arange(3), numbers)
            names = pd.DataFrame({"cell_type": np.array(["common", "other", "rare"])[types]}, index=map(str, types))
            matrix = np.random.default_rng(seed).poisson(rates[types]).astype(np.float32)
            adata = ad.AnnData(matrix, obs=names.set_axis([f"cell{i}" for i in range(len(types))]))
            adata.var_names = [f"GENE{i}" for i in range(60)]
            return adata

        known, others = draw((200, 180, 5), 1), draw((100, 100, 100), 2)
        SCGPTAnnotator.setup_anndata(known, labels_key="cell_type")
        settings = {"objectives": ["cls"], "drop_share": 0.0, "plan_kwargs": {"schedule": "constant"}}
        recall = {}
        for class_weight in (None, "balanced"):
            model = SCGPTAnnotator(known, **TINY)
            model.train(10, lr=3e-3, class_weight=class_weight, seed=0, enable_progress_bar=False, **settings)
            right = predict(model, others) == others.obs["cell_type"]
            recall[class_weight] = right.groupby(others.obs["cell_type"]).mean()
        assert recall["balanced"]["rare"] > 0.5 > recall[None]["rare"]
        assert recall["balanced"].min() > 0.5

    def test_one_factor_for_each_type(self, model):
        model.train(1, class_weight={"T": 3, "B": 1, "NK": 2}, enable_progress_bar=False)
        assert model.module.objectives[0].class_weights == (1.0, 2.0, 3.0)
        with pytest.raises(ValueError, match=r"no factor for \['NK'\]"):
            model.train(1, class_weight={"T": 3, "B": 1})
        with pytest.raises(ValueError, match=r"names \['Treg'\], which are no types of this model"):
            model.train(1, class_weight={"T": 3, "B": 1, "NK": 1, "Treg": 9})
        with pytest.raises(ValueError, match=r"0 or more, and finite, not {'NK': -1}"):
            model.train(1, class_weight={"T": 3, "B": 1, "NK": -1})
        with pytest.raises(ValueError, match="must be 'balanced'"):
            model.train(1, class_weight="even")


class TestCalibration:
    def test_the_temperature_is_the_likeliest(self):
        rng = np.random.default_rng(0)
        logits = rng.normal(0, 2, (20_000, 4))
        labels = np.array([rng.choice(4, p=p) for p in scipy.special.softmax(logits, axis=1)])
        # Logits that are three times too sure.
        assert fit_temperature(3 * logits, labels) == pytest.approx(3, rel=0.03)
        assert fit_temperature(logits / 2, labels) == pytest.approx(0.5, rel=0.03)

    def test_it_is_chosen_on_the_validation_cells(self, model, cells):
        held_out = model.validation_indices
        assert len(held_out) == 9
        chosen = model.temperature
        model.extras["temperature"] = 1.0
        types = cells.obs["known"].iloc[held_out].map(model.labels.index).to_numpy(dtype=int)
        log_probabilities = np.log(predict(model, indices=held_out, soft=True).to_numpy(dtype=np.float64))
        assert fit_temperature(log_probabilities, types) == pytest.approx(chosen, rel=1e-3)

    def test_temperature_moves_the_confidence_and_no_label(self, model):
        label, confidence = predict(model), predict(model, soft=True).max(axis=1)
        model.extras["temperature"] *= 4
        assert (predict(model) == label).all()
        assert (predict(model, soft=True).max(axis=1) < confidence).all()

    def test_without_validation_cells_it_says_that_nothing_is_calibrated(self, model, caplog):
        model.train(1, train_size=1.0, enable_progress_bar=False)
        assert model.temperature == 1.0
        assert "not calibrated" in caplog.text


class TestWrongInput:
    def test_labels(self, cells):
        cells.obs["one"] = np.where(np.arange(120) % 2, "T", "Unknown")
        with pytest.raises(ValueError, match=r"names 1 cell types beside 'Unknown'"):
            SCGPTAnnotator.setup_anndata(cells, labels_key="one")
        with pytest.raises(KeyError, match="labels_key='nothing' is not a column"):
            SCGPTAnnotator.setup_anndata(cells, labels_key="nothing")
        cells.obs.loc["cell3", "known"] = np.nan
        with pytest.raises(ValueError, match=r"1 of \d+ cells have no label in .obs\['known'\]; write 'Unknown' there"):
            SCGPTAnnotator.setup_anndata(cells, labels_key="known")

    def test_a_model_that_names_no_types(self, cells, golden):
        SCGPT.setup_anndata(cells)
        model = SCGPT(cells, **TINY)
        with pytest.raises(ValueError, match="saved by SCGPT, not SCGPTAnnotator"):
            SCGPTAnnotator.from_pretrained(model)
        with pytest.raises(ValueError, match="does not name cell types"):
            SCGPTAnnotator.from_pretrained(golden / "checkpoint")

    def test_a_query_without_any_known_gene(self, model, cells):
        cells.var_names = [f"OTHER{i}" for i in range(cells.n_vars)]
        with pytest.raises(ValueError, match="None of the"):
            predict(model, cells)

    def test_before_training(self, cells):
        SCGPTAnnotator.setup_anndata(cells, labels_key="known")
        with pytest.warns(UserWarning, match="predictions mean nothing yet"):
            predict(SCGPTAnnotator(cells, **TINY))


@pytest.mark.parametrize(
    "given",
    [
        pd.Series([3, 10]),
        pd.Series([3.0, 10.0]),
        pd.Series([3, 10], dtype="Int64"),
        pd.Series([True, False], dtype="boolean"),
        pd.Series(["a", "b"], dtype="string[python]"),
        pd.Series(["a", "b"], dtype="string[pyarrow]"),
        pd.Series(pd.Categorical(["b", "a"], categories=["z", "b", "a"])),
    ],
    ids=lambda series: repr(series.dtype),
)
def test_labels_batches_and_conditions_of_any_type(cells, given, tmp_path):
    column = given.iloc[np.arange(cells.n_obs) % 2].set_axis(cells.obs_names)
    cells.obs["kind"] = column
    SCGPTAnnotator.setup_anndata(cells, labels_key="kind", batch_key="kind", cell_conditions=["kind"])
    model = SCGPTAnnotator(cells, d_model=16, n_heads=2)
    model.train(1, enable_progress_bar=False)
    model.save(tmp_path / "model")
    known = SCGPTAnnotator.load(tmp_path / "model", cells.copy())
    assert known.labels == model.labels and all(type(name) is str for name in known.labels)
    named = model.predict(cells)
    pd.testing.assert_series_equal(known.predict(cells), named)
    assert set(named) <= set(model.labels)
    pd.testing.assert_series_equal(cells.obs["kind"], column, check_names=False)  # is left as it was
