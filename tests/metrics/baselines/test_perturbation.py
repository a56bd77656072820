import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from scgpt.metrics import PerturbationSplit, baselines, perturbation_scores

SIZES = {"ctrl": 20, "G0": 10, "ctrl+G1": 12, "G2": 8, "G1+G0": 9, "X": 6}
ALL = {
    "no_change": baselines.no_change,
    "mean_of_perturbations": baselines.mean_of_perturbations,
    "matching_mean": baselines.matching_mean,
    "additive": baselines.additive,
    "bilinear_ridge": baselines.bilinear_ridge,
    "linear_transfer": lambda adata, perturbations, **kwargs: baselines.linear_transfer(
        adata, perturbations, adata, **kwargs
    ),
}
ASKED = ["G2+G1", "G0", "Y+G0", "G3", "G2+Y", "Y"]


@pytest.fixture
def train(rng) -> ad.AnnData:
    names = np.repeat(list(SIZES), list(SIZES.values()))
    rates = rng.gamma(1, 1, 30) * rng.lognormal(0, 0.5, (6, 30))
    x = np.log1p(rng.poisson(np.repeat(rates, list(SIZES.values()), axis=0)))
    obs = pd.DataFrame({"perturbation": names}, index=[f"c{i}" for i in range(len(names))])
    return ad.AnnData(sp.csr_matrix(x.astype(np.float32)), obs, pd.DataFrame(index=[f"G{i}" for i in range(30)]))


@pytest.fixture
def mean_of(train):
    """Mean of the cells under some names."""
    x = train.X.toarray().astype(np.float64)
    return lambda *names: x[train.obs["perturbation"].isin(names)].mean(0)


def predict(name, adata, perturbations=ASKED, **kwargs) -> ad.AnnData:
    return ALL[name](adata, perturbations, control="ctrl", **kwargs)


# All of them


@pytest.mark.parametrize("name", ALL)
def test_predictions_are_in_the_form_that_scores_take(name, train, mean_of, tmp_path):
    before = train.copy()
    out = predict(name, train)
    assert list(out.obs["perturbation"]) == ["G1+G2", "G0", "G0+Y", "G3", "G2+Y", "Y"]
    assert list(out.obs_names) == list(out.obs["perturbation"])
    assert out.var_names.equals(train.var_names)
    assert out.X.dtype == out.layers["delta"].dtype == np.float32
    assert np.isfinite(out.X).all()
    np.testing.assert_allclose(out.X - mean_of("ctrl"), out.layers["delta"], atol=1e-6)
    assert list(out.obs) == ["perturbation", "fallback"]
    assert out.uns["baseline"]["method"] == name
    assert out.uns["baseline"]["params"]["n_training_perturbations"] == 5
    out.write_h5ad(tmp_path / "out.h5ad")
    assert list(ad.read_h5ad(tmp_path / "out.h5ad").obs["fallback"]) == list(out.obs["fallback"])
    assert (train.X != before.X).nnz == 0
    assert train.obs.equals(before.obs)
    assert not train.uns


@pytest.mark.parametrize("name", ALL)
def test_any_matrix_column_and_order_give_the_same(name, train, rng):
    expected = predict(name, train)
    other = train[rng.permutation(train.n_obs)].copy()
    other.obs["guide"] = pd.Categorical(
        other.obs.pop("perturbation").replace({"ctrl": "none", "ctrl+G1": "G1", "G1+G0": "G0_G1"})
    )
    other.layers["csc"], other.layers["dense"] = sp.csc_matrix(other.X), other.X.toarray()
    other.X = other.X * 2
    for layer in ("csc", "dense"):
        out = ALL[name](
            other, [n.replace("+", "_") for n in ASKED], perturbation_key="guide", control="none", sep="_", layer=layer
        )
        np.testing.assert_allclose(out.X, expected.X, rtol=1e-4, atol=1e-5)
        assert list(out.obs["perturbation"]) == [n.replace("+", "_") for n in expected.obs["perturbation"]]


@pytest.mark.parametrize("name", ALL)
def test_a_prediction_is_that_of_its_name_whatever_else_is_asked(name, train):
    expected = predict(name, train).to_df()
    for asked in ("G1+G2", ["Y", "G2+G1"], (n for n in ["G1+G2+ctrl"])):
        out = predict(name, train, asked).to_df()
        np.testing.assert_allclose(out.loc["G1+G2"], expected.loc["G1+G2"], rtol=1e-6)


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ([], "There is no perturbation to predict"),
        (["G0", "ctrl"], "Control, 'ctrl', is no perturbation to predict: leave it out"),
        (["G0+G1", "G1+G0"], "Of the perturbations to predict, these are named twice: G0\\+G1"),
        (["G0", np.nan], "1 of 2 names of the perturbations to predict are no text"),
        (["G0+G0"], "names G0 twice"),
    ],
)
def test_wrong_perturbations_are_an_error_that_says_what(name, asked, message, train):
    with pytest.raises(ValueError, match=message):
        predict(name, train, asked)


@pytest.mark.parametrize("name", ALL)
def test_wrong_cells_are_an_error_that_says_what(name, train):
    with pytest.raises(KeyError, match="no column 'guide'"):
        predict(name, train, perturbation_key="guide")
    with pytest.raises(KeyError, match="no layer 'log'"):
        predict(name, train, layer="log")
    with pytest.raises(ValueError, match="No cell is control"):
        predict(name, train[20:])
    if name != "no_change":
        with pytest.raises(ValueError, match="No training cell is perturbed: all are 'ctrl'"):
            predict(name, train[:20])
    twice = train.copy()
    twice.var_names = ["G1", *twice.var_names[1:]]
    with pytest.raises(ValueError, match="training cells are not unique: G1"):
        predict(name, twice)
    train.X = train.X.toarray()
    train.X[25, 0] = np.inf
    with pytest.raises(ValueError, match="NaN or infinite values in what is observed of G0"):
        predict(name, train)


def test_counts_are_warned_of(train):
    train.X = train.X.ceil()
    with pytest.warns(UserWarning, match="`.X` of the training cells seems to hold counts"):
        predict("no_change", train)


@pytest.mark.parametrize("name", ALL)
def test_predictions_of_a_split_can_be_scored(name, train):
    train.obs["perturbation"] = train.obs["perturbation"].replace({"X": "G5"})
    split = PerturbationSplit.from_names(["G0", "G1", "G5"], test=["G2", "G0+G1"], control="ctrl")
    out = predict(name, train[split.cells(train, "train")], split.test)
    scores = perturbation_scores(train[split.cells(train, "test")], out, control="ctrl")
    assert scores.per_perturbation.index.tolist() == ["G0+G1", "G2"]
    assert scores.overall[["pearson", "mse_delta", "l2_top1000", "discrimination_l2"]].notna().all()


# Rules


def test_no_change_is_the_mean_of_control(train, mean_of):
    out = predict("no_change", train)
    np.testing.assert_allclose(out.X, np.tile(mean_of("ctrl"), (6, 1)), rtol=1e-6)
    assert (out.layers["delta"] == 0).all()
    assert (out.obs["fallback"] == "").all()
    np.testing.assert_array_equal(predict("no_change", train[:20]).X, out.X)


def test_the_mean_of_perturbations_counts_cells_alike(train, mean_of):
    out = predict("mean_of_perturbations", train)
    np.testing.assert_allclose(out.X, np.tile(mean_of("G0", "ctrl+G1", "G2", "G1+G0", "X"), (6, 1)), rtol=1e-5)
    assert (out.obs["fallback"] == "").all()


def test_the_matching_mean_is_that_of_the_genes_alone(train, mean_of):
    out = predict("matching_mean", train)
    every = mean_of("G0", "ctrl+G1", "G2", "G1+G0", "X")
    expected = {
        "G1+G2": (mean_of("ctrl+G1") + mean_of("G2")) / 2,
        "G0": mean_of("G0"),
        "G0+Y": (mean_of("G0") + every) / 2,
        "G3": every,
        "G2+Y": (mean_of("G2") + every) / 2,
        "Y": every,
    }
    np.testing.assert_allclose(out.X, np.array([expected[name] for name in out.obs_names]), rtol=1e-5)
    assert out.obs["fallback"].to_dict() == {"G1+G2": "", "G0": "", "G0+Y": "Y", "G3": "G3", "G2+Y": "Y", "Y": "Y"}


def test_additive_adds_changes(train, mean_of):
    out = predict("additive", train, [*ASKED, "G0+G1", "Y+Z"])
    control = mean_of("ctrl")
    every = mean_of("G0", "ctrl+G1", "G2", "G1+G0", "X") - control
    change = {name: mean_of(name) - control for name in ("G0", "ctrl+G1", "G2")}
    expected = {
        "G1+G2": change["ctrl+G1"] + change["G2"],
        "G0": change["G0"],
        "G0+Y": change["G0"] + every,
        "G3": every,
        "G2+Y": change["G2"] + every,
        "Y": every,
        "G0+G1": change["G0"] + change["ctrl+G1"],  # though training cells have the pair
        "Y+Z": 2 * every,
    }
    np.testing.assert_allclose(
        out.layers["delta"], np.array([expected[name] for name in out.obs_names]), rtol=1e-5, atol=1e-6
    )
    assert out.obs.loc["Y+Z", "fallback"] == "Y+Z"


def test_additive_is_right_where_changes_add_up(rng):
    """Cells without noise; the scores of a perfect prediction."""
    base, a, b = rng.gamma(2, 1, 25) + 1, rng.normal(size=25) * 0.3, rng.normal(size=25) * 0.3
    effects = {"control": 0 * a, "A": a, "B": b, "A+B": a + b}
    names = np.repeat(list(effects), 6)
    # Cells of a group differ, by as much in each of them.
    jitter = np.tile(rng.normal(size=(6, 25)) * 0.01, (4, 1))
    x = np.array([base + effects[name] for name in names]) + jitter
    obs = pd.DataFrame({"perturbation": names}, index=[f"c{i}" for i in range(24)])
    adata = ad.AnnData(x, obs, pd.DataFrame(index=[f"G{i}" for i in range(25)]))
    pair = adata.obs["perturbation"] == "A+B"
    scores = perturbation_scores(adata, baselines.additive(adata[~pair], ["B+A"])).overall
    for name in ("pearson_delta", "pearson_delta_top20", "centroid_accuracy", "direction_match", "delta_overlap_at_N"):
        assert scores[name] == pytest.approx(1, abs=1e-5)
    assert scores["l2_top1000"] == pytest.approx(0, abs=1e-5)
