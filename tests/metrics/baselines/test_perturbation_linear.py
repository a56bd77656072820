import anndata as ad
import numpy as np
import pandas as pd
import pytest

from scgpt.metrics import baselines, perturbation_scores

GENES = [f"G{i:02}" for i in range(40)]
TRAIN = ["G00", "G01", "G02", "G03", "G04+G00", "G05", "NOT MEASURED"]


def cells(profiles: dict[str, np.ndarray], rng, n: int = 6, noise: float = 0.05) -> ad.AnnData:
    names = np.repeat(list(profiles), n)
    x = np.array([profiles[name] for name in names]) + noise * rng.normal(size=(len(names), len(GENES)))
    obs = pd.DataFrame({"perturbation": names}, index=[f"c{i}" for i in range(len(names))])
    return ad.AnnData(x, obs, pd.DataFrame(index=GENES))


@pytest.fixture
def train(rng) -> ad.AnnData:
    base = rng.gamma(2, 1, 40)
    return cells({"control": base} | {name: base + rng.normal(size=40) * 0.4 for name in TRAIN}, rng)


def pseudobulks(adata) -> pd.DataFrame:
    return adata.to_df().groupby(adata.obs["perturbation"].astype(str)).mean()


def explicit(y, g, p, asked, ridge):
    """The formula of the paper, with inverses written out; columns of y and p are conditions."""
    center = y.mean(1, keepdims=True)
    w = (
        np.linalg.inv(g.T @ g + ridge * np.eye(g.shape[1]))
        @ g.T
        @ (y - center)
        @ p.T
        @ np.linalg.inv(p @ p.T + ridge * np.eye(len(p)))
    )
    return (g @ w @ asked + center).T


@pytest.mark.parametrize(("n_components", "ridge"), [(10, 0.1), (3, 2.0)])
def test_it_is_the_formula(train, n_components, ridge):
    bulk = pseudobulks(train)
    fitted = ["G00", "G01", "G02", "G03", "G04+G00", "G05"]
    x = bulk.loc[["control", *fitted, "NOT MEASURED"]].to_numpy().T
    u, s, _ = np.linalg.svd(x - x.mean(0), full_matrices=False)
    k = min(n_components, 8)
    g = pd.DataFrame(u[:, :k] * s[:k], GENES)
    # A combination has the sum; control no change and no embedding.
    p = np.column_stack([np.zeros(k), *(g.loc[name.split("+")].sum() for name in fitted)])
    y = (bulk.loc[["control", *fitted]] - bulk.loc["control"]).to_numpy().T
    asked = np.column_stack([g.loc["G07"], g.loc["G01"] + g.loc["G08"], g.loc["G00"]])
    out = baselines.bilinear_ridge(train, ["G07", "G08+G01", "G00"], n_components=n_components, ridge=ridge)
    np.testing.assert_allclose(out.layers["delta"], explicit(y, g.to_numpy(), p, asked, ridge), rtol=1e-4, atol=1e-5)
    assert (out.obs["fallback"] == "").all()
    params = out.uns["baseline"]["params"]
    assert (params["n_fitted"], params["ridge"], params["n_training_perturbations"]) == (6, ridge, 7)


def test_a_gene_that_was_not_measured_gets_the_mean_of_perturbations(train):
    out = baselines.bilinear_ridge(train, ["NOT MEASURED", "G01+Z", "G01"])
    mean = baselines.mean_of_perturbations(train, ["x"])
    np.testing.assert_allclose(out.X[:2], np.tile(mean.X, (2, 1)), rtol=1e-6)
    assert np.abs(out.X[2] - mean.X[0]).max() > 0.01
    assert list(out.obs["fallback"]) == ["NOT MEASURED", "Z", ""]


def test_embeddings_of_ones_own_stand_in_for_components(train, rng):
    g = pd.DataFrame(rng.normal(size=(35, 4)), [*GENES[5:], *"abcde"][:35])
    p = pd.DataFrame(rng.normal(size=(8, 3)), ["G00", "G01", "G02", "G04", "NOT MEASURED", "control", "G09", "Q"])
    out = baselines.bilinear_ridge(
        train, ["G09", "Q+G00", "G03"], gene_embedding=g, perturbation_embedding=p[::-1], ridge=0.5
    )
    bulk = pseudobulks(train)
    fitted = ["control", "G00", "G01", "G02", "G04+G00", "NOT MEASURED"]
    y = (bulk.loc[fitted] - bulk.loc["control"]).to_numpy().T
    rows = g.reindex(GENES).fillna(0).to_numpy()
    of_fitted = np.column_stack([p.loc[name.split("+")].sum() for name in fitted])
    asked = np.column_stack([p.loc["G09"], p.loc["Q"] + p.loc["G00"]])
    np.testing.assert_allclose(out.layers["delta"][:2], explicit(y, rows, of_fitted, asked, 0.5), rtol=1e-4, atol=1e-5)
    assert list(out.obs["fallback"]) == ["", "", "G03"]
    # A gene without an embedding changes as it does on average over conditions.
    np.testing.assert_allclose(out.layers["delta"][:2, :5], np.tile(y[:5].mean(1), (2, 1)), rtol=1e-5)


def test_transfer_knows_perturbations_by_what_they_do_elsewhere(rng):
    """Two cell lines respond alike; a perturbation that one of them lacks is predicted from the other."""
    factors, loadings = rng.normal(size=(12, 3)), rng.normal(size=(3, 40))
    names = [f"P{i}" for i in range(12)]
    effects = dict(zip(names, factors @ loadings * 0.3, strict=True))
    lines = [rng.gamma(2, 1, 40) + 3 for _ in range(2)]
    here, there = (cells({"control": base} | {name: base + effects[name] for name in names}, rng) for base in lines)
    held = here.obs["perturbation"].isin(["P10", "P11"])
    train, test = here[~held], here[held | (here.obs["perturbation"] == "control")]
    out = baselines.linear_transfer(train, ["P10", "P11", "P12"], there, n_components=3, ridge=1e-3)
    assert list(out.obs["fallback"]) == ["", "", "P12"]
    scores = perturbation_scores(test, out[:2], reference=train).per_perturbation
    assert (scores["pearson_delta"] > 0.8).all()
    mean = baselines.mean_of_perturbations(train, ["P10", "P11"])
    baseline = perturbation_scores(test, mean, reference=train).per_perturbation
    assert (scores["l2_top1000"] < baseline["l2_top1000"] / 2).all()


def test_transfer_is_the_linear_model_with_components_of_the_source(train, rng):
    base = rng.gamma(2, 1, 40)
    source = cells({"control": base} | {name: base + rng.normal(size=40) for name in ["G01", "G02", "G05", "G30"]}, rng)
    source = source[:, 5:].copy()
    bulk = pseudobulks(source).loc[["control", "G01", "G02", "G05", "G30"]]
    centered = (bulk - bulk.mean()).to_numpy()
    u, s, _ = np.linalg.svd(centered, full_matrices=False)
    p = pd.DataFrame(u[:, :4] * s[:4], bulk.index)
    out = baselines.linear_transfer(train, ["G30", "G01+G30", "G03"], source)
    expected = baselines.bilinear_ridge(train, ["G30", "G01+G30", "G03"], perturbation_embedding=p)
    np.testing.assert_allclose(out.X, expected.X, rtol=1e-4, atol=1e-5)
    assert list(out.obs["fallback"]) == list(expected.obs["fallback"]) == ["", "", "G03"]
    with pytest.raises(ValueError, match="No cell is control"):
        baselines.linear_transfer(train, ["G30"], source[6:])


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"n_components": 0}, "n_components and ridge have to be positive, and are 0 and 0.1"),
        ({"ridge": 0.0}, "n_components and ridge have to be positive, and are 10 and 0.0"),
        ({"gene_embedding": pd.DataFrame({0: [1.0]}, ["ENSG1"])}, "gene_embedding has no row for any .* G00, G01, G02"),
        ({"gene_embedding": pd.DataFrame({0: [1.0, 2]}, ["G00", "G00"])}, "gene_embedding has several rows for G00"),
        ({"gene_embedding": pd.DataFrame({0: [1.0, np.nan]}, ["G00", "G01"])}, "NaN or infinite in 1 of 2 rows"),
        ({"perturbation_embedding": pd.DataFrame({0: [1.0]}, ["Z"])}, "No training perturbation is of genes .* G00"),
        ({"perturbation_embedding": pd.DataFrame({0: [np.inf]}, ["G00"])}, "perturbation_embedding is NaN or infinite"),
    ],
)
def test_wrong_settings_are_an_error_that_says_what(kwargs, message, train):
    with pytest.raises(ValueError, match=message):
        baselines.bilinear_ridge(train, ["G07"], **kwargs)


def test_names_that_are_no_genes_are_an_error(train):
    train.var_names = [f"ENSG{i}" for i in range(40)]
    with pytest.raises(ValueError, match="No training perturbation is of genes that have an embedding"):
        baselines.bilinear_ridge(train, ["G07"])
