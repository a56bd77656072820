import re
from itertools import pairwise

import anndata as ad
import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest

from scgpt.pl import pathway_counts

mpl.use("Agg")
plt = pytest.importorskip("matplotlib.pyplot")

COUNTS = {"resolution": [1.0, 5.0, 20.0], "model": [20, 45, 81], "coexpression": [18, 30, 40], "shared": [15, 20, 24]}
LABELS = {"model": "model", "coexpression": "co-expression", "shared": "in both"}


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    plt.close("all")


@pytest.fixture
def adata() -> ad.AnnData:
    """Not in order."""
    counts = pd.DataFrame(COUNTS)[::-1]
    return ad.AnnData(np.ones((1, 1), np.float32), uns={"scgpt_pathways": {"counts": counts}})


def lines(ax) -> dict:
    return {line.get_label(): line for line in ax.lines}


def test_lines_are_numbers_of_sets_over_resolutions(adata):
    ax = pathway_counts(adata, show=False)
    assert list(lines(ax)) == list(LABELS.values())
    for column, label in LABELS.items():
        np.testing.assert_allclose(lines(ax)[label].get_xydata(), np.c_[COUNTS["resolution"], COUNTS[column]])
    assert [line.get_linestyle() for line in ax.lines] == ["-", "-", "--"]
    assert len({line.get_color() for line in ax.lines}) == 3
    assert ax.get_xscale() == "log"
    assert ax.get_ylim()[0] == 0
    assert [label.get_text() for label in ax.get_xticklabels()] == ["1", "5", "20"]
    assert len(ax.get_xticks(minor=True)) == 0
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("resolution of programs", "enriched gene sets")
    assert [text.get_text() for text in ax.get_legend().get_texts()] == list(LABELS.values())


def test_what_is_missing_is_a_gap(adata):
    adata.uns["scgpt_pathways"]["counts"] = pd.DataFrame(COUNTS | {"coexpression": [18, np.nan, 40]})
    assert np.isnan(lines(pathway_counts(adata, show=False))["co-expression"].get_ydata()[1])


def test_of_many_resolutions_some_are_written(adata):
    many = pd.DataFrame({name: np.arange(1, 31) for name in COUNTS})
    adata.uns["scgpt_pathways"]["counts"] = many
    ax = pathway_counts(adata, show=False)
    figure = ax.get_figure()
    figure.draw_without_rendering()
    boxes = [label.get_window_extent() for label in ax.get_xticklabels()]
    assert 5 <= len(boxes) <= 12
    assert not any(left.overlaps(right) for left, right in pairwise(boxes))
    assert figure.get_figwidth() <= 3.5
    inside = figure.bbox.get_points() + [[-1, -1], [1, 1]]
    box = ax.get_tightbbox().get_points()
    assert (box[0] >= inside[0]).all()
    assert (box[1] <= inside[1]).all()


def test_colours_may_be_chosen(adata):
    ax = pathway_counts(adata, palette={"model": "#123456"}, show=False)
    assert lines(ax)["model"].get_color() == "#123456"
    with pytest.raises(ValueError, match=re.escape("palette= has colours for ['scGPT']; there are ['model', ")):
        pathway_counts(adata, palette={"scGPT": "red"}, show=False)


def test_axes_are_taken_and_the_file_is_written(adata, tmp_path):
    _, (_, mine) = plt.subplots(1, 2)
    assert pathway_counts(adata, ax=mine, show=False, save=tmp_path / "pathways.svg") is mine
    assert len(mine.lines) == 3
    assert (tmp_path / "pathways.svg").stat().st_size > 1000


def test_it_is_shown_on_request(adata, monkeypatch):
    shown = []
    monkeypatch.setattr(plt, "show", lambda: shown.append(True))
    assert pathway_counts(adata, show=True) is None
    assert shown == [True]


def test_wrong_input_is_an_error_that_says_what(adata):
    with pytest.raises(
        KeyError, match=re.escape("no 'mine' in .uns: call scgpt.tl.compare_pathways(adata, model, gmt)")
    ):
        pathway_counts(adata, key="mine", show=False)
    adata.uns["scgpt_pathways"]["counts"] = pd.DataFrame(COUNTS).drop(columns="shared")
    with pytest.raises(ValueError, match=re.escape(".uns['scgpt_pathways']['counts'] has no column 'shared'")):
        pathway_counts(adata, show=False)
    del adata.uns["scgpt_pathways"]["counts"]
    with pytest.raises(KeyError, match="no 'counts' in .uns.*: call scgpt.tl.compare_pathways"):
        pathway_counts(adata, show=False)
