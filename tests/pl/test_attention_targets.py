import re
from itertools import pairwise

import anndata as ad
import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest

from scgpt.pl import attention_targets

mpl.use("Agg")
plt = pytest.importorskip("matplotlib.pyplot")

# How much A, B and C attend to DDIT3.
ATTENTION = {"control": {"A": 0.9, "B": 0.3, "C": 0.4}, "DDIT3+": {"A": 0.4, "B": 0.6, "C": 0.5}}
# Of each mode the targets, the first first.
SCORES = {
    "control": {"A": 0.9, "C": 0.4, "B": 0.3},
    "perturbed": {"B": 0.6, "C": 0.5, "A": 0.4},
    "difference": {"A": -0.5, "B": 0.3, "C": 0.1},
}


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    plt.close("all")


def cells(regulator, attention, control="") -> ad.AnnData:
    """Cells with the attention to a regulator by group; whatever it attends to itself has the score 0.99."""
    genes = [regulator, *next(iter(attention.values()))]
    influence = np.full((len(attention), len(genes), len(genes)), 0.5, np.float32)
    influence[:, 0] = 0.99
    influence[:, 1:, 0] = [list(scores.values()) for scores in attention.values()]
    found = {
        "genes": np.array(genes, dtype=object),
        "groups": np.array(list(attention), dtype=object),
        "n_cells": np.full(len(attention), 20),
        "control": control,
        "influence": influence,
        "n_both": np.full(influence.shape, 20),
        "targets": pd.DataFrame(columns=["regulator", "group", "mode", "target", "rank", "score"]),
    }
    return ad.AnnData(np.ones((1, 1), np.float32), uns={"scgpt_attention": found})


@pytest.fixture
def adata() -> ad.AnnData:
    """Of one perturbation, beside the control; no targets were written down."""
    return cells("DDIT3", ATTENTION, "control")


def names(ax) -> list[str]:
    return [label.get_text() for label in ax.get_yticklabels()]


def dots(ax) -> tuple[np.ndarray, list[str]]:
    points = ax.collections[-1]
    return points.get_offsets(), [mpl.colors.to_hex(color) for color in points.get_facecolors()]


def legend(ax) -> dict[str, str]:
    found = ax.get_legend()
    handles = (mpl.colors.to_hex(handle.get_color()) for handle in found.legend_handles)
    return dict(zip((text.get_text() for text in found.get_texts()), handles, strict=True))


def test_differences_are_drawn_where_there_are_some(adata):
    ax = attention_targets(adata, "DDIT3", show=False)
    assert names(ax) == ["A", "B", "C"]
    assert ax.yaxis_inverted()
    places, colors = dots(ax)
    np.testing.assert_allclose(places, np.c_[list(SCORES["difference"].values()), range(3)], rtol=1e-6)
    key = legend(ax)
    assert list(key) == ["higher when perturbed", "lower"]
    assert len(set(key.values())) == 2
    assert colors == [key["lower"], *[key["higher when perturbed"]] * 2]
    assert ax.get_legend().get_title().get_text() == "DDIT3, DDIT3+"
    assert ax.get_xlabel() == "attention score, perturbed − control"


@pytest.mark.parametrize(("mode", "by_chance"), [("difference", 0), ("control", 0.5)])
def test_lines_lead_from_chance_to_the_scores(mode, by_chance, adata):
    ax = attention_targets(adata, "DDIT3", mode=mode, show=False)
    expected = [[[by_chance, y], [score, y]] for y, score in enumerate(SCORES[mode].values())]
    np.testing.assert_allclose(ax.collections[0].get_segments(), expected, rtol=1e-6)


@pytest.mark.parametrize("mode", ["control", "perturbed"])
def test_another_mode_may_be_drawn(mode, adata):
    ax = attention_targets(adata, "DDIT3", group="DDIT3+", mode=mode, show=False)
    places, colors = dots(ax)
    np.testing.assert_allclose(places[:, 0], list(SCORES[mode].values()), rtol=1e-6)
    assert names(ax) == list(SCORES[mode])
    assert len(set(colors)) == 2
    assert [color == colors[0] for color in colors] == [score >= 0.5 for score in SCORES[mode].values()]
    assert ax.get_legend() is None
    assert ax.get_title(loc="left") == f"DDIT3, {'control' if mode == 'control' else 'DDIT3+'}"
    assert ax.get_xlabel() == "attention score (0.5 by chance)"


def test_a_group_without_control_is_drawn():
    adata = cells("KLF1", {"T": {"A": 0.2, "B": 0.8}, "B": {"A": 0.7, "B": 0.1}})
    ax = attention_targets(adata, "KLF1", group="T", show=False)
    assert names(ax) == ["B", "A"]
    assert ax.get_title(loc="left") == "KLF1, T"


def test_any_gene_whose_attention_was_read_is_drawn(adata):
    ax = attention_targets(adata, "B", mode="perturbed", show=False)
    assert names(ax) == ["DDIT3", "A", "C"]
    assert ax.get_title(loc="left") == "B, DDIT3+"


def test_targets_are_in_enough_cells_with_the_regulator(adata):
    n_both = adata.uns["scgpt_attention"]["n_both"]
    n_both[:, 1, 0] = 9
    assert names(attention_targets(adata, "DDIT3", show=False)) == ["B", "C"]
    assert len(names(attention_targets(adata, "DDIT3", min_cells=9, show=False))) == 3
    n_both[:, :, 0] = 0
    with pytest.raises(ValueError, match="No gene is in enough cells beside 'DDIT3': there is nothing to draw"):
        attention_targets(adata, "DDIT3", show=False)


def test_a_name_is_written_once():
    adata = cells("DDIT3", {"control": ATTENTION["control"], "DDIT3": ATTENTION["DDIT3+"]}, "control")
    assert attention_targets(adata, "DDIT3", show=False).get_legend().get_title().get_text() == "DDIT3"


def test_fewer_may_be_drawn(adata):
    ax = attention_targets(adata, "DDIT3", n_targets=1, show=False)
    assert names(ax) == ["A"]
    assert list(legend(ax)) == ["lower"]


def test_colours_may_be_chosen(adata):
    ax = attention_targets(adata, "DDIT3", palette={"lower": "#123456"}, show=False)
    assert dots(ax)[1][0] == legend(ax)["lower"] == "#123456"
    assert dots(ax)[1][1] != "#123456"


def test_all_of_it_lies_in_the_figure():
    names_of = [f"ALONGNAME{i}" for i in range(40)]
    control = dict.fromkeys(names_of, 0.5)
    adata = cells("A", {"control": control, "A": dict(zip(names_of, np.linspace(1, 0, 40), strict=True))}, "control")
    ax = attention_targets(adata, "A", show=False)
    figure = ax.get_figure()
    figure.draw_without_rendering()
    assert len(names(ax)) == 20
    assert figure.get_figwidth() <= 3.5
    inside = figure.bbox.get_points() + [[-1, -1], [1, 1]]
    box = ax.get_tightbbox().get_points()
    assert (box[0] >= inside[0]).all()
    assert (box[1] <= inside[1]).all()
    boxes = [label.get_window_extent() for label in ax.get_yticklabels()]
    assert not any(upper.overlaps(lower) for upper, lower in pairwise(boxes))


def test_axes_are_taken_and_the_file_is_written(adata, tmp_path):
    _, (_, mine) = plt.subplots(1, 2)
    assert attention_targets(adata, "DDIT3", ax=mine, show=False, save=tmp_path / "targets.svg") is mine
    assert len(dots(mine)[0]) == 3
    assert (tmp_path / "targets.svg").stat().st_size > 1000


def test_it_is_shown_on_request(adata, monkeypatch):
    shown = []
    monkeypatch.setattr(plt, "show", lambda: shown.append(True))
    assert attention_targets(adata, "DDIT3", show=True) is None
    assert shown == [True]


@pytest.mark.parametrize(
    ("regulator", "kwargs", "error", "message"),
    [
        ("TP53", {}, KeyError, "'TP53' is not among the 4 genes whose attention was read; pass it to"),
        ("DDIT3", {"group": "NK"}, KeyError, "There is no group 'NK'; there are ['control', 'DDIT3+']"),
        ("DDIT3", {"mode": "mean"}, ValueError, "mode must be 'group', 'control', 'perturbed' or 'difference'"),
        ("DDIT3", {"n_targets": 0}, ValueError, "n_targets must be a whole number of at least 1, not 0"),
        ("DDIT3", {"palette": {"up": "red"}}, ValueError, "palette= has colours for ['up']; there are ['higher', "),
        ("DDIT3", {"key": "mine"}, KeyError, "There is no .uns['mine']; call scgpt.tl.attention_network first"),
    ],
)
def test_wrong_input_is_an_error_that_says_what(regulator, kwargs, error, message, adata):
    with pytest.raises(error, match=re.escape(message)):
        attention_targets(adata, regulator, show=False, **kwargs)
