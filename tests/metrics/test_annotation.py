import anndata as ad
import numpy as np
import pandas as pd
import pytest
import sklearn.metrics

from scgpt.metrics import annotation_scores

OVERALL = ["accuracy", "macro_precision", "macro_recall", "macro_F1", "weighted_F1", "ECE"]


def cells(true, predicted, confidence=None) -> ad.AnnData:
    names = [f"c{i}" for i in range(len(true))]
    obs = pd.DataFrame({"cell_type": list(true), "call": list(predicted)}, index=names)
    if confidence is not None:
        obs["call_confidence"] = confidence
    return ad.AnnData(obs=obs)


@pytest.fixture
def six() -> ad.AnnData:
    return cells("AAABBC", "AABBDA", [0.9, 0.8, 0.6, 0.55, 0.3, 0.7])


@pytest.fixture
def many(rng) -> ad.AnnData:
    """Cells of four types of unequal size; a fifth type and unknown are predicted, too."""
    true = rng.choice(list("ABCD"), 300, p=[0.5, 0.3, 0.15, 0.05])
    right = rng.random(300) < 0.7
    predicted = np.where(right, true, rng.choice(["A", "B", "C", "E", "Unknown"], 300))
    confidence = np.clip(0.3 + 0.4 * right + rng.normal(0, 0.2, 300), 0, 1).round(2)
    return cells(true, predicted, confidence)


def overall(adata, **kwargs) -> pd.Series:
    return annotation_scores(adata, "cell_type", "call", **kwargs).overall


# Numbers


def test_scores_are_those_worked_by_hand(six):
    scores = annotation_scores(six, "cell_type", "call", n_bins=2)
    assert list(scores.overall.index) == OVERALL
    assert scores.overall.dtype == np.float64
    assert scores.overall["accuracy"] == 3 / 6
    for name in ("macro_precision", "macro_recall", "macro_F1"):
        assert scores.overall[name] == pytest.approx((2 / 3 + 1 / 2 + 0) / 3)
    assert scores.overall["weighted_F1"] == pytest.approx((3 * 2 / 3 + 2 * 1 / 2) / 6)
    # The upper bin holds five cells, three of them right, the lower bin one that is wrong.
    assert scores.overall["ECE"] == pytest.approx((abs(3 - 3.55) + abs(0 - 0.3)) / 6)
    expected = pd.DataFrame(
        {
            "support": [3, 2, 1],
            "precision": [2 / 3, 1 / 2, 0],
            "recall": [2 / 3, 1 / 2, 0],
            "F1": [2 / 3, 1 / 2, 0],
            "mean_confidence": [2.3 / 3, 0.425, 0.7],
        },
        index=pd.Index(["A", "B", "C"], name="cell_type"),
    )
    pd.testing.assert_frame_equal(scores.per_type, expected)


def test_cells_called_unknown_are_wrong_and_their_confidence_does_not_count(six):
    scores = annotation_scores(six, "cell_type", "call", n_bins=2, unknown_label="D")
    s = scores.overall
    assert list(s.index) == [*OVERALL, "answered", "accuracy_answered"]
    assert (s["accuracy"], s["answered"], s["accuracy_answered"]) == (3 / 6, 5 / 6, 3 / 5)
    assert scores.per_type["recall"].tolist() == [2 / 3, 1 / 2, 0]
    assert scores.per_type["answered"].tolist() == [1, 0.5, 1]
    assert s["ECE"] == pytest.approx(0.55 / 5)


def test_cells_of_unknown_types_are_ranked_by_confidence_and_otherwise_left_out(six):
    scores = annotation_scores(six, "cell_type", "call", n_bins=2, unknown_label="D", known_types=["A", "B", "Z"])
    s = scores.overall
    assert list(s.index) == [*OVERALL, "answered", "accuracy_answered", "unknown_AUROC", "unknown_found"]
    # The cell of type C has 0.7; two of the five others have more.
    assert s["unknown_AUROC"] == pytest.approx(2 / 5)
    assert s["unknown_found"] == 0
    assert (s["accuracy"], s["answered"], s["accuracy_answered"]) == (3 / 5, 4 / 5, 3 / 4)
    assert s["macro_precision"] == pytest.approx((1 + 1 / 2) / 2)  # no C is taken for A any more
    assert s["ECE"] == pytest.approx(abs(3 - 2.85) / 4)
    unknown = scores.per_type.loc["C"]
    assert unknown[["precision", "recall", "F1"]].isna().all()
    assert unknown[["support", "mean_confidence", "answered"]].tolist() == [1, 0.7, 1]
    assert overall(cells("AC", ["A", "none"], [0.9, 0.1]), unknown_label="none", known_types="A")["unknown_found"] == 1


def test_scikit_learn_gives_the_same(many):
    true, predicted, confidence = (many.obs[key].to_numpy() for key in ("cell_type", "call", "call_confidence"))
    types = list("ABCD")
    scores = annotation_scores(many, "cell_type", "call", unknown_label="Unknown")
    s = scores.overall
    expected = sklearn.metrics.precision_recall_fscore_support(true, predicted, labels=types, zero_division=0)
    np.testing.assert_allclose(scores.per_type[["precision", "recall", "F1", "support"]].to_numpy().T, expected)
    macro = sklearn.metrics.precision_recall_fscore_support(
        true, predicted, labels=types, average="macro", zero_division=0
    )
    np.testing.assert_allclose(s[["macro_precision", "macro_recall", "macro_F1"]], macro[:3])
    assert s["accuracy"] == pytest.approx(sklearn.metrics.accuracy_score(true, predicted))
    assert s["weighted_F1"] == pytest.approx(
        sklearn.metrics.f1_score(true, predicted, labels=types, average="weighted", zero_division=0)
    )
    answered = predicted != "Unknown"
    assert s["accuracy_answered"] == pytest.approx((true == predicted)[answered].mean())
    scores = overall(many, known_types=["A", "B", "C"])
    assert scores["unknown_AUROC"] == pytest.approx(sklearn.metrics.roc_auc_score(true == "D", 1 - confidence))


def test_perfect_and_hopeless_predictions():
    s = overall(cells("AABC", "AABC", [1.0] * 4))
    assert (s[OVERALL[:-1]] == 1).all()
    assert s["ECE"] == 0
    s = overall(cells("AABC", "BBCA", [1.0] * 4))
    assert (s[OVERALL[:-1]] == 0).all()
    assert s["ECE"] == 1


# Confidence


def test_confidence_is_looked_for_beside_the_prediction(six):
    expected = overall(six)
    assert expected["ECE"] > 0
    renamed = six.copy()
    renamed.obs = renamed.obs.rename(columns={"call": "scgpt_label", "call_confidence": "scgpt_confidence"})
    pd.testing.assert_series_equal(annotation_scores(renamed, "cell_type").overall, expected)
    six.obs["sure"] = six.obs.pop("call_confidence")
    pd.testing.assert_series_equal(overall(six, confidence_key="sure"), expected)
    scores = annotation_scores(six, "cell_type", "call")
    assert np.isnan(scores.overall["ECE"])
    assert scores.per_type["mean_confidence"].isna().all()
    pd.testing.assert_series_equal(scores.overall.drop("ECE"), expected.drop("ECE"))


def test_confidence_is_the_probability_of_the_predicted_type(six):
    expected = overall(six, unknown_label="D")
    confidence = six.obs.pop("call_confidence").to_numpy()
    table = pd.DataFrame(0.0, six.obs_names, ["B", "A", "C"])
    for i, name in enumerate(["A", "A", "B", "B", "C", "A"]):
        table.iloc[i, table.columns.get_loc(name)] = confidence[i]
        table.iloc[i, table.columns.get_loc({"A": "B", "B": "C", "C": "A"}[name])] = 1 - confidence[i]
    six.obsm["call_probabilities"] = table.astype(np.float32)
    np.testing.assert_allclose(overall(six, unknown_label="D"), expected, rtol=1e-5)
    six.obsm["elsewhere"] = six.obsm.pop("call_probabilities")
    np.testing.assert_allclose(overall(six, unknown_label="D", probabilities="elsewhere"), expected, rtol=1e-5)
    # The cell that was called unknown has the probability of its likeliest type.
    scores = annotation_scores(six, "cell_type", "call", unknown_label="D", probabilities="elsewhere")
    assert scores.per_type.loc["B", "mean_confidence"] == pytest.approx((0.55 + 0.7) / 2)


@pytest.mark.parametrize("column", ["CD4+/CD25", "CD4+|CD25"])
def test_a_slash_in_a_type_may_be_a_bar_in_its_column(column):
    adata = cells("AB", ["A", "B"])
    for key in ("cell_type", "call"):
        adata.obs[key] = ["A", "CD4+/CD25"]
    adata.obsm["call_probabilities"] = pd.DataFrame({"A": [0.9, 0.2], column: [0.1, 0.8]}, adata.obs_names)
    assert annotation_scores(adata, "cell_type", "call").per_type["mean_confidence"].tolist() == pytest.approx(
        [0.9, 0.8]
    )


def test_a_probability_of_unknown_is_no_confidence_in_a_type():
    adata = cells("AB", ["A", "none"])
    adata.obsm["call_probabilities"] = pd.DataFrame({"A": [0.9, 0.1], "none": [0.1, 0.9]}, adata.obs_names)
    scores = annotation_scores(adata, "cell_type", "call", unknown_label="none")
    assert scores.per_type["mean_confidence"].tolist() == pytest.approx([0.9, 0.1])


# What must not matter


def test_the_order_and_kind_of_names_do_not_matter(many, rng):
    kwargs = {"unknown_label": "Unknown", "known_types": ["A", "B", "C"]}
    expected = annotation_scores(many, "cell_type", "call", **kwargs)
    shuffled = many[rng.permutation(300)].copy()
    shuffled.obs["cell_type"] = pd.Categorical(shuffled.obs["cell_type"], list("ZDCBA"))
    shuffled.obs["call"] = shuffled.obs["call"].astype("category")
    scores = annotation_scores(shuffled, "cell_type", "call", **kwargs)
    pd.testing.assert_series_equal(scores.overall, expected.overall)
    assert list(scores.per_type.index) == list("DCBA")
    pd.testing.assert_frame_equal(scores.per_type.loc[list("ABCD")], expected.per_type)


def test_names_are_compared_as_text():
    adata = cells([1, 1, 2], ["1", "2", "2"])
    s = overall(adata)
    assert s["accuracy"] == pytest.approx(2 / 3)


def test_nothing_is_written(many):
    before = many.copy()
    overall(many, n_bootstrap=2)
    assert many.obs.equals(before.obs)
    assert (list(many.obsm), list(many.uns)) == ([], [])


# Intervals


def test_intervals_hold_the_score(many):
    s = overall(many, unknown_label="Unknown", known_types=list("ABC"), n_bootstrap=300)
    plain = overall(many, unknown_label="Unknown", known_types=list("ABC"))
    pd.testing.assert_series_equal(s[plain.index], plain)
    assert list(s.index[:3]) == ["accuracy", "accuracy_low", "accuracy_high"]
    assert "ECE_low" not in s
    assert len(s) == 3 * len(plain) - 2
    for name in plain.index.drop(["ECE", "unknown_found"]):
        assert s[f"{name}_low"] < s[name] < s[f"{name}_high"]
    # That of a share is about two standard deviations wide on both sides.
    n = int((many.obs["cell_type"] != "D").sum())
    width = 2 * 1.96 * np.sqrt(s["accuracy"] * (1 - s["accuracy"]) / n)
    assert s["accuracy_high"] - s["accuracy_low"] == pytest.approx(width, rel=0.2)


def test_intervals_are_those_of_the_seed(many):
    first = overall(many, n_bootstrap=20, seed=1)
    pd.testing.assert_series_equal(overall(many, n_bootstrap=20, seed=1), first)
    assert overall(many, n_bootstrap=20, seed=2)["macro_F1_low"] != first["macro_F1_low"]


def test_a_draw_is_a_data_set_of_its_cells(many):
    """A single draw, compared with the scores of the cells that it holds."""
    index = np.random.default_rng(5).integers(300, size=300)
    kwargs = {"unknown_label": "Unknown", "known_types": list("ABC")}
    drawn = cells(*many.obs.iloc[index].to_numpy().T[:2], many.obs["call_confidence"].to_numpy()[index])
    expected = overall(drawn, **kwargs)
    s = overall(many, n_bootstrap=1, seed=5, **kwargs)
    for name in expected.index.drop("ECE"):
        assert s[f"{name}_low"] == s[f"{name}_high"] == pytest.approx(expected[name])


def test_types_that_are_not_drawn_are_left_out():
    s = overall(cells("A" * 30 + "B", "A" * 30 + "A"), n_bootstrap=50)
    assert s["macro_recall"] == 0.5
    assert s["macro_recall_high"] == 1  # draws without the B


# Unusual and wrong input


def test_cells_of_one_type_are_scored():
    s = overall(cells("AAAA", "AAAB"))
    assert s["accuracy"] == s["macro_recall"] == 3 / 4
    assert s["macro_precision"] == 1


def test_all_cells_called_unknown(six):
    six.obs["call"] = "no idea"
    scores = annotation_scores(six, "cell_type", "call", unknown_label="no idea", known_types=["A", "B"], n_bootstrap=3)
    s = scores.overall
    assert (s[["accuracy", "macro_precision", "macro_recall", "macro_F1", "weighted_F1", "answered"]] == 0).all()
    assert s[["ECE", "accuracy_answered", "accuracy_answered_low"]].isna().all()
    assert s["unknown_found"] == 1
    assert s["unknown_AUROC"] == pytest.approx(2 / 5)


def test_without_unknown_types_there_is_nothing_to_find(six):
    s = overall(six, unknown_label="D", known_types=["A", "B", "C"])
    assert s[["unknown_AUROC", "unknown_found"]].isna().all()
    pd.testing.assert_series_equal(s.drop(["unknown_AUROC", "unknown_found"]), overall(six, unknown_label="D"))


def set_probabilities(change):
    def apply(adata):
        del adata.obs["call_confidence"]
        table = pd.DataFrame({"A": 0.5, "B": 0.25, "D": 0.25}, adata.obs_names)
        adata.obsm["call_probabilities"] = change(table)

    return apply


def put(table, column, values):
    return table.assign(**{column: values})


def set_obs(key, values):
    def apply(adata):
        adata.obs[key] = values

    return apply


@pytest.mark.parametrize(
    ("change", "kwargs", "error", "message"),
    [
        (lambda a: a.obs.pop("cell_type"), {}, KeyError, "no column 'cell_type' in .obs for the label"),
        (lambda a: a.obs.pop("call"), {}, KeyError, "no column 'call' in .obs for the prediction"),
        (set_obs("cell_type", [None, None, *"ABBC"]), {}, ValueError, "2 of 6 cells have no label .* leave them out"),
        (set_obs("call", [np.nan, *"AABBC"]), {}, ValueError, "1 of 6 cells have no prediction"),
        (None, {"unknown_label": "C"}, ValueError, "1 of 6 cells are 'C' in .obs\\['cell_type'\\].* leave them out"),
        (None, {"confidence_key": "sure"}, KeyError, "no column 'sure' in .obs for the confidence"),
        (None, {"probabilities": "p"}, KeyError, "no probabilities 'p' in .obsm"),
        (None, {"probabilities": "p", "confidence_key": "sure"}, ValueError, "pass one of them"),
        (set_obs("call_confidence", [0.5, 1.5, -0.1, np.nan, 1, 0]), {}, ValueError, "in 3 of 6 cells"),
        (set_probabilities(lambda t: put(t, "B", [0.25] * 5 + [0.5])), {}, ValueError, "add up to one in 1 of 6"),
        (set_probabilities(lambda t: put(t, "B", np.nan)), {}, ValueError, "add up to one in 6 of 6"),
        (set_probabilities(lambda t: t.assign(A=1.25, B=-0.5)), {}, ValueError, "negative, .* in 6 of 6"),
        (
            set_probabilities(lambda t: t.rename(columns={"D": "other"})),
            {},
            ValueError,
            "no column for \\['D'\\], which are predicted",
        ),
        (set_probabilities(lambda t: t.to_numpy()), {}, ValueError, "does not name its columns"),
        (None, {"n_bins": 0}, ValueError, "n_bins has to be 1 or more"),
        (None, {"known_types": ["X"]}, ValueError, "No cell is of a known type: .* known_types \\['X'\\]"),
        (
            lambda a: a.obs.pop("call_confidence"),
            {"known_types": ["A"]},
            ValueError,
            "Unknown types are told by the confidence, .* pass confidence_key or probabilities",
        ),
    ],
    ids=[
        *("no labels", "no predictions", "missing labels", "missing prediction", "unknown is true", "no confidence"),
        *("no probabilities", "both", "confidence out of range", "sum", "NaN", "negative", "column", "array", "bins"),
        *("none known", "nothing to rank by"),
    ],
)
def test_wrong_input_is_an_error_that_says_what(change, kwargs, error, message, six):
    if change is not None:
        change(six)
    with pytest.raises(error, match=message):
        overall(six, **kwargs)


def test_a_column_for_unknown_need_not_be_there(six):
    set_probabilities(lambda t: t.drop(columns="D").assign(B=0.5))(six)
    assert overall(six, unknown_label="D")["ECE"] == pytest.approx(abs(3 - 2.5) / 5)
