import anndata as ad
import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest

from scgpt.pl import confusion

mpl.use("Agg")
plt = pytest.importorskip("matplotlib.pyplot")


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    plt.close("all")


@pytest.fixture
def adata() -> ad.AnnData:
    obs = pd.DataFrame({"cell_type": list("AAABBC"), "scgpt_label": [*"AABB", "Unknown", "A"]})
    return ad.AnnData(obs=obs.set_axis([f"c{i}" for i in range(6)]))


def names(labels) -> list[str]:
    return [label.get_text() for label in labels]


def written(ax) -> dict[tuple[float, float], str]:
    return {text.get_position(): text.get_text() for text in ax.texts}


@pytest.mark.parametrize(
    ("normalize", "table"),
    [
        ("true", [[2 / 3, 1 / 3, 0, 0], [0, 1 / 2, 0, 1 / 2], [1, 0, 0, 0]]),
        ("predicted", [[2 / 3, 1 / 2, 0, 0], [0, 1 / 2, 0, 1], [1 / 3, 0, 0, 0]]),
        (None, [[2, 1, 0, 0], [0, 1, 0, 1], [1, 0, 0, 0]]),
    ],
)
def test_rows_are_true_and_columns_predicted_types(normalize, table, adata):
    ax = confusion(adata, "cell_type", normalize=normalize, show=False)
    assert names(ax.get_yticklabels()) == ["A", "B", "C"]
    assert names(ax.get_xticklabels()) == ["A", "B", "C", "Unknown"]
    assert (ax.get_ylabel(), ax.get_xlabel()) == ("true", "predicted")
    (image,) = ax.images
    np.testing.assert_allclose(image.get_array(), table)
    assert image.get_clim() == (0, 2 if normalize is None else 1)
    assert ax.yaxis_inverted()
    expected = {
        (x, y): f"{value:.2f}" if normalize else str(value)
        for y, row in enumerate(table)
        for x, value in enumerate(row)
        if value
    }
    assert written(ax) == expected


def test_order_is_that_of_the_categories(adata):
    adata.obs["cell_type"] = pd.Categorical(adata.obs["cell_type"], ["C", "unused", "B", "A"])
    ax = confusion(adata, "cell_type", show=False)
    assert names(ax.get_yticklabels()) == ["C", "B", "A"]
    assert names(ax.get_xticklabels()) == ["C", "B", "A", "Unknown"]


def test_numbers_are_read_on_their_colour(adata):
    colors = {text.get_text(): text.get_color() for text in confusion(adata, "cell_type", show=False).texts}
    assert colors["1.00"] == "white"
    assert colors["0.33"] == "black"


def test_what_rounds_to_nothing_is_not_written():
    obs = pd.DataFrame({"cell_type": ["A"] * 1000 + ["B"], "scgpt_label": ["A"] * 999 + ["B", "B"]})
    ax = confusion(ad.AnnData(obs=obs.set_axis(obs.index.astype(str))), "cell_type", show=False)
    assert written(ax) == {(0, 0): "1.00", (1, 1): "1.00"}


def test_numbers_stay_within_their_squares_and_the_figure(rng):
    types = [f"a type with quite a long name {i}" for i in range(25)]
    obs = pd.DataFrame({"cell_type": rng.choice(types, 3000), "scgpt_label": rng.choice(types, 3000)})
    ax = confusion(ad.AnnData(obs=obs.set_axis(obs.index.astype(str))), "cell_type", show=False)
    figure = ax.get_figure()
    figure.draw_without_rendering()
    assert len(ax.texts) > 500
    assert len(figure.axes) == 1
    square = ax.get_window_extent().width / 25
    assert max(text.get_window_extent().width for text in ax.texts) <= square
    inside = figure.bbox.get_points() + [[-1, -1], [1, 1]]
    box = ax.get_tightbbox().get_points()
    assert (box[0] >= inside[0]).all()
    assert (box[1] <= inside[1]).all()


def test_without_room_for_numbers_there_is_a_colour_bar(adata):
    figure, ax = plt.subplots(figsize=(0.8, 0.8))
    assert confusion(adata, "cell_type", ax=ax, show=False) is ax
    assert len(ax.texts) == 0
    assert [a.get_ylabel() for a in figure.axes] == ["true", "share of true type"]


def test_axes_are_taken_and_the_file_is_written(adata, tmp_path):
    _, (_, mine) = plt.subplots(1, 2)
    assert confusion(adata, "cell_type", ax=mine, show=False, save=tmp_path / "confusion.svg") is mine
    assert len(mine.images) == 1
    assert (tmp_path / "confusion.svg").stat().st_size > 1000


def test_it_is_shown_on_request(adata, monkeypatch):
    shown = []
    monkeypatch.setattr(plt, "show", lambda: shown.append(True))
    assert confusion(adata, "cell_type", show=True) is None
    assert shown == [True]


def test_wrong_input_is_an_error_that_says_what(adata):
    with pytest.raises(KeyError, match="no column 'call' in .obs for the prediction"):
        confusion(adata, "cell_type", "call", show=False)
    with pytest.raises(ValueError, match="normalize has to be .* and is 'all'"):
        confusion(adata, "cell_type", normalize="all", show=False)
    adata.obs.loc["c0", "cell_type"] = None
    with pytest.raises(ValueError, match="1 of 6 cells have no label"):
        confusion(adata, "cell_type", show=False)


def test_long_names_are_read_in_a_column_of_a_page(rng):
    types = [f"CD4+/CD45RA+/CD25- type {i}" for i in range(9)]
    obs = pd.DataFrame({"cell_type": rng.choice(types, 500), "scgpt_label": rng.choice(types, 500)})
    figure, ax = plt.subplots(figsize=(3.35, 3.35), layout="constrained")
    confusion(ad.AnnData(obs=obs.set_axis(obs.index.astype(str))), "cell_type", ax=ax, show=False)
    figure.draw_without_rendering()
    assert len(ax.texts) > 70
    assert min(text.get_fontsize() for text in (*ax.texts, *ax.get_xticklabels())) >= 5
    for labels in (ax.get_xticklabels(), ax.get_yticklabels()):
        boxes = [label.get_window_extent() for label in labels]
        assert not any(box.count_overlaps(boxes[:i]) for i, box in enumerate(boxes))
