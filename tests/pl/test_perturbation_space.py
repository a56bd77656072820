import re
from itertools import combinations

import anndata as ad
import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest

from scgpt.pl import perturbation_space

mpl.use("Agg")
plt = pytest.importorskip("matplotlib.pyplot")

SINGLE = ["A", "B", "C", "D"]
NAMES = [*SINGLE, *("+".join(pair) for pair in combinations(SINGLE, 2))]


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    plt.close("all")


@pytest.fixture
def space(rng) -> ad.AnnData:
    dominant = pd.Categorical([*"AABB", *"AAABBB"], categories=["B", "none", "A"])
    obs = pd.DataFrame(
        {"perturbation": NAMES, "dominant_gene": dominant, "leiden": pd.Categorical(list("0011223344"))}, NAMES
    )
    obs["trained_on"] = obs.index.isin(["A", "B", "A+B"])
    obs["dominant_gene_share"] = np.linspace(0.1, 1, 10)
    space = ad.AnnData(np.ones((10, 3), np.float32), obs=obs)
    space.obsm["X_umap"] = np.c_[np.arange(10) % 4, np.arange(10) // 4].astype(np.float32)
    space.obsm["X_pca"] = rng.normal(size=(10, 3))
    return space


def points(ax) -> dict[tuple[float, float], tuple[float, str]]:
    """Size and colour of the point at each place."""
    found = {}
    for drawn in ax.collections:
        sizes, colors = drawn.get_sizes(), drawn.get_facecolors()
        for i, place in enumerate(drawn.get_offsets()):
            found[tuple(place)] = float(sizes[i % len(sizes)]), mpl.colors.to_hex(colors[i])
    return found


def colors(ax, space, basis="X_umap") -> list[str]:
    found = points(ax)
    return [found[tuple(place)][1] for place in space.obsm[basis][:, :2]]


def legend(ax) -> dict[str, str]:
    found = ax.get_legend()
    handles = (mpl.colors.to_hex(handle.get_color()) for handle in found.legend_handles)
    return dict(zip((text.get_text() for text in found.get_texts()), handles, strict=True))


def written(ax) -> dict[str, tuple[float, float]]:
    return {text.get_text(): text.xy for text in ax.texts}


def test_single_perturbations_are_larger_and_named(space):
    ax = perturbation_space(space, show=False)
    found = points(ax)
    sizes = [found[tuple(place)][0] for place in space.obsm["X_umap"]]
    assert len(set(sizes[:4])) == len(set(sizes[4:])) == 1
    assert sizes[0] == 4 * sizes[-1]
    assert written(ax) == {
        name: tuple(place) for name, place in zip(SINGLE, space.obsm["X_umap"][: len(SINGLE)], strict=True)
    }
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("UMAP1", "UMAP2")
    assert list(ax.get_xticks()) == list(ax.get_yticks()) == []
    assert len(ax.collections[0].get_offsets()) == 6  # so that the large ones lie above


def test_colours_are_those_of_the_categories(space):
    ax = perturbation_space(space, show=False)
    assert list(legend(ax)) == ["B", "A", "single", "combined"]
    assert ax.get_legend().get_title().get_text() == "dominant_gene"
    key = legend(ax)
    assert key["A"] != key["B"]
    assert colors(ax, space) == [key[name] for name in space.obs["dominant_gene"]]


def test_another_column_and_embedding_may_be_drawn(space):
    ax = perturbation_space(space, color="trained_on", basis="pca", show=False)
    key = legend(ax)
    assert colors(ax, space, "X_pca") == [key[str(known)] for known in space.obs["trained_on"]]
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("PC1", "PC2")


def test_what_is_missing_is_grey(space):
    space.obs.loc["A", "dominant_gene"] = None
    ax = perturbation_space(space, show=False)
    assert colors(ax, space)[0] == legend(ax)["missing"] == mpl.colors.to_hex("lightgray")


def test_numbers_have_a_colour_bar(space):
    space.obs.loc["B", "dominant_gene_share"] = np.nan
    ax = perturbation_space(space, color="dominant_gene_share", cmap="magma", show=False)
    found = colors(ax, space)
    magma = mpl.colormaps["magma"]
    assert [found[0], found[9]] == [mpl.colors.to_hex(magma(0.0)), mpl.colors.to_hex(magma(1.0))]
    assert found[1] == mpl.colors.to_hex("lightgray")
    (bar,) = (other for other in ax.get_figure().axes if other is not ax)
    assert bar.get_ylabel() == "dominant_gene_share"
    np.testing.assert_allclose(bar.get_ylim(), [0.1, 1])
    assert list(legend(ax)) == ["missing", "single", "combined"]


def test_without_a_column_there_is_one_colour(space):
    ax = perturbation_space(space, color=None, show=False)
    assert len(set(colors(ax, space))) == 1
    assert list(legend(ax)) == ["single", "combined"]
    assert perturbation_space(space[:4].copy(), color=None, show=False).get_legend() is None


def test_colours_may_be_chosen(space):
    own = {"A": "#111111", "B": "#222222", "elsewhere": "#333333"}
    expected = [own[name] for name in space.obs["dominant_gene"]]
    assert colors(perturbation_space(space, palette=own, show=False), space) == expected
    assert colors(perturbation_space(space, palette=["#222222", "#111111"], show=False), space) == expected
    ax = perturbation_space(space, palette="tab10", show=False)
    assert list(legend(ax).values())[:2] == [mpl.colors.to_hex(f"C{i}") for i in range(2)]
    ax = perturbation_space(space, palette="viridis", color="leiden", show=False)
    ends = [mpl.colors.to_hex(mpl.colormaps["viridis"](end)) for end in (0.0, 1.0)]
    assert [legend(ax)["0"], legend(ax)["4"]] == ends
    space.uns["dominant_gene_colors"] = ["#222222", "#444444", "#111111"]
    assert colors(perturbation_space(space, show=False), space) == expected
    space.uns["dominant_gene_colors"] = ["#222222"]  # of other categories
    assert not set(colors(perturbation_space(space, show=False), space)) & {"#111111", "#222222"}


@pytest.mark.parametrize("n", [7, 8, 25, 60])
def test_there_is_a_colour_for_each_of_many_categories(n):
    space = ad.AnnData(np.ones((n, 1), np.float32), obs=pd.DataFrame({"perturbation": [f"G{i}+H" for i in range(n)]}))
    space.obs_names = space.obs["perturbation"].to_list()
    space.obsm["X_umap"] = np.c_[np.arange(n), np.arange(n)]
    ax = perturbation_space(space, color="perturbation", show=False)
    assert len(set(colors(ax, space))) == n
    figure = ax.get_figure()
    figure.draw_without_rendering()
    assert figure.get_figwidth() <= 3.5
    box, whole = ax.get_tightbbox(), figure.bbox
    assert box.x1 <= whole.x1 + 1
    assert box.y1 <= whole.y1 + 1
    assert ax.get_window_extent().height > 150


def test_names_may_be_chosen(space):
    assert written(perturbation_space(space, label=False, show=False)) == {}
    assert set(written(perturbation_space(space, label="B+A", show=False))) == {"B+A"}
    space.obsm["X_umap"][:] = 0
    assert len(written(perturbation_space(space, label=NAMES, show=False))) == len(NAMES)
    with pytest.raises(KeyError, match="label= names E, A\\+E, not among the perturbations"):
        perturbation_space(space, label=["A", "E", "A+E"], show=False)


def test_names_do_not_lie_on_one_another(rng):
    names = [f"GENE{i:03d}" for i in range(150)]
    obs = pd.DataFrame({"perturbation": names}, names)
    space = ad.AnnData(np.ones((150, 1), np.float32), obs=obs, obsm={"X_umap": rng.normal(size=(150, 2))})
    ax = perturbation_space(space, color=None, show=False)
    boxes = [text.get_window_extent() for text in ax.texts]
    assert 40 < len(boxes) < 150
    assert not any(one.overlaps(other) for one, other in combinations(boxes, 2))
    whole = ax.get_window_extent()
    assert min(box.x0 for box in boxes) >= whole.x0
    assert max(box.x1 for box in boxes) <= whole.x1


def test_of_predicted_cells_the_name_stands_in_their_middle(space):
    cells = ad.concat([space[["A", "A+B"]]] * 3, index_unique="-")
    cells.obsm["X_umap"] = np.array([[0, 0], [9, 9], [1, 5], [9, 9], [8, 1], [9, 9]], dtype=np.float32)
    ax = perturbation_space(cells, color=None, show=False)
    assert written(ax) == {"A": (1, 1)}


def test_names_may_be_written_in_another_way(space):
    space.obs["gene"] = space.obs.pop("perturbation").str.replace("+", "_").replace("A", "ctrl_A")
    ax = perturbation_space(space, perturbation_key="gene", control="ctrl", sep="_", show=False)
    assert list(written(ax)) == SINGLE


def test_the_input_is_not_changed(space):
    before = space.copy()
    perturbation_space(space, show=False)
    perturbation_space(space, color="trained_on", show=False)
    pd.testing.assert_frame_equal(space.obs, before.obs)
    assert not space.uns


def test_axes_are_taken_and_the_file_is_written(space, tmp_path):
    _, (_, mine) = plt.subplots(1, 2)
    assert perturbation_space(space, ax=mine, size=7, show=False, save=tmp_path / "space.svg") is mine
    assert {size for size, _ in points(mine).values()} == {7, 28}
    assert (tmp_path / "space.svg").stat().st_size > 1000


def test_it_is_shown_on_request(space, monkeypatch):
    shown = []
    monkeypatch.setattr(plt, "show", lambda: shown.append(True))
    assert perturbation_space(space, show=True) is None
    assert shown == [True]


@pytest.mark.parametrize(
    ("kwargs", "error", "message"),
    [
        (
            {"basis": "X_tsne"},
            KeyError,
            "no embedding 'X_tsne' in .obsm, which has ['X_umap', 'X_pca']. Make one by sc.pp.pca",
        ),
        ({"color": "cluster"}, KeyError, "no column 'cluster' in .obs: there are ['perturbation', "),
        ({"perturbation_key": "gene"}, KeyError, "no column 'gene' in .obs"),
        ({"palette": {"A": "red"}}, ValueError, "palette= has no colour for B"),
        ({"palette": ["red"]}, ValueError, "palette= has 1 colours for 2 categories, B, A: pass more"),
        ({"palette": "rainbows"}, ValueError, "palette='rainbows' is no colour map"),
        ({"color": "leiden", "palette": "Accent_"}, ValueError, "palette='Accent_' is no colour map"),
    ],
)
def test_wrong_input_is_an_error_that_says_what(kwargs, error, message, space):
    with pytest.raises(error, match=re.escape(message)):
        perturbation_space(space, show=False, **kwargs)


def test_what_has_to_be_made_is_said(space):
    bare = ad.AnnData(space.X, obs=space.obs[["perturbation"]], obsm=dict(space.obsm))
    with pytest.raises(KeyError, match="no column 'dominant_gene' in .obs: write it by scgpt.tl.dominant_genes"):
        perturbation_space(bare, show=False)
    with pytest.raises(KeyError, match="no column 'leiden' in .obs: write it by sc.tl.leiden"):
        perturbation_space(bare, color="leiden", show=False)


def test_wrong_data_are_an_error_that_says_what(space):
    with pytest.raises(ValueError, match="There is no perturbation to draw"):
        perturbation_space(space[:0].copy(), show=False)
    space.obs["nothing"] = np.nan
    with pytest.raises(ValueError, match="'nothing'\\] has no finite value to colour by"):
        perturbation_space(space, color="nothing", show=False)
    space.obsm["X_line"] = np.zeros((10, 1))
    with pytest.raises(ValueError, match="shape \\(10, 1\\); there have to be two dimensions"):
        perturbation_space(space, basis="line", show=False)
    space.obsm["X_umap"][2, 1] = np.nan
    with pytest.raises(ValueError, match="1 of 10 rows have no place in .obsm\\['X_umap'\\]"):
        perturbation_space(space, show=False)
    space.obs["perturbation"] = space.obs["perturbation"].astype(object)
    space.obs.loc["A", "perturbation"] = None
    with pytest.raises(ValueError, match="1 rows have no name in .obs\\['perturbation'\\]"):
        perturbation_space(space, basis="pca", show=False)
    many = ad.AnnData(np.ones((103, 1), np.float32), obs=pd.DataFrame({"perturbation": [f"G{i}" for i in range(103)]}))
    many.obsm["X_umap"] = np.zeros((103, 2))
    with pytest.raises(ValueError, match="103 categories cannot be told by colour"):
        perturbation_space(many, color="perturbation", show=False)
