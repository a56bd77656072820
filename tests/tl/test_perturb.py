import tracemalloc

import anndata as ad
import numpy as np
import pandas as pd
import pytest

import scgpt
from scgpt.model import SCGPT, SCGPTPerturbation

TINY = {"d_model": 16, "n_layers": 1, "n_heads": 2}


def perturb(adata, perturbations, **kwargs) -> ad.AnnData:
    return scgpt.tl.perturb(adata, perturbations, progress_bar=False, **kwargs)


def learn(adata, perturbations, **kwargs) -> ad.AnnData:
    given = {"perturbation_key": "perturbation", "max_epochs": 1} | kwargs
    if given.get("model") is None:
        given["network_kwargs"] = TINY | given.get("network_kwargs", {})
    given["train_kwargs"] = {"accelerator": "cpu", "batch_size": 32} | given.get("train_kwargs", {})
    return perturb(adata, perturbations, **given)


def test_means_cells_and_their_difference_to_control(perturbation_model, perturbed, tmp_path):
    names = ["C", "B+A", "D+A"]
    means = perturb(perturbed, names, model=perturbation_model)
    cells = perturb(perturbed, names, model=perturbation_model, per_cell=True)
    assert means.shape == (3, 18) and cells.shape == (90, 18)
    assert means.obs_names.tolist() == means.obs["perturbation"].tolist() == names
    assert means.obs["perturbation"].cat.categories.tolist() == names
    assert means.obs["n_perturbed"].tolist() == [1, 2, 2]
    assert means.obs["trained_on"].tolist() == [True, True, False]  # "A+B" is another name of "B+A"
    assert means.var_names.tolist() == cells.var_names.tolist() == perturbed.var_names.tolist()
    assert cells.obs["perturbation"].tolist() == np.repeat(names, 30).tolist()
    assert cells.obs["control_cell"].tolist() == 3 * [f"cell{i}" for i in range(30)]
    assert cells.obs_names[31] == "B+A-cell1" and cells.obs_names.is_unique
    control = perturbed.X[:30].toarray()
    for result in (means, cells):
        assert result.X.dtype == result.layers["delta"].dtype == np.float32
    np.testing.assert_allclose(cells.layers["delta"], cells.X - np.tile(control, (3, 1)), atol=1e-6)
    np.testing.assert_allclose(means.layers["delta"], means.X - control.mean(0), atol=1e-5)
    for i in range(3):
        np.testing.assert_allclose(means.X[i], cells.X[30 * i : 30 * (i + 1)].mean(0), atol=1e-5)
    np.testing.assert_allclose(means.X, perturbation_model.predict(names, progress_bar=False), atol=1e-6)

    for result in (means, cells):
        result.write_h5ad(tmp_path / "result.h5ad")
        again = ad.read_h5ad(tmp_path / "result.h5ad")
        np.testing.assert_array_equal(again.layers["delta"], result.layers["delta"])
        record = again.uns["scgpt"]["X"]
        assert (record["function"], record["n_control_cells"], record["layer"]) == ("scgpt.tl.perturb", 30, "X")
        assert (record["checkpoint"], record["per_cell"]) == ("trained from scratch", result is cells)
        assert sorted(record["trained_on"]) == ["A", "A+B", "B", "C"]
        assert record["n_genes_matched"] == 18 and len(record["model_sha256"]) == 64
        assert "condition_context=True" in record["network"]


def test_all_pairs_of_the_names(perturbation_model, perturbed):
    space = perturb(perturbed, ["A", "C", "D"], model=perturbation_model, pairs=True, n_cells=5)
    assert space.obs_names.tolist() == ["A", "C", "D", "A+C", "A+D", "C+D"]
    assert space.obs["n_perturbed"].tolist() == [1, 1, 1, 2, 2, 2]
    pair = perturb(perturbed, "D+C", model=perturbation_model, n_cells=5)
    np.testing.assert_allclose(space["C+D"].X, pair.X, atol=1e-6)
    with pytest.raises(ValueError, match=r"'A\+C\+A' names A twice"):
        perturb(perturbed, ["A", "C+A"], model=perturbation_model, pairs=True)


def test_the_data_are_left_as_they_are(perturbation_model, perturbed):
    perturbed.layers["log"], perturbed.uns["own"] = perturbed.X.copy(), {"a": 1}
    perturbed.obsm["X_pca"] = np.ones((110, 2))
    before = perturbed.copy()
    perturb(perturbed, ["A"], model=perturbation_model)
    learn(perturbed, ["A"], layer="log")
    learn(perturbed[:80], ["A"], layer="log")
    pd.testing.assert_frame_equal(perturbed.obs, before.obs)
    pd.testing.assert_frame_equal(perturbed.var, before.var)
    assert perturbed.uns == before.uns
    assert (list(perturbed.obsm), [key for key in perturbed.layers if key]) == (["X_pca"], ["log"])
    assert (perturbed.X != before.X).nnz == (perturbed.layers["log"] != before.layers["log"]).nnz == 0


def test_a_network_is_trained_saved_and_used_again(perturbed, tmp_path):
    settings = {"max_epochs": 2, "seed": 3, "paired_within": "type", "save": tmp_path / "model"}
    result = learn(perturbed, ["A", "C+A"], **settings)
    model = SCGPTPerturbation.load(tmp_path / "model", adata=False)
    for given in (model, tmp_path / "model", str(tmp_path / "model")):
        again = perturb(perturbed, ["A", "C+A"], model=given)
        np.testing.assert_allclose(again.X, result.X, atol=1e-6)
    assert result.uns["scgpt"]["X"]["seed"] == 3
    assert result.uns["scgpt"]["X"]["model_sha256"] == again.uns["scgpt"]["X"]["model_sha256"]
    same = learn(perturbed, ["A", "C+A"], **settings | {"save": None})
    np.testing.assert_array_equal(same.X, result.X)
    other = learn(perturbed, ["A", "C+A"], **settings | {"save": None, "seed": 4})
    assert np.abs(other.X - result.X).max() > 1e-4


def test_pretrained_weights_are_fine_tuned(perturbation_model, perturbed, tmp_path):
    cells = perturbed.copy()
    SCGPT.setup_anndata(cells)
    pretrained = SCGPT(cells, **TINY)
    pretrained.train(1, enable_progress_bar=False, accelerator="cpu")
    pretrained.save(tmp_path / "pretrained")
    perturbation_model.save(tmp_path / "perturbation")
    for model in (pretrained, tmp_path / "pretrained", perturbation_model, tmp_path / "perturbation"):
        result = learn(perturbed, ["A"], model=model)
        assert result.uns["scgpt"]["X"]["checkpoint"].startswith("fine-tuned from")
    assert (
        "dropout=0.1"
        in learn(perturbed, ["A"], model=model, network_kwargs={"dropout": 0.1}).uns["scgpt"]["X"]["network"]
    )


def test_treatments_and_directions(perturbed):
    perturbed.obs["way"] = np.where(perturbed.obs["perturbation"] == "A", "up", "down")
    perturbed.obs["drug"] = (
        perturbed.obs["perturbation"].astype(str).replace({"C": "IFNb", "A+B": "A|IFNb", "control": "dmso"})
    )
    settings = {"perturbation_key": "drug", "control": "dmso", "sep": "|", "treatments": "IFNb", "direction_key": "way"}
    result = learn(perturbed, ["IFNb", "A|B", "IFNb|B"], direction="up", **settings)
    assert result.obs["n_perturbed"].tolist() == [1, 2, 2]
    assert result.obs["trained_on"].tolist() == [True, False, False]
    assert result.uns["scgpt"]["X"]["direction"] == "up"
    pairs = learn(perturbed, ["IFNb", "A"], pairs=True, **settings)
    assert pairs.obs_names.tolist() == ["IFNb", "A", "IFNb|A"] and pairs.obs["trained_on"].all()


def test_control_cells_are_drawn_by_seed(perturbation_model, perturbed):
    def controls(**kwargs):
        drawn = perturb(perturbed, ["A"], model=perturbation_model, per_cell=True, **kwargs)
        assert drawn.n_obs == drawn.uns["scgpt"]["X"]["n_control_cells"]
        return drawn.obs["control_cell"].tolist()

    assert len(controls()) == len(controls(n_cells=None)) == 30
    assert len(controls(n_cells=7)) == 7
    assert controls(n_cells=7) == controls(n_cells=7) != controls(n_cells=7, seed=1)


@pytest.mark.parametrize("kind", ["dense", "csc", "view", "backed", "backed view", "dask"])
def test_it_makes_no_difference_where_values_stand(perturbed, tmp_path, kind):
    expected, given = learn(perturbed, ["A", "D"]), perturbed
    if kind == "dense":
        given.X = given.X.toarray()
    elif kind == "csc":
        given.X = given.X.tocsc()
    elif kind == "dask":
        given.X = pytest.importorskip("dask.array").from_array(given.X.toarray(), chunks=(40, 18))
    elif kind == "view":
        given = given[:, ::-1].copy()[:, ::-1]
    else:
        given.write_h5ad(tmp_path / "cells.h5ad")
        given = ad.read_h5ad(tmp_path / "cells.h5ad", backed="r")
        given = given[:110] if "view" in kind else given
    result = learn(given, ["A", "D"])
    np.testing.assert_allclose(result.X, expected.X, atol=1e-6)
    np.testing.assert_allclose(result.layers["delta"], expected.layers["delta"], atol=1e-6)


@pytest.mark.filterwarnings("ignore:The model is not trained")
def test_memory_is_that_of_the_means(rng):
    """Of all pairs of genes, where tracemalloc sees what numpy holds; cells would be 32 times as much."""
    names = [f"G{i}" for i in range(200)]
    cells = ad.AnnData(rng.gamma(1, 1, (40, 200)).astype(np.float32), var=pd.DataFrame(index=names))
    cells.obs["perturbation"] = ["control"] * 32 + ["G0"] * 8
    SCGPTPerturbation.setup_anndata(cells, "perturbation")
    model, peaks = SCGPTPerturbation(cells, d_model=8, n_layers=1, n_heads=1), []
    for pairs in (False, True):
        tracemalloc.start()
        n = perturb(cells, names[:13], model=model, pairs=pairs).n_obs
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert n == 91
    # Means and differences in float32, at most twice at a time.
    assert peaks[1] - peaks[0] < 78 * 200 * 4 * 2 * 3


class TestWrongInput:
    def test_names(self, perturbation_model, perturbed):
        with pytest.raises(KeyError, match=r"'A\+Z' names \['Z'\], neither genes of the model"):
            perturb(perturbed, ["A", "A+Z"], model=perturbation_model)
        with pytest.raises(ValueError, match=r"names \['A\+B', 'B\+A'\] more than once"):
            perturb(perturbed, ["B+A", "C", "A+B"], model=perturbation_model)
        with pytest.raises(ValueError, match=r"names \['A', 'A\+control'\] more than once"):
            perturb(perturbed, ["A", "A+control"], model=perturbation_model)
        with pytest.raises(ValueError, match="names A twice"):
            perturb(perturbed, "A+A", model=perturbation_model)
        with pytest.raises(ValueError, match="no perturbation to predict"):
            perturb(perturbed, [], model=perturbation_model)
        with pytest.raises(KeyError, match="not trained on direction 'up'"):
            perturb(perturbed, "A", model=perturbation_model, direction="up")

    def test_names_are_refused_before_the_training(self, perturbed, tmp_path, monkeypatch):
        monkeypatch.setattr(SCGPTPerturbation, "train", None)
        with pytest.raises(KeyError, match=r"names \['Z'\]"):
            learn(perturbed, ["A", "Z"])
        with pytest.raises(ValueError, match="more than once"):
            learn(perturbed, ["A", "A"])
        with pytest.raises(ValueError, match="n_cells must be a whole number of at least 1"):
            learn(perturbed, ["A"], n_cells=0)
        (tmp_path / "model").mkdir()
        (tmp_path / "model" / "notes.txt").write_text("mine")
        with pytest.raises(FileExistsError, match="notes.txt"):
            learn(perturbed, ["A"], save=tmp_path / "model")

    def test_what_is_of_training_alone(self, perturbation_model, perturbed, tmp_path):
        of_training = {
            "max_epochs": 2,
            "network_kwargs": {},
            "train_kwargs": {},
            "save": tmp_path / "model",
            "treatments": "all",
            "direction_key": "way",
            "paired_within": "type",
            "gene_key": "symbol",
            "gene_mapping": {"old": "A"},
        }
        for name, value in of_training.items():
            with pytest.raises(ValueError, match=f"^{name} are of training, which takes perturbation_key"):
                perturb(perturbed, ["A"], model=perturbation_model, **{name: value})
        with pytest.raises(ValueError, match="Pass a trained model, or perturbation_key"):
            perturb(perturbed, ["A"])
        with pytest.raises(ValueError, match="Pass seed to perturb itself"):
            learn(perturbed, ["A"], train_kwargs={"seed": 1})

    def test_data(self, perturbation_model, perturbed):
        counts = perturbed.copy()
        counts.X = counts.X.ceil()
        for run in (lambda: learn(counts, ["A"]), lambda: perturb(counts, ["A"], model=perturbation_model)):
            with pytest.raises(ValueError, match="The values are raw counts"):
                run()
        with pytest.raises(ValueError, match="no control cell"):
            perturb(perturbed[30:].copy(), ["A"], model=perturbation_model)
        with pytest.raises(ValueError, match=r"No cell of .obs\['perturbation'\] is 'ctrl'"):
            learn(perturbed, ["A"], control="ctrl")
        with pytest.raises(KeyError, match="perturbation_key='gene' is not a column"):
            learn(perturbed, ["A"], perturbation_key="gene")
        with pytest.raises(TypeError, match="Expected an AnnData"):
            perturb("cells.h5ad", ["A"], model=perturbation_model)

    def test_models(self, perturbed, find_golden):
        SCGPT.setup_anndata(perturbed)
        with pytest.raises(ValueError, match="saved by SCGPT, not SCGPTPerturbation"):
            perturb(perturbed, ["A"], model=SCGPT(perturbed, **TINY))
        with pytest.raises(ValueError, match="no decoder of perturbations"):
            perturb(perturbed, ["A"], model=find_golden("checkpoint"))

    def test_an_untrained_model(self, perturbed):
        SCGPTPerturbation.setup_anndata(perturbed, "perturbation")
        with pytest.warns(UserWarning, match="not trained; its predictions mean nothing yet"):
            result = perturb(perturbed, ["A"], model=SCGPTPerturbation(perturbed, **TINY))
        assert not result.layers["delta"].any()
