import re

import anndata as ad
import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest

from scgpt.pl import program_activity

mpl.use("Agg")
plt = pytest.importorskip("matplotlib.pyplot")

PROGRAMS = ["P1", "P2", "P3", "P4"]
LABELS = {"P1": "P1  A, B, C", "P2": "P2  D, E", "P3": "P3  F, G, H", "P4": "P4  I"}
GROUPS = ["B", "NK", "T"]
ACTIVITY = np.array([[0.1, 0.2, 2.0], [3.0, 0.3, 0.2], [0.2, 1.1, 0.1], [0.2, 0.3, 1.9]])


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    plt.close("all")


@pytest.fixture
def adata() -> ad.AnnData:
    """Two cells of each type, of whose scores the stored activity is the mean."""
    types = pd.Categorical([*GROUPS, *GROUPS], categories=[*GROUPS, "unused"])
    obs = pd.DataFrame({"cell_type": types, "donor": list("xxxyyy")}, [f"c{i}" for i in range(6)])
    adata = ad.AnnData(np.ones((6, 2), np.float32), obs=obs)
    scores = np.concatenate([ACTIVITY.T - 0.1, ACTIVITY.T + 0.1])
    adata.obsm["scgpt_program_scores"] = pd.DataFrame(scores, adata.obs_names, PROGRAMS)
    table = pd.DataFrame({"genes": ["A, B, C, Z", "D, E", "F, G, H", "I"]}, PROGRAMS)
    adata.uns["scgpt_programs"] = {"table": table, "activity": pd.DataFrame(ACTIVITY.T, GROUPS, PROGRAMS)}
    return adata


def names(labels) -> list[str]:
    return [label.get_text() for label in labels]


def drawn(ax) -> pd.DataFrame:
    """Values by the names that stand beside them."""
    (image,) = ax.images
    values = np.ma.filled(image.get_array(), np.nan)
    return pd.DataFrame(values, names(ax.get_yticklabels()), names(ax.get_xticklabels()))


def bar_of(ax):
    (bar,) = (other for other in ax.get_figure().axes if other is not ax)
    return bar


def test_squares_are_the_stored_activity(adata):
    found = drawn(program_activity(adata, show=False))
    expected = pd.DataFrame(ACTIVITY, list(LABELS.values()), GROUPS)
    pd.testing.assert_frame_equal(found.loc[expected.index, expected.columns], expected)


def test_alike_programs_lie_together_and_blocks_along_the_diagonal(adata):
    ax = program_activity(adata, show=False)
    rows, columns = names(ax.get_yticklabels()), names(ax.get_xticklabels())
    assert abs(rows.index(LABELS["P1"]) - rows.index(LABELS["P4"])) == 1
    highest = drawn(ax).to_numpy().argmax(1)
    assert list(highest) == sorted(highest)
    assert set(columns) == set(GROUPS)


def test_without_clustering_the_order_is_kept(adata):
    ax = program_activity(adata, cluster=False, show=False)
    assert names(ax.get_yticklabels()) == list(LABELS.values())
    assert names(ax.get_xticklabels()) == GROUPS
    ax = program_activity(adata, programs=["P3", "P1"], cluster=False, show=False)
    assert names(ax.get_yticklabels()) == [LABELS["P3"], LABELS["P1"]]
    assert names(program_activity(adata, programs="P2", show=False).get_yticklabels()) == [LABELS["P2"]]


def test_scores_are_averaged_over_groups_of_a_column(adata):
    del adata.uns["scgpt_programs"]["activity"]
    adata.obs.loc["c5", "cell_type"] = None
    found = drawn(program_activity(adata, groupby="cell_type", cluster=False, show=False))
    assert list(found.columns) == GROUPS
    np.testing.assert_allclose(found, ACTIVITY - [0, 0, 0.1])
    by_donor = drawn(program_activity(adata, groupby="donor", cluster=False, show=False))
    np.testing.assert_allclose(by_donor["x"], ACTIVITY.mean(1) - 0.1)


def test_programs_are_those_that_vary_most(adata):
    ax = program_activity(adata, n_programs=2, cluster=False, show=False)
    assert names(ax.get_yticklabels()) == [LABELS["P1"], LABELS["P2"]]


def test_a_program_may_run_from_0_to_1(adata):
    ax = program_activity(adata, standard_scale="program", show=False)
    found = drawn(ax)
    assert (found.min(axis=1) == 0).all()
    assert (found.max(axis=1) == 1).all()
    np.testing.assert_allclose(found.loc[LABELS["P3"], "B"], 0.1)
    assert bar_of(ax).get_xlabel() == "activity, share of range"


def test_colours_are_centred_where_both_signs_are(adata):
    ax = program_activity(adata, show=False)
    assert ax.images[0].get_clim() == (0.1, 3.0)
    assert ax.images[0].get_cmap().name == "Blues"
    assert bar_of(ax).get_xlabel() == "activity"
    adata.uns["scgpt_programs"]["activity"] -= 2
    ax = program_activity(adata, show=False)
    assert ax.images[0].get_clim() == (-1.9, 1.9)
    assert ax.images[0].get_cmap().name == "RdBu_r"
    assert program_activity(adata, cmap="PuOr", show=False).images[0].get_cmap().name == "PuOr"


def test_what_is_missing_is_grey(adata):
    adata.uns["scgpt_programs"]["activity"].loc["NK", "P1"] = np.nan
    adata.uns["scgpt_programs"]["activity"].loc["none"] = np.nan
    ax = program_activity(adata, show=False)
    assert np.isnan(drawn(ax).loc[LABELS["P1"], "NK"])
    assert drawn(ax).shape == (4, 3)
    np.testing.assert_allclose(ax.images[0].get_cmap()(np.nan), mpl.colors.to_rgba("lightgray"))
    assert names(ax.get_legend().get_texts()) == ["missing"]
    assert program_activity(adata, programs=["P2"], show=False).get_legend() is None


def test_a_single_square_is_drawn(adata):
    adata.uns["scgpt_programs"]["activity"] = pd.DataFrame([[0.5]], ["T"], ["P4"])
    assert drawn(program_activity(adata, show=False)).to_numpy() == [[0.5]]


def test_all_of_it_lies_in_a_figure_of_a_column_of_a_page(rng):
    programs = [f"P{i}" for i in range(1, 31)]
    table = pd.DataFrame({"genes": "HLA-DQA1, TNFRSF13B, S100A9"}, programs)
    groups = [f"a type {i}" for i in range(9)]
    activity = pd.DataFrame(rng.normal(size=(9, 30)), groups, programs)
    adata = ad.AnnData(np.ones((1, 1), np.float32), uns={"scgpt_programs": {"table": table, "activity": activity}})
    ax = program_activity(adata, show=False)
    figure = ax.get_figure()
    figure.draw_without_rendering()
    assert len(ax.get_yticks()) == 20
    assert figure.get_figwidth() < 3.7
    inside = figure.bbox.get_points() + [[-1, -1], [1, 1]]
    for part in (ax, bar_of(ax)):
        box = part.get_tightbbox().get_points()
        assert (box[0] >= inside[0]).all()
        assert (box[1] <= inside[1]).all()
    square = ax.get_window_extent().height / 20 * 72 / figure.dpi
    assert square >= ax.get_yticklabels()[0].get_fontsize()


def test_the_input_is_not_changed(adata):
    before = adata.copy()
    program_activity(adata, standard_scale="program", show=False)
    for name in ("table", "activity"):
        pd.testing.assert_frame_equal(adata.uns["scgpt_programs"][name], before.uns["scgpt_programs"][name])


def test_axes_are_taken_and_the_file_is_written(adata, tmp_path):
    _, (_, mine) = plt.subplots(1, 2)
    assert program_activity(adata, ax=mine, show=False, save=tmp_path / "activity.svg") is mine
    assert len(mine.images) == 1
    assert (tmp_path / "activity.svg").stat().st_size > 1000


def test_it_is_shown_on_request(adata, monkeypatch):
    shown = []
    monkeypatch.setattr(plt, "show", lambda: shown.append(True))
    assert program_activity(adata, show=True) is None
    assert shown == [True]


@pytest.mark.parametrize(
    ("kwargs", "error", "message"),
    [
        ({"programs": ["P1", "P9"]}, KeyError, "programs= names P9; there are P1, P2, P3, P4"),
        ({"groupby": "type"}, KeyError, "groupby='type' is not a column of .obs; there are ['cell_type', 'donor']"),
        ({"n_programs": 0}, ValueError, "n_programs has to be 1 or more, and is 0"),
        ({"standard_scale": "group"}, ValueError, "standard_scale has to be 'program' or None, and is 'group'"),
    ],
)
def test_wrong_input_is_an_error_that_says_what(kwargs, error, message, adata):
    with pytest.raises(error, match=re.escape(message)):
        program_activity(adata, show=False, **kwargs)


def test_what_has_to_be_called_first_is_said(adata):
    bare = ad.AnnData(adata.X, obs=adata.obs)
    with pytest.raises(
        KeyError, match=r"no 'scgpt_programs' in .uns: call scgpt.tl.gene_programs\(adata, model\) first"
    ):
        program_activity(bare, show=False)
    with pytest.raises(KeyError, match="no 'scgpt_program_scores' in .obsm: call scgpt.tl.gene_programs"):
        program_activity(bare, groupby="donor", show=False)
    activity = adata.uns["scgpt_programs"]["activity"]
    adata.uns["scgpt_programs"]["activity"] = activity.to_numpy()
    with pytest.raises(ValueError, match=r"\['activity'\] is no table: it is not what scgpt.tl.gene_programs"):
        program_activity(adata, show=False)
    adata.uns["scgpt_programs"]["activity"] = activity * np.nan
    with pytest.raises(ValueError, match="No program has a score in any group"):
        program_activity(adata, show=False)
    del adata.uns["scgpt_programs"]["activity"]
    with pytest.raises(
        KeyError, match="no 'activity' in .uns.*: name a column of .obs with groups of cells by groupby="
    ):
        program_activity(adata, show=False)
