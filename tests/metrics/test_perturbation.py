import warnings

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from scipy import stats
from scipy.spatial.distance import cdist

from scgpt.metrics import perturbation_scores
from scgpt.metrics.baselines import mean_of_perturbations, no_change

N_GENES = 60
TARGETS = {"G0": [0], "G1": [1], "G2+G3": [2, 3], "G4": [4], "X": [], "G0+G5": [0, 5]}
SCORES = [
    *("pearson", "pearson_delta", "pearson_delta_top20", "pearson_delta_top20_nondropout"),
    *("pearson_centroid_delta", "pearson_centroid_delta_top20", "mse_delta", "mae_delta", "l2_top1000"),
    *("centroid_accuracy", "discrimination_l1", "discrimination_l2", "discrimination_cosine"),
    *("direction_match", "delta_overlap_at_N", "overlap_at_N"),
]
ERRORS = ["mse_delta", "mae_delta", "l2_top1000"]
OF_CELLS = "overlap_at_N"


def frame(names) -> pd.DataFrame:
    return pd.DataFrame({"perturbation": list(names)}, index=[f"c{i}" for i in range(len(names))])


def draw(rng, sizes, rates) -> ad.AnnData:
    names = np.repeat(list(sizes), list(sizes.values()))
    x = rng.poisson(np.repeat(rates, list(sizes.values()), axis=0))
    var = pd.DataFrame(index=[f"G{i}" for i in range(x.shape[1])])
    return ad.AnnData(sp.csr_matrix(np.log1p(x / x.sum(1, keepdims=True) * 100).astype(np.float32)), frame(names), var)


@pytest.fixture
def rates(rng) -> np.ndarray:
    base = rng.gamma(0.6, 1.5, N_GENES) + 0.02
    effects = np.where(rng.random((7, N_GENES)) < 0.4, rng.lognormal(0, 0.8, (7, N_GENES)), 1)
    effects[0] = 1
    return base * effects


@pytest.fixture
def observed(rng, rates) -> ad.AnnData:
    """Control and six perturbations; that of G4 is not predicted."""
    return draw(rng, dict(zip(["control", *TARGETS], [60, 30, 25, 40, 20, 30, 35], strict=True)), rates)


@pytest.fixture
def predicted(rng, rates) -> ad.AnnData:
    """Cells of other rates, and control cells, which have no part."""
    noisy = rates * rng.lognormal(0, 1, rates.shape)
    names = ["control", "G3+G2", "X", "G0+G5", "G0", "G1"]
    return draw(rng, dict.fromkeys(names, 12), noisy[[0, 3, 5, 6, 1, 2]])


def means(adata: ad.AnnData) -> ad.AnnData:
    """A row for each perturbation, the mean of its cells."""
    names = sorted(set(adata.obs["perturbation"]) - {"control"})
    x = [adata.X[(adata.obs["perturbation"] == name).to_numpy()].toarray().astype(float).mean(0) for name in names]
    return ad.AnnData(np.array(x), frame(names).set_axis(names), adata.var)


# Numbers


def test_scores_are_those_worked_by_hand():
    """Three genes, two perturbations; nothing can be tested in single cells."""
    x = np.array([[1.0, 2, 0], [1, 4, 0], [3, 3, 1], [1, 1.5, 2]])
    observed = ad.AnnData(x, frame(["control", "control", "a", "b"]), pd.DataFrame(index=["a", "p", "q"]))
    guess = ad.AnnData(
        np.array([[2.0, 3, 1], [1, 2, 1]], np.float32), frame(["a", "b"]), pd.DataFrame(index=["a", "p", "q"])
    )
    with pytest.warns(UserWarning, match="a \\(1\\), b \\(1\\)"):
        scores = perturbation_scores(observed, guess)
    table = scores.per_perturbation
    assert list(table) == ["n_cells", "n_significant", *SCORES]
    assert list(table.index) == ["a", "b"]
    assert table.index.name == "perturbation"
    assert list(scores.overall.index) == SCORES
    # Changes from control [1, 3, 0]: observed [2, 0, 1] and [0, -1.5, 2], predicted [1, 0, 1] and [0, -1, 1].
    a, b = table.loc["a"], table.loc["b"]
    assert (a["n_cells"], a["mse_delta"], a["mae_delta"], a["l2_top1000"]) == (1, 1 / 3, 1 / 3, 1)
    assert b["mse_delta"] == pytest.approx(1.25 / 3)
    assert b["mae_delta"] == pytest.approx(0.5)
    assert b["l2_top1000"] == pytest.approx(1.25**0.5)
    assert a["pearson_delta"] == pytest.approx(np.corrcoef([2, 0, 1], [1, 0, 1])[0, 1])
    assert a["pearson"] == pytest.approx(np.corrcoef([3, 3, 1], [2, 3, 1])[0, 1])
    # Centre [2, 2.25, 1.5].
    assert a["pearson_centroid_delta"] == pytest.approx(np.corrcoef([1, 0.75, -0.5], [0, 0.75, -0.5])[0, 1])
    # a is left out of the comparison of a: (0, 1) and (-1.5, 2) lie 0 and 1.5 + 1 from (0, 1).
    assert (
        a[["centroid_accuracy", "discrimination_l1", "discrimination_l2", "discrimination_cosine"]].tolist() == [1] * 4
    )
    assert table["n_significant"].isna().all()
    for name in SCORES:
        if "top20" in name or name in ("direction_match", "delta_overlap_at_N", "overlap_at_N"):
            assert table[name].isna().all()
        assert scores.overall[name] == pytest.approx(table[name].mean(), nan_ok=True)


def naive(observed, predicted, name, n_top=20) -> dict[str, float]:
    """What the definitions say, in the plainest way."""
    x, guess = (adata.X.toarray().astype(np.float64) for adata in (observed, predicted))
    of = observed.obs["perturbation"].to_numpy()
    of_guess = predicted.obs["perturbation"].replace({"G3+G2": "G2+G3"}).to_numpy()
    centroids = {p: x[of == p].mean(0) for p in TARGETS}
    scored = ["G0", "G0+G5", "G1", "G2+G3", "X"]
    control = x[of == "control"]
    c = control.mean(0)
    true, hat = centroids[name], guess[of_guess == name].mean(0)
    delta, delta_hat = true - c, hat - c
    m = np.mean(list(centroids.values()), axis=0)
    t = np.nan_to_num(stats.ttest_ind(x[of == name], control, equal_var=False).statistic)

    ranked = sorted(range(N_GENES), key=lambda g: -abs(t[g]))
    kept = [g for g in ranked if true[g] != 0 or c[g] == 0][:n_top]
    top = ranked[:n_top]

    def differing(cells):
        p = stats.mannwhitneyu(cells, control, method="asymptotic", axis=0).pvalue
        return np.flatnonzero(stats.false_discovery_control(np.where(np.isnan(p), 1, p)) < 0.05)

    significant = set(differing(x[of == name]))
    n = len(significant)
    fold = np.log2(np.expm1(hat) / np.expm1(c))
    found = sorted(differing(guess[of_guess == name]), key=lambda g: -abs(fold[g]))[:n]
    largest = [set(sorted(range(N_GENES), key=lambda g: -abs(d[g]))[:n]) for d in (delta, delta_hat)]

    def r(first, second, genes=slice(None)):
        return np.corrcoef(first[genes], second[genes])[0, 1]

    mask = ~np.isin(np.arange(N_GENES), TARGETS[name])
    changes = np.array([centroids[p] - c for p in scored])[:, mask]
    ranks = {}
    for metric in ("cityblock", "euclidean", "cosine"):
        distances = cdist(changes, delta_hat[mask][None], metric)[:, 0]
        ranks[metric] = 1 - (distances < distances[scored.index(name)]).sum() / len(scored)
    others = [np.linalg.norm(hat - centroids[p]) > np.linalg.norm(hat - true) for p in TARGETS if p != name]
    return {
        "n_cells": (of == name).sum(),
        "n_significant": n,
        "pearson": r(true, hat),
        "pearson_delta": r(delta, delta_hat),
        f"pearson_delta_top{n_top}": r(delta, delta_hat, top),
        f"pearson_delta_top{n_top}_nondropout": r(delta, delta_hat, kept),
        "pearson_centroid_delta": r(true - m, hat - m),
        f"pearson_centroid_delta_top{n_top}": r(true - m, hat - m, kept),
        "mse_delta": np.mean((delta - delta_hat) ** 2),
        "mae_delta": np.mean(abs(delta - delta_hat)),
        "l2_top1000": np.sqrt(((true - hat) ** 2).sum()),
        "centroid_accuracy": np.mean(others),
        "discrimination_l1": ranks["cityblock"],
        "discrimination_l2": ranks["euclidean"],
        "discrimination_cosine": ranks["cosine"],
        "direction_match": np.mean([np.sign(delta[g]) == np.sign(delta_hat[g]) for g in significant]),
        "delta_overlap_at_N": len(largest[0] & largest[1]) / n,
        "overlap_at_N": len(significant & set(found)) / n,
    }


@pytest.mark.parametrize("n_top", [20, 5])
def test_plain_code_gives_the_same(observed, predicted, n_top):
    scores = perturbation_scores(observed, predicted, n_top=n_top)
    table = scores.per_perturbation
    assert list(table.index) == ["G0", "G0+G5", "G1", "G2+G3", "X"]
    expected = pd.DataFrame({name: naive(observed, predicted, name, n_top) for name in table.index}).T
    np.testing.assert_allclose(table, expected[list(table)].astype(float), rtol=1e-5, atol=1e-7)
    assert (table["n_significant"] > 3).all()
    assert 0 <= table["overlap_at_N"].min() < table["overlap_at_N"].max()
    assert table["discrimination_l1"].nunique() > 1
    pd.testing.assert_series_equal(scores.overall, table[list(scores.overall.index)].mean())


def test_l2_is_over_the_genes_that_control_expresses_most(observed, predicted, monkeypatch):
    monkeypatch.setattr("scgpt.metrics._perturbation_table._N_EXPRESSED", 10)
    table = perturbation_scores(observed, predicted).per_perturbation
    is_control = (observed.obs["perturbation"] == "control").to_numpy()
    genes = np.argsort(-observed.X[is_control].toarray().mean(0))[:10]
    x, guess = (means(adata).to_df() for adata in (observed, predicted))
    expected = np.linalg.norm((x.loc["G1"] - guess.loc["G1"]).iloc[genes])
    assert table.loc["G1", "l2_top10"] == pytest.approx(expected, rel=1e-5)


def test_a_gene_not_seen_under_a_perturbation_is_dropout(observed, predicted):
    """The gene that differs most is set to 0 in the perturbed cells: GEARS leaves it out of one of the two."""
    x = observed.X.toarray()
    of = observed.obs["perturbation"].to_numpy()
    gene = int(np.argmax(x[of == "control"].mean(0)))
    x[of == "X", gene] = 0
    observed.X = sp.csr_matrix(x)
    table = perturbation_scores(observed, predicted).per_perturbation
    assert table.loc["X", "pearson_delta_top20"] != pytest.approx(table.loc["X", "pearson_delta_top20_nondropout"])
    expected = pd.DataFrame({name: naive(observed, predicted, name) for name in table.index}).T
    np.testing.assert_allclose(table, expected[list(table)].astype(float), rtol=1e-5, atol=1e-7)


# Marks


def test_a_perfect_prediction_scores_one(observed):
    cells = observed.copy()
    scores = perturbation_scores(observed, cells).overall
    for name in SCORES:
        assert scores[name] == pytest.approx(0 if name in ERRORS else 1, abs=1e-6), name
    scores = perturbation_scores(observed, means(observed)).overall
    assert np.isnan(scores[OF_CELLS])
    for name in SCORES:
        if name != OF_CELLS:
            assert scores[name] == pytest.approx(0 if name in ERRORS else 1, abs=1e-6), name


def test_no_change_is_undefined_wrong_or_chance(observed):
    table = perturbation_scores(observed, no_change(observed, list(TARGETS))).per_perturbation
    undefined = ["pearson_delta", "pearson_delta_top20", "pearson_delta_top20_nondropout", "overlap_at_N"]
    assert table[undefined].isna().all(axis=None)
    assert (table[["direction_match", "delta_overlap_at_N"]] == 0).all(axis=None)
    # All are equally far by cosine, and by the others in an order that has nothing to do with the prediction.
    assert table["discrimination_cosine"].tolist() == pytest.approx([1 - 2.5 / 6] * 6)
    for name in ("discrimination_l1", "discrimination_l2"):
        assert 0.4 < table[name].mean() < 0.75
    assert 0.3 < table["centroid_accuracy"].mean() < 0.7


def test_what_perturbations_have_in_common_scores_by_control_and_not_by_centroid(rng, rates):
    """All perturbations share a large change; the mean of the others has nothing of what is special to one."""
    rates[1:] *= np.where(rng.random(N_GENES) < 0.5, 4, 1)
    sizes = dict(zip(["control", *TARGETS], [60] * 7, strict=True))
    train, test = draw(rng, sizes, rates), draw(rng, sizes, rates)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        scores = perturbation_scores(test, mean_of_perturbations(train, list(TARGETS)), reference=train).overall
    assert scores["pearson_delta"] > 0.8
    # All groups are of the same size, so what is predicted is the centre itself.
    assert np.isnan(scores["pearson_centroid_delta"])
    assert np.isnan(scores["pearson_centroid_delta_top20"])
    assert scores["centroid_accuracy"] == pytest.approx(0.5, abs=0.15)


def test_the_centre_is_that_of_the_reference(observed, predicted, rng, rates):
    train = draw(rng, {"control": 10, "G7": 5, "G8": 30}, rates[:3])
    table = perturbation_scores(observed, predicted, reference=train).per_perturbation
    m = means(train).X.mean(0)
    x, guess = (means(adata).to_df().loc["G0"] - m for adata in (observed, predicted))
    assert table.loc["G0", "pearson_centroid_delta"] == pytest.approx(np.corrcoef(x, guess)[0, 1])
    default = perturbation_scores(observed, predicted).per_perturbation
    others = [c for c in table if "centroid_delta" not in c]
    pd.testing.assert_frame_equal(table[others], default[others])
    # Control cells of the reference are not needed, and its genes may be more.
    perturbed = ad.concat(
        [train[10:], ad.AnnData(np.zeros((35, 1)), train.obs[10:], pd.DataFrame(index=["Z"]))], axis=1
    )
    perturbed.obs = train.obs[10:]
    again = perturbation_scores(observed, predicted, reference=perturbed).per_perturbation
    pd.testing.assert_frame_equal(again, table)


def test_observed_perturbations_that_are_not_predicted_compete_for_the_centroid_alone(observed, predicted):
    few = observed[observed.obs["perturbation"].isin(["control", "G0", "G1"])]
    some = predicted[predicted.obs["perturbation"].isin(["G0", "G1"])]
    with_others = perturbation_scores(observed, some).per_perturbation
    alone = perturbation_scores(few, some).per_perturbation
    differing = {"centroid_accuracy", "pearson_centroid_delta", "pearson_centroid_delta_top20"}
    same = [c for c in alone if c not in differing]
    pd.testing.assert_frame_equal(with_others[same], alone[same])
    assert set(alone["centroid_accuracy"]) <= {0, 1}
    assert (with_others["pearson_centroid_delta"] != alone["pearson_centroid_delta"]).all()


# What must not matter


def test_order_names_and_kind_of_matrix_do_not_matter(observed, predicted, rng):
    expected = perturbation_scores(observed, predicted).per_perturbation
    other = observed[rng.permutation(observed.n_obs), rng.permutation(N_GENES)].copy()
    other.obs["guide"] = other.obs.pop("perturbation").map(
        lambda name: {"control": "ctrl", "G2+G3": "G3+G2", "G0": "ctrl+G0", "G1": "G1+ctrl"}.get(name, name)
    )
    other.layers["log"] = sp.csc_matrix(other.X)
    other.X = other.X * 3
    dense = predicted[rng.permutation(predicted.n_obs)].copy()
    dense.X = dense.X.toarray()
    dense.obs["perturbation"] = pd.Categorical(dense.obs["perturbation"].replace({"control": "ctrl"}))
    table = perturbation_scores(other, dense, perturbation_key="guide", control="ctrl", layer="log").per_perturbation
    pd.testing.assert_frame_equal(table, expected, check_exact=False, rtol=1e-6)


def test_control_cells_among_the_predictions_have_no_part(observed, predicted):
    expected = perturbation_scores(observed, predicted[predicted.obs["perturbation"] != "control"])
    pd.testing.assert_frame_equal(perturbation_scores(observed, predicted).per_perturbation, expected.per_perturbation)


def test_means_score_as_the_cells_they_are_means_of(observed, predicted):
    of_cells = perturbation_scores(observed, predicted)
    of_means = perturbation_scores(observed, means(predicted).copy()[::-1])
    np.testing.assert_allclose(of_means.overall.drop(OF_CELLS), of_cells.overall.drop(OF_CELLS), rtol=1e-5)
    assert of_means.per_perturbation[OF_CELLS].isna().all()


def test_nothing_is_written(observed, predicted):
    before = observed.copy(), predicted.copy()
    perturbation_scores(observed, predicted, n_bootstrap=2)
    for adata, old in zip((observed, predicted), before, strict=True):
        assert (adata.X != old.X).nnz == 0
        assert adata.obs.equals(old.obs)
        assert not adata.uns


def test_no_warning_is_let_through(observed, predicted):
    x = observed.X.toarray()
    x[:, 10:] = 0  # nothing to test in most genes
    observed.X = x
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        warnings.simplefilter("error", RuntimeWarning)
        perturbation_scores(observed, predicted, n_bootstrap=3)
        perturbation_scores(observed, means(predicted))


# Genes


def test_genes_that_both_have_are_scored(observed, predicted):
    some = [f"G{i}" for i in range(0, N_GENES, 2)]
    expected = perturbation_scores(observed[:, some], predicted[:, some]).per_perturbation
    with pytest.warns(UserWarning, match="30 genes are scored: 30 of those observed are not .* 0 of those predicted"):
        table = perturbation_scores(observed, predicted[:, some]).per_perturbation
    pd.testing.assert_frame_equal(table, expected)
    with pytest.warns(UserWarning, match="0 of those observed are not predicted, and 30 of those predicted"):
        table = perturbation_scores(observed[:, some[::-1]], predicted).per_perturbation
    pd.testing.assert_frame_equal(table, expected, check_exact=False, rtol=1e-6)


def test_one_perturbation_has_nothing_to_be_told_from(observed, predicted):
    one = observed[observed.obs["perturbation"].isin(["control", "G0"])]
    table = perturbation_scores(one, predicted[predicted.obs["perturbation"] == "G0"]).per_perturbation
    of_others = ["centroid_accuracy", "discrimination_l1", "discrimination_l2", "discrimination_cosine"]
    assert table[of_others].isna().all(axis=None)
    assert table[["pearson_centroid_delta", "pearson_centroid_delta_top20"]].isna().all(axis=None)
    assert table["pearson_delta"].notna().all()


# Intervals


def test_intervals_come_from_drawing_perturbations(observed, predicted):
    scores = perturbation_scores(observed, predicted, n_bootstrap=200, seed=3)
    plain = perturbation_scores(observed, predicted)
    s = scores.overall
    assert list(s.index[:3]) == ["pearson", "pearson_low", "pearson_high"]
    assert len(s) == 3 * len(SCORES)
    pd.testing.assert_series_equal(s[SCORES], plain.overall)
    pd.testing.assert_frame_equal(scores.per_perturbation, plain.per_perturbation)
    for name in SCORES:
        assert s[f"{name}_low"] <= s[name] <= s[f"{name}_high"]
    index = np.random.default_rng(5).integers(5, size=5)
    one = perturbation_scores(observed, predicted, n_bootstrap=1, seed=5).overall
    expected = plain.per_perturbation["pearson_delta"].iloc[index].mean()
    assert one["pearson_delta_low"] == one["pearson_delta_high"] == pytest.approx(expected)


# Unusual and wrong input


def test_few_cells_and_counts_are_warned_of(observed, predicted):
    few = observed[np.r_[: observed.n_obs - 33]]
    with pytest.warns(UserWarning, match="1 perturbations have fewer than 5 cells, .*: G0\\+G5 \\(2\\)") as caught:
        perturbation_scores(few, predicted)
    assert len(caught) == 1
    assert caught[0].filename == __file__
    observed.layers["counts"] = observed.X.ceil()
    with pytest.warns(UserWarning, match="Layer 'counts' of the observed cells seems to hold counts"):
        perturbation_scores(observed, predicted, layer="counts")


def rename(adata, old, new):
    adata.obs["perturbation"] = adata.obs["perturbation"].replace({old: new})


def spoil(adata):
    adata.X = adata.X.toarray()
    adata.X[(adata.obs["perturbation"] == "G1").to_numpy(), 3] = np.nan


def same_genes(adata):
    adata.var_names = ["G0", *adata.var_names[:-1]]


@pytest.mark.parametrize(
    ("change", "kwargs", "error", "message"),
    [
        (lambda o, p: o.obs.pop("perturbation"), {}, KeyError, "no column 'perturbation' in .obs for the perturb"),
        (lambda o, p: p.obs.pop("perturbation"), {}, KeyError, "no column 'perturbation' in .obs for the perturb"),
        (None, {"layer": "log"}, KeyError, "no layer 'log'"),
        (None, {"control": "ctrl"}, ValueError, "No cell is control: none is 'ctrl'"),
        (lambda o, p: rename(p, "G1", None), {}, ValueError, "12 of 72 cells have no perturbation"),
        (lambda o, p: rename(o, "G1", "G1+G1"), {}, ValueError, "'G1\\+G1' names G1 twice"),
        (lambda o, p: rename(o, "G1", "G9"), {}, ValueError, "1 predicted perturb.* no observed cells .*: G1\\."),
        (
            lambda o, p: p.obs.insert(0, "perturbation", ["control"] * p.obs.pop("perturbation").size),
            {},
            ValueError,
            "no prediction of a perturbation",
        ),
        (
            lambda o, p: setattr(p, "var_names", [f"E{i}" for i in range(N_GENES)]),
            {},
            ValueError,
            "No gene is in both: the observed cells have G0, G1, G2 and 57 more, the predicted E0",
        ),
        (lambda o, p: same_genes(o), {}, ValueError, "observed cells are not unique: G0 stand"),
        (lambda o, p: same_genes(p), {}, ValueError, "predicted cells are not unique: G0 stand"),
        (lambda o, p: spoil(o), {}, ValueError, "NaN or infinite values in what is observed of G1"),
        (lambda o, p: spoil(p), {}, ValueError, "NaN or infinite values in what is predicted of G1"),
        (None, {"n_top": 1}, ValueError, "n_top has to be 2 or more"),
    ],
    ids=[
        *("no column", "no predicted column", "no layer", "no control", "missing", "senseless", "not observed"),
        *("nothing", "no gene", "genes twice", "predicted twice", "NaN", "predicted NaN", "n_top"),
    ],
)
def test_wrong_input_is_an_error_that_says_what(change, kwargs, error, message, observed, predicted):
    if change is not None:
        change(observed, predicted)
    with pytest.raises(error, match=message):
        perturbation_scores(observed, predicted, **kwargs)


def test_a_wrong_reference_is_an_error(observed, predicted):
    with pytest.raises(ValueError, match="No cell of the reference is perturbed"):
        perturbation_scores(observed, predicted, reference=observed[:10])
    with pytest.raises(ValueError, match="The reference lacks 2 of 60 scored genes: G0, G1"):
        perturbation_scores(observed, predicted, reference=observed[:, 2:])
    with pytest.raises(KeyError, match="no layer 'log'"):
        observed.layers["log"] = observed.X
        perturbation_scores(
            observed, predicted, layer="log", reference=ad.AnnData(observed.X, observed.obs, observed.var)
        )


# cell-eval


def test_cell_eval_gives_the_same_where_definitions_are_shared(observed, predicted, tmp_path):
    cell_eval = pytest.importorskip("cell_eval", reason="cell-eval is not installed")

    rename(predicted, "G3+G2", "G2+G3")
    real = observed[observed.obs["perturbation"].isin(predicted.obs["perturbation"].unique())].copy()
    control = real[real.obs["perturbation"] == "control"]
    guess = ad.concat([control, predicted[predicted.obs["perturbation"] != "control"]], index_unique="-")
    names = ["G0", "G0+G5", "G1", "G2+G3", "X"]
    evaluator = cell_eval.MetricsEvaluator(
        guess,
        real,
        control_pert="control",
        pert_col="perturbation",
        num_threads=1,
        outdir=str(tmp_path / "out"),
    )
    theirs, _ = evaluator.compute(write_csv=False)
    theirs = theirs.to_pandas().set_index("perturbation").loc[names]
    table = perturbation_scores(real, predicted).per_perturbation
    assert (table["n_significant"] > 0).all()
    for name in ("pearson_delta", "mse_delta", "mae_delta", "overlap_at_N"):
        np.testing.assert_allclose(table[name], theirs[name], rtol=1e-4, atol=1e-6, err_msg=name)
    np.testing.assert_allclose(table["direction_match"], theirs["de_direction_match"], rtol=1e-6)
    # It leaves out a single gene with the name of the perturbation, and none of a combination.
    single = ["G0", "G1", "X"]
    for name in ("l1", "l2", "cosine"):
        ours = table[f"discrimination_{name}"]
        np.testing.assert_allclose(ours[single], theirs[f"discrimination_score_{name}"][single], err_msg=name)
