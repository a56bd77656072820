import anndata as ad
import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest

from scgpt.metrics import annotation_scores
from scgpt.pl import confidence

mpl.use("Agg")
plt = pytest.importorskip("matplotlib.pyplot")


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    plt.close("all")


@pytest.fixture
def adata() -> ad.AnnData:
    obs = pd.DataFrame(
        {
            "cell_type": list("AAABBC"),
            "scgpt_label": [*"AABB", "Unknown", "A"],
            "scgpt_confidence": [0.9, 0.8, 0.6, 0.65, 0.3, 0.7],
        }
    )
    return ad.AnnData(obs=obs.set_axis([f"c{i}" for i in range(6)]))


def points(ax) -> np.ndarray:
    (line,) = (line for line in ax.lines if line.get_marker() == "o")
    return line.get_xydata()


def test_points_are_bins_with_a_cell(adata):
    ax = confidence(adata, "cell_type", n_bins=4, show=False)
    np.testing.assert_allclose(points(ax), [[0.3, 0], [(0.6 + 0.65 + 0.7) / 3, 1 / 3], [0.85, 1]])
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("confidence", "accuracy")
    (diagonal,) = (line for line in ax.lines if line.get_marker() != "o")
    np.testing.assert_array_equal(diagonal.get_xydata(), [[0, 0], [1, 1]])


def test_above_stands_a_histogram(adata):
    ax = confidence(adata, "cell_type", n_bins=4, show=False)
    (above,) = ax.child_axes
    np.testing.assert_allclose([bar.get_height() for bar in above.patches], [0, 1 / 6, 3 / 6, 2 / 6])
    np.testing.assert_allclose([bar.get_x() for bar in above.patches], [0, 0.25, 0.5, 0.75])
    assert above.get_xlim() == ax.get_xlim()
    figure = ax.get_figure()
    figure.draw_without_rendering()
    assert above.get_window_extent().y0 > ax.get_window_extent().y1
    assert figure.bbox.y1 >= above.get_tightbbox().y1 - 1


@pytest.mark.parametrize("unknown_label", [None, "Unknown"])
def test_the_error_is_that_of_the_scores(unknown_label, adata):
    expected = annotation_scores(adata, "cell_type", unknown_label=unknown_label).overall["ECE"]
    ax = confidence(adata, "cell_type", unknown_label=unknown_label, show=False)
    assert ax.child_axes[0].get_title(loc="left") == f"ECE {expected:.3f}"
    assert (points(ax)[:, 0] < 0.5).any() == (unknown_label is None)


def test_confidence_is_taken_from_where_it_is_said_to_be(adata):
    expected = points(confidence(adata, "cell_type", unknown_label="Unknown", show=False))
    adata.obs["sure"] = adata.obs.pop("scgpt_confidence")
    ax = confidence(adata, "cell_type", "scgpt_label", "sure", unknown_label="Unknown", show=False)
    np.testing.assert_allclose(points(ax), expected)
    a = np.where(adata.obs["scgpt_label"] == "A", adata.obs["sure"], 1 - adata.obs["sure"])
    adata.obsm["p"] = pd.DataFrame({"A": a, "B": 1 - a}, adata.obs_names)
    ax = confidence(adata, "cell_type", probabilities="p", unknown_label="Unknown", show=False)
    np.testing.assert_allclose(points(ax), expected)


def test_axes_are_taken_and_the_file_is_written(adata, tmp_path):
    _, (_, mine) = plt.subplots(1, 2)
    assert confidence(adata, "cell_type", ax=mine, show=False, save=tmp_path / "confidence.svg") is mine
    assert len(points(mine)) > 0
    assert (tmp_path / "confidence.svg").stat().st_size > 1000


def test_it_is_shown_on_request(adata, monkeypatch):
    shown = []
    monkeypatch.setattr(plt, "show", lambda: shown.append(True))
    assert confidence(adata, "cell_type", show=True) is None
    assert shown == [True]


def test_wrong_input_is_an_error_that_says_what(adata):
    with pytest.raises(KeyError, match="no column 'sure' in .obs for the confidence"):
        confidence(adata, "cell_type", confidence_key="sure", show=False)
    adata.obs["call"] = adata.obs["scgpt_label"]
    with pytest.raises(ValueError, match="No confidence stands beside .obs\\['call'\\]"):
        confidence(adata, "cell_type", "call", show=False)
    adata.obs["scgpt_label"] = "Unknown"
    with pytest.raises(ValueError, match="All cells are 'Unknown'"):
        confidence(adata, "cell_type", unknown_label="Unknown", show=False)


def test_colours_may_be_chosen(adata):
    ax = confidence(adata, "cell_type", palette={"bins": "#123456"}, show=False)
    (line,) = (line for line in ax.lines if line.get_marker() == "o")
    bars = {mpl.colors.to_hex(bar.get_facecolor()) for bar in ax.child_axes[0].patches}
    assert {line.get_color()} == bars == {"#123456"}
    with pytest.raises(ValueError, match="palette= has colours for"):
        confidence(adata, "cell_type", palette={"cells": "red"}, show=False)
