import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

import scgpt
from scgpt.model import SCGPTPerturbation

GENES = ["g0", "g1", "g2"]
START = np.array([1.0, 1.5, 2.5])
DELTAS = {"A": [1, 0, 0], "B": [0, 1, 0], "A+B": [1, 1, 0], "C": [0, 0, -0.5], "none": [0, 0, 0]}


def predictions(deltas=None, per_cell=1) -> ad.AnnData:
    """As scgpt.tl.perturb returns them."""
    deltas = DELTAS if deltas is None else deltas
    delta = np.repeat(np.float32(list(deltas.values())), per_cell, axis=0)
    names = np.repeat(list(deltas), per_cell)
    spread = np.tile(np.linspace(-0.2, 0.2, per_cell) if per_cell > 1 else [0], len(deltas))[:, None]
    obs = pd.DataFrame({"perturbation": pd.Categorical(names)}, index=[f"row{i}" for i in range(len(names))])
    return ad.AnnData(
        np.float32(START + spread + delta), obs=obs, var=pd.DataFrame(index=GENES), layers={"delta": delta}
    )


def cells(profiles: dict, genes=GENES) -> ad.AnnData:
    """Four cells of each state, whose mean is its profile."""
    noise = np.array([[0.1], [-0.1], [0.25], [-0.25]])
    values = np.concatenate([profile + noise for profile in profiles.values()]).astype(np.float32)
    obs = pd.DataFrame({"state": np.repeat(list(profiles), 4)}, index=[f"cell{i}" for i in range(len(values))])
    return ad.AnnData(values, obs=obs, var=pd.DataFrame(index=genes))


def reverse(target, candidates=None, **kwargs) -> pd.DataFrame:
    candidates = predictions() if candidates is None else candidates
    return scgpt.tl.reverse_perturb(cells({"control": START}), target, candidates=candidates, **kwargs)


def test_cosine_of_differences_to_control():
    table = reverse(pd.Series(START + [2, 1, 0], GENES))
    assert table.columns.tolist() == ["state", "rank", "perturbation", "similarity"]
    assert table["perturbation"].tolist() == ["A+B", "A", "B", "C", "none"]
    assert table["rank"].tolist() == [1, 2, 3, 4, 5]
    assert set(table["state"]) == {""}
    expected = [3 / (5 * 2) ** 0.5, 2 / 5**0.5, 1 / 5**0.5, 0, 0]
    np.testing.assert_allclose(table["similarity"], expected, atol=1e-6)


def test_distance_of_profiles():
    table = reverse(pd.Series(START + [2, 1, 0], GENES), metric="euclidean", k=4)
    assert table.columns.tolist() == ["state", "rank", "perturbation", "distance"]
    assert table["perturbation"].tolist() == ["A+B", "A", "B", "none"]
    np.testing.assert_allclose(table["distance"], [1, 2**0.5, 2, 5**0.5], atol=1e-6)


def test_states_are_means_of_cells_in_groups(tmp_path):
    target = cells({"y": START + [0.3, 0, 0], "x": START + [0, 0, -2], "z": START + [0.4, 0.4, 0]})
    target.obs.loc[["cell3", "cell7"], "state"] = None
    target.X[[3, 7]] = 20.5  # and have no say
    table = reverse(target, groupby="state", k=1)
    assert table["state"].tolist() == ["x", "y", "z"]
    assert table["perturbation"].tolist() == ["C", "A", "A+B"]
    sparse = ad.AnnData(sp.csc_matrix(target.X), target.obs, target.var)
    sparse.write_h5ad(tmp_path / "target.h5ad")
    for given in (sparse, ad.read_h5ad(tmp_path / "target.h5ad", backed="r"), ad.concat([target, target])[:12]):
        pd.testing.assert_frame_equal(reverse(given, groupby="state", k=1), table)
    one = reverse(target[8:], k=2)
    assert one["perturbation"].tolist() == ["A+B", "A"] and one["similarity"].iloc[0] == pytest.approx(1, abs=1e-5)
    with pytest.raises(ValueError, match=r"No cell of target_state has a state in .obs\['state'\]"):
        reverse(target[[3, 7]], groupby="state")


def test_cells_of_one_perturbation_are_averaged():
    target = pd.Series(START + [2, 1, 0], GENES)
    pd.testing.assert_frame_equal(reverse(target, predictions(per_cell=4)), reverse(target), atol=1e-6)


def test_genes_are_matched_by_name():
    target = cells({"x": np.array([2.5, 9.5, 3.5, 1.0])}, ["g2", "other", "g1", "g0"])
    assert reverse(target, k=1)["perturbation"].tolist() == ["B"]
    assert reverse(pd.Series({"g1": 3.5, "g0": 1.0, "new": 7.0}), k=1)["perturbation"].tolist() == ["B"]


def test_a_model_predicts_the_candidates(perturbation_model, perturbed):
    target = perturbed[perturbed.obs["perturbation"] == "C"]
    table = scgpt.tl.reverse_perturb(perturbed, target, model=perturbation_model, k=99, progress_bar=False)
    # All that cells were perturbed by, and all pairs of it.
    assert sorted(table["perturbation"]) == ["A", "A+B", "A+C", "B", "B+C", "C"]
    assert table["perturbation"].iloc[0] == "C"
    some = scgpt.tl.reverse_perturb(
        perturbed, target, model=perturbation_model, candidates=["A", "C+A", "D"], k=2, n_cells=10, progress_bar=False
    )
    assert some["perturbation"].iloc[0] == "C+A" and len(some) == 2
    predicted = scgpt.tl.perturb(perturbed, ["A", "C+A", "D"], model=perturbation_model, n_cells=10, progress_bar=False)
    pd.testing.assert_frame_equal(scgpt.tl.reverse_perturb(perturbed, target, candidates=predicted, k=2), some)


def test_a_saved_model(perturbation_model, perturbed, tmp_path):
    perturbation_model.save(tmp_path / "model")
    target = perturbed[perturbed.obs["perturbation"] == "B"].copy()
    tables = [
        scgpt.tl.reverse_perturb(perturbed, target, model=model, progress_bar=False)
        for model in (perturbation_model, tmp_path / "model", str(tmp_path / "model"))
    ]
    pd.testing.assert_frame_equal(tables[0], tables[1])
    pd.testing.assert_frame_equal(tables[0], tables[2])


def test_the_layer_is_that_of_the_model_for_both_data_sets(perturbed):
    """Here .X holds something else."""
    expected_of = perturbed.copy()
    perturbed.layers["log"], perturbed.X = perturbed.X.copy(), perturbed.X.ceil()
    SCGPTPerturbation.setup_anndata(perturbed, "perturbation", layer="log")
    model = SCGPTPerturbation(perturbed, d_model=16, n_layers=1, n_heads=2)
    model.train(1, lr=1e-2, enable_progress_bar=False, accelerator="cpu")
    target, settings = perturbed[perturbed.obs["perturbation"] == "C"], {"k": 9, "progress_bar": False}
    table = scgpt.tl.reverse_perturb(perturbed, target, model=model, **settings)
    predicted = scgpt.tl.perturb(perturbed, table["perturbation"], model=model, progress_bar=False)
    pd.testing.assert_frame_equal(scgpt.tl.reverse_perturb(perturbed, target, candidates=predicted, k=9), table)
    in_x = expected_of[expected_of.obs["perturbation"] == "C"]
    plain = scgpt.tl.reverse_perturb(expected_of, in_x, model=model, layer="X", **settings)
    pd.testing.assert_frame_equal(plain, table)
    with pytest.raises(ValueError, match="target_state: the values are raw counts"):
        scgpt.tl.reverse_perturb(perturbed, target, candidates=predicted, layer="X")


class TestWrongInput:
    def test_settings(self, perturbation_model):
        target = pd.Series(START + [2, 1, 0], GENES)
        with pytest.raises(ValueError, match="k must be a whole number of at least 1, not 0"):
            reverse(target, k=0)
        with pytest.raises(ValueError, match="metric must be 'cosine' or 'euclidean', not 'l1'"):
            reverse(target, metric="l1")
        with pytest.raises(ValueError, match="Pass a model to predict candidates with"):
            reverse(target, ["A", "B"])
        for given in ({"model": perturbation_model}, {"n_cells": 3}):
            with pytest.raises(ValueError, match="predicted already: leave out model="):
                reverse(target, **given)
        with pytest.raises(ValueError, match=r"what scgpt\.tl\.perturb returned"):
            reverse(target, cells({"control": START}))

    def test_states(self):
        with pytest.raises(ValueError, match="does not differ from control"):
            reverse(pd.Series(START, GENES))
        assert reverse(pd.Series(START, GENES), metric="euclidean", k=1)["perturbation"].tolist() == ["none"]
        with pytest.raises(ValueError, match="share no gene"):
            reverse(pd.Series(START, ["x", "y", "z"]))
        with pytest.raises(ValueError, match="not known of 1 genes, which are NaN"):
            reverse(pd.Series([1, np.nan, 3], GENES))
        with pytest.raises(TypeError, match="must be an AnnData or a Series, not ndarray"):
            reverse(START)
        target = cells({"x": START})
        with pytest.raises(KeyError, match="groupby='type' is not a column of target_state.obs"):
            reverse(target, groupby="type")
        with pytest.raises(ValueError, match="target_state has no cell"):
            reverse(target[:0].copy())
        with pytest.raises(KeyError, match="There is no layer 'log'"):
            reverse(target, layer="log")

    def test_a_state_is_refused_before_candidates_are_predicted(self, perturbation_model, perturbed, monkeypatch):
        monkeypatch.setattr("scgpt.tl._perturb.perturb", None)
        counts = perturbed.copy()
        counts.X = counts.X.ceil()
        with pytest.raises(ValueError, match="target_state: the values are raw counts"):
            scgpt.tl.reverse_perturb(perturbed, counts, model=perturbation_model)

    def test_candidates(self, perturbation_model, perturbed):
        with pytest.raises(KeyError, match=r"names \['Z'\]"):
            scgpt.tl.reverse_perturb(perturbed, perturbed[40:], model=perturbation_model, candidates=["Z"])
