import re

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest

from scgpt.pl import reverse_ranking

mpl.use("Agg")
plt = pytest.importorskip("matplotlib.pyplot")

NAMES = ["A+C", "B+A", "C+D", "B", "D"]


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    plt.close("all")


@pytest.fixture
def ranking() -> pd.DataFrame:
    """Of two states, not in order."""
    first = pd.DataFrame(
        {"state": "s", "rank": range(1, 6), "perturbation": NAMES, "similarity": [0.9, 0.8, 0.5, 0.1, -0.2]}
    )
    second = pd.DataFrame({"state": "t", "rank": [1], "perturbation": ["D"], "similarity": [0.7]})
    return pd.concat([first, second])[::-1].reset_index(drop=True)


def names(ax) -> list[str]:
    return [label.get_text() for label in ax.get_yticklabels()]


def legend(ax) -> dict[str, str]:
    found = ax.get_legend()
    handles = (mpl.colors.to_hex(handle.get_color()) for handle in found.legend_handles)
    return dict(zip((text.get_text() for text in found.get_texts()), handles, strict=True))


def colors(ax) -> list[str]:
    return [mpl.colors.to_hex(bar.get_facecolor()) for bar in ax.patches]


def test_bars_are_similarities_the_likeliest_on_top(ranking):
    ax = reverse_ranking(ranking, state="s", show=False)
    assert names(ax) == NAMES
    assert ax.yaxis_inverted()
    np.testing.assert_allclose([bar.get_width() for bar in ax.patches], [0.9, 0.8, 0.5, 0.1, -0.2])
    np.testing.assert_allclose([bar.get_y() + bar.get_height() / 2 for bar in ax.patches], range(5))
    assert ax.get_xlabel() == "similarity (cosine)"
    assert ax.get_title(loc="left") == "s"
    assert ax.get_legend() is None
    assert len(set(colors(ax))) == 1


@pytest.mark.parametrize("truth", ["A+B", {"s": "A+B", "t": "D"}])
def test_colours_tell_what_is_true_and_what_shares_a_gene(truth, ranking):
    ax = reverse_ranking(ranking, truth=truth, state="s", show=False)
    true, relevant, other = legend(ax)["true"], legend(ax)["shares a gene"], legend(ax)["other"]
    assert len({true, relevant, other}) == 3
    assert colors(ax) == [relevant, true, other, relevant, other]
    assert [label.get_fontweight() for label in ax.get_yticklabels()] == ["normal", "bold", *["normal"] * 3]
    assert ax.get_legend().get_title().get_text() == "s\ntruth: A+B"


def test_the_truth_is_written_where_it_was_not_found(ranking):
    ranking["state"] = ""
    ax = reverse_ranking(ranking[ranking["rank"] > 2], truth="A+B", show=False)
    assert set(legend(ax)) == {"shares a gene", "other"}
    assert ax.get_legend().get_title().get_text() == "truth: A+B"


def test_names_may_be_written_in_another_way(ranking):
    ranking["perturbation"] = ranking["perturbation"].str.replace("+", "_").replace("B", "B_ctrl")
    ax = reverse_ranking(ranking, state="s", truth="B", sep="_", control="ctrl", show=False)
    key = legend(ax)
    assert colors(ax) == [key["other"], key["shares a gene"], key["other"], key["true"], key["other"]]


def test_fewer_may_be_drawn(ranking):
    assert names(reverse_ranking(ranking, state="s", n_top=2, show=False)) == NAMES[:2]
    assert names(reverse_ranking(ranking[ranking["state"] == "t"], show=False)) == ["D"]


def test_distances_are_points(ranking):
    table = ranking.rename(columns={"similarity": "distance"})
    table["distance"] = table["rank"] + 10.0
    ax = reverse_ranking(table, state="s", truth="A+B", show=False)
    assert len(ax.patches) == 0
    (points,) = ax.collections
    np.testing.assert_allclose(points.get_offsets(), np.c_[11 + np.arange(5), np.arange(5)])
    key = legend(ax)
    expected = [key["shares a gene"], key["true"], key["other"], key["shares a gene"], key["other"]]
    assert [mpl.colors.to_hex(color) for color in points.get_facecolors()] == expected
    assert ax.get_xlabel() == "distance (nearest on top)"


def test_colours_may_be_chosen(ranking):
    ax = reverse_ranking(ranking, state="s", truth="A+B", palette={"true": "#123456"}, show=False)
    assert colors(ax)[1] == legend(ax)["true"] == "#123456"
    with pytest.raises(ValueError, match=re.escape("palette= has colours for ['wrong']; there are ['true', ")):
        reverse_ranking(ranking, state="s", palette={"wrong": "red"}, show=False)


def test_all_of_it_lies_in_the_figure(ranking):
    ranking["perturbation"] += "+ALONGGENE1"
    ax = reverse_ranking(ranking, state="s", truth="A+B+ALONGGENE1", show=False)
    figure = ax.get_figure()
    figure.draw_without_rendering()
    assert figure.get_figwidth() <= 3.5
    inside = figure.bbox.get_points() + [[-1, -1], [1, 1]]
    box = ax.get_tightbbox().get_points()
    assert (box[0] >= inside[0]).all()
    assert (box[1] <= inside[1]).all()


def test_it_draws_what_the_verb_returns(rng):
    import anndata as ad

    from scgpt.tl import reverse_perturb

    genes = pd.DataFrame(index=list("ABCDEF"))
    candidates = ad.AnnData(
        rng.normal(size=(3, 6)).astype(np.float32),
        obs=pd.DataFrame({"perturbation": ["A", "B", "A+B"]}, list("xyz")),
        var=genes,
    )
    candidates.layers["delta"] = candidates.X.copy()
    control = ad.AnnData(np.zeros((2, 6), np.float32), var=genes)
    target = pd.Series(candidates.X[2], genes.index)
    for metric in ("cosine", "euclidean"):
        ranking = reverse_perturb(control, target, candidates=candidates, metric=metric)
        ax = reverse_ranking(ranking, truth="B+A", show=False)
        assert names(ax)[0] == "A+B"
        assert set(legend(ax)) == {"true", "shares a gene"}


def test_the_table_is_not_changed(ranking):
    before = ranking.copy()
    reverse_ranking(ranking, state="s", truth="A+B", show=False)
    pd.testing.assert_frame_equal(ranking, before)


def test_axes_are_taken_and_the_file_is_written(ranking, tmp_path):
    _, (_, mine) = plt.subplots(1, 2)
    assert reverse_ranking(ranking, state="s", ax=mine, show=False, save=tmp_path / "ranking.svg") is mine
    assert len(mine.patches) == 5
    assert (tmp_path / "ranking.svg").stat().st_size > 1000


def test_it_is_shown_on_request(ranking, monkeypatch):
    shown = []
    monkeypatch.setattr(plt, "show", lambda: shown.append(True))
    assert reverse_ranking(ranking, state="s", show=True) is None
    assert shown == [True]


def test_wrong_input_is_an_error_that_says_what(ranking):
    with pytest.raises(ValueError, match="The ranking is of 2 states: name one by state=, such as t, s"):
        reverse_ranking(ranking, show=False)
    with pytest.raises(KeyError, match="no state 'u'; it has t, s"):
        reverse_ranking(ranking, state="u", show=False)
    with pytest.raises(KeyError, match="truth= does not tell the perturbation of state 's'; it has t"):
        reverse_ranking(ranking, state="s", truth={"t": "D"}, show=False)
    with pytest.raises(ValueError, match="n_top has to be 1 or more, and is 0"):
        reverse_ranking(ranking, state="s", n_top=0, show=False)
    with pytest.raises(ValueError, match="no column 'rank': pass what scgpt.tl.reverse_perturb returned"):
        reverse_ranking(ranking.drop(columns="rank"), state="s", show=False)
    with pytest.raises(ValueError, match="neither similarities nor distances"):
        reverse_ranking(ranking.drop(columns="similarity"), state="s", show=False)
    with pytest.raises(ValueError, match="The ranking has no row"):
        reverse_ranking(ranking[:0], show=False)
