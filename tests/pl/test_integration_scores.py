import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest

from scgpt.pl import integration_scores

mpl.use("Agg")
plt = pytest.importorskip("matplotlib.pyplot")


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    plt.close("all")


@pytest.fixture
def table() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "NMI": [0.11, 0.12],
            "ARI": [0.21, 0.22],
            "ASW_label": [0.31, 0.32],
            "AvgBIO": [0.41, 0.42],
            "ASW_batch": [0.51, 0.52],
            "graph_connectivity": [0.61, 0.62],
            "AvgBATCH": [0.71, 0.72],
            "Overall": [0.81, 0.82],
        },
        index=["X_pca", "X_scGPT"],
    )


def texts(ax) -> list[str]:
    return [text.get_text() for text in ax.texts]


def height(ax, text: str) -> float:
    (found,) = (t for t in ax.texts if t.get_text() == text)
    return found.get_position()[1]


def test_names_and_values_are_written_the_best_on_top(table):
    ax = integration_scores(table, show=False)
    written = texts(ax)
    assert {"Biology", "Batches", "Averages", "X_pca", "X_scGPT", "ASW label", "graph connectivity"} < set(written)
    assert {f"{value:.2f}" for value in table.to_numpy().ravel()} < set(written)
    assert ax.yaxis_inverted()
    assert height(ax, "X_scGPT") == height(ax, "0.12") == height(ax, "0.82") == 0
    assert height(ax, "X_pca") == height(ax, "0.11") == height(ax, "0.81") == 1


def test_circles_and_bars_stand_for_the_values(table):
    ax = integration_scores(table, show=False)
    assert len(ax.collections) == 5  # metrics
    np.testing.assert_allclose(ax.collections[0].get_array(), [0.12, 0.11])
    assert ax.collections[0].get_clim() == (0, 1)
    widths = [bar.get_width() for bar in ax.patches]
    full = widths[0] / 0.42
    np.testing.assert_allclose(widths, full * np.array([0.42, 0.41, 0.72, 0.71, 0.82, 0.81]))


def test_intervals_are_drawn_and_written(table):
    table.insert(4, "AvgBIO_low", table["AvgBIO"] - 0.05)
    table.insert(5, "AvgBIO_high", table["AvgBIO"] + 0.03)
    ax = integration_scores(table, show=False)
    assert {"0.37–0.45", "0.36–0.44"} < set(texts(ax))
    bar = ax.patches[0]
    full = bar.get_width() / 0.42
    (lines,) = (c for c in ax.collections if hasattr(c, "get_segments"))
    (start, stop), _ = lines.get_segments()
    np.testing.assert_allclose([start[0], stop[0]], bar.get_x() + full * np.array([0.37, 0.45]))
    assert bar.get_y() < start[1] == stop[1] < bar.get_y() + bar.get_height()


def test_the_benchmarkers_metrics_are_a_group_of_their_own(table):
    table["scib-metrics: Isolated labels"] = [0.91, 0.92]
    table["scib-metrics: Total"] = [0.93, 0.94]
    ax = integration_scores(table, show=False)
    assert {"scib-metrics", "Isolated labels", "Total", "0.91", "0.94"} < set(texts(ax))
    assert len(ax.patches) == 8


def test_what_is_missing_is_left_out(table):
    table[["ASW_batch", "AvgBATCH", "Overall"]] = np.nan
    table.loc["X_scGPT", "NMI"] = np.nan
    ax = integration_scores(table, show=False)
    written = texts(ax)
    assert "Overall" not in written
    assert "nan" not in written
    assert "0.11" in written
    assert height(ax, "X_scGPT") == 0  # AvgBIO is higher


def test_another_column_sorts(table):
    table.loc["X_pca", "ARI"] = 0.9
    assert height(integration_scores(table, sort_by="ARI", show=False), "X_pca") == 0
    with pytest.raises(KeyError, match="no column 'F1' to sort by"):
        integration_scores(table, sort_by="F1", show=False)


def test_axes_are_taken_and_the_file_is_written(table, tmp_path):
    _, (_, mine) = plt.subplots(1, 2)
    assert integration_scores(table, ax=mine, show=False, save=tmp_path / "scores.svg") is mine
    assert "X_scGPT" in mine.texts[0].get_text() + mine.texts[1].get_text()
    assert (tmp_path / "scores.svg").stat().st_size > 1000


def test_it_is_shown_on_request(table, monkeypatch):
    shown = []
    monkeypatch.setattr(plt, "show", lambda: shown.append(True))
    assert integration_scores(table, show=True) is None
    assert integration_scores(table, show=False) is not None
    assert shown == [True]


@pytest.mark.parametrize("autoshow", [True, False])
def test_by_default_scanpys_settings_say_whether_it_is_shown(autoshow, table, monkeypatch):
    import scanpy as sc

    shown, before = [], sc.settings.autoshow
    monkeypatch.setattr(plt, "show", lambda: shown.append(True))
    sc.settings.autoshow = autoshow
    try:
        assert (integration_scores(table) is None) == autoshow
    finally:
        sc.settings.autoshow = before
    assert bool(shown) == autoshow


def test_the_table_is_not_changed_and_has_to_be_one_of_scores(table):
    before = table.copy()
    integration_scores(table, show=False)
    pd.testing.assert_frame_equal(table, before)
    with pytest.raises(ValueError, match="no column of scgpt.metrics.integration_scores"):
        integration_scores(pd.DataFrame({"F1": [0.5]}), show=False)
