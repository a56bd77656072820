import warnings

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from scgpt.metrics import perturbation_scores, replicate_ceiling

SIZES = {"control": 80, "A": 40, "B+A": 41, "C": 30}


@pytest.fixture
def screen(rng) -> ad.AnnData:
    base = rng.gamma(1, 1, 40)
    rates = base * np.where(rng.random((4, 40)) < 0.4, rng.lognormal(0, 0.8, (4, 40)), 1)
    x = np.log1p(rng.poisson(np.repeat(rates, list(SIZES.values()), axis=0)))
    names = np.repeat(list(SIZES), list(SIZES.values()))
    obs = pd.DataFrame({"perturbation": names}, index=[f"c{i:03}" for i in range(len(names))])
    return ad.AnnData(sp.csr_matrix(x.astype(np.float32)), obs, pd.DataFrame(index=[f"G{i}" for i in range(40)]))


def test_halves_predict_one_another_well_where_cells_are_many(screen):
    scores = replicate_ceiling(screen)
    table = scores.per_perturbation
    assert table.index.tolist() == ["A", "A+B", "C"]
    assert table["n_cells"].tolist() == [20, 20, 15]
    assert list(scores.overall.index) == list(
        perturbation_scores(screen, screen[screen.obs["perturbation"] != "control"]).overall.index
    )
    assert scores.overall["pearson_delta"] > 0.7
    assert scores.overall["centroid_accuracy"] > 0.9
    assert 0 < scores.overall["overlap_at_N"] < 1
    pd.testing.assert_series_equal(scores.overall, table[list(scores.overall.index)].mean())


def test_a_half_is_compared_with_control_cells_of_its_own(screen):
    """A single split, made again by hand."""
    x = screen.X.toarray().astype(np.float64)
    names = {"A": "A", "A+B": "B+A", "C": "C", "control": "control"}
    rng = np.random.default_rng([7, 0])
    rows = {new: np.flatnonzero(screen.obs["perturbation"] == old) for new, old in names.items()}
    rows = {name: rng.permutation(group) for name, group in rows.items()}
    half = [
        {name: x[g[: len(g) // 2]].mean(0) for name, g in rows.items()},
        {name: x[g[len(g) // 2 : 2 * (len(g) // 2)]].mean(0) for name, g in rows.items()},
    ]
    centres = [np.mean([h["A"], h["A+B"], h["C"]], axis=0) for h in half]
    table = replicate_ceiling(screen, n_splits=1, seed=7).per_perturbation
    for name in ("A", "A+B", "C"):
        deltas = [h[name] - h["control"] for h in half]
        from_centre = [h[name] - c for h, c in zip(half, centres, strict=True)]
        row = table.loc[name]
        assert row["pearson_delta"] == pytest.approx(np.corrcoef(*deltas)[0, 1])
        assert row["pearson_centroid_delta"] == pytest.approx(np.corrcoef(*from_centre)[0, 1])
        assert row["mse_delta"] == pytest.approx(np.mean((deltas[0] - deltas[1]) ** 2))
        assert row["l2_top1000"] == pytest.approx(np.linalg.norm(half[0][name] - half[1][name]))


def test_scores_are_means_over_splits_that_the_seed_makes(screen, rng):
    first = replicate_ceiling(screen, n_splits=2, seed=1)
    again = replicate_ceiling(screen[rng.permutation(screen.n_obs)], n_splits=2, seed=1)
    pd.testing.assert_frame_equal(again.per_perturbation, first.per_perturbation)
    other = replicate_ceiling(screen, n_splits=2, seed=2)
    assert other.overall["pearson_delta"] != first.overall["pearson_delta"]
    one = replicate_ceiling(screen, n_splits=1, seed=1).per_perturbation["mse_delta"]
    second = 2 * first.per_perturbation["mse_delta"] - one
    assert (second > 0).all()
    assert not np.allclose(second, one)


def test_a_reference_and_intervals_are_passed_on(screen):
    scores = replicate_ceiling(screen, reference=screen[screen.obs["perturbation"] != "C"], n_bootstrap=10)
    assert scores.overall["pearson_low"] <= scores.overall["pearson"] <= scores.overall["pearson_high"]
    default = replicate_ceiling(screen)
    changed = "pearson_centroid_delta"
    assert (scores.per_perturbation[changed] != default.per_perturbation[changed]).all()


def test_few_cells_are_left_out_with_a_warning(screen):
    some = screen[np.r_[0:80, 80:83, 120:124, 161:191]]
    with pytest.warns(UserWarning, match="1 perturbations with fewer than 4 cells are left out: A\\.") as caught:
        table = replicate_ceiling(some).per_perturbation
    assert caught[0].filename == __file__
    assert table["n_cells"].to_dict() == {"A+B": 2, "C": 15}
    assert table[["pearson_delta", "pearson_delta_top20"]].notna().all(axis=None)


def test_nothing_is_warned_of_otherwise(screen):
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        warnings.simplefilter("error", RuntimeWarning)
        # A single perturbation has undefined scores.
        table = replicate_ceiling(screen[screen.obs["perturbation"].isin(["control", "A"])]).per_perturbation
    assert table["centroid_accuracy"].isna().all()


@pytest.mark.parametrize(
    ("rows", "kwargs", "message"),
    [
        (np.r_[0:3, 80:120], {}, "4 cells of control and of a perturbation are needed"),
        (np.r_[0:80, 80:83], {}, "4 cells of control and of a perturbation are needed"),
        (np.r_[80:120], {}, "No cell is control"),
        (np.r_[0:120], {"n_splits": 0}, "n_splits has to be 1 or more, and is 0"),
        (np.r_[0:120], {"n_top": 1}, "n_top has to be 2 or more"),
    ],
)
def test_wrong_input_is_an_error_that_says_what(rows, kwargs, message, screen):
    with pytest.raises(ValueError, match=message):
        replicate_ceiling(screen[rows], **kwargs)


def test_values_that_are_no_numbers_are_an_error(screen):
    x = screen.X.toarray()
    x[90, 3] = np.nan
    with pytest.raises(ValueError, match="NaN or infinite values in what is observed of A"):
        replicate_ceiling(ad.AnnData(x, screen.obs, screen.var))
