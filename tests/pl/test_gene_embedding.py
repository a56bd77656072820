import re

import anndata as ad
import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
import scanpy as sc
import scipy.sparse as sp

from scgpt.pl import gene_embedding

mpl.use("Agg")
plt = pytest.importorskip("matplotlib.pyplot")

GREY = mpl.colors.to_hex("lightgray")


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    plt.close("all")


@pytest.fixture
def adata(rng) -> ad.AnnData:
    """Counts of 12 genes, of which 0 to 2 are higher in B cells, 3 to 5 in T cells, and the last has no embedding."""
    types = np.repeat(["B", "T", "NK", "one"], [20, 20, 20, 1])
    rates = np.full((61, 12), 3.0)
    rates[:20, :3] = rates[20:40, 3:6] = 30
    adata = ad.AnnData(sp.csr_matrix(rng.poisson(rates).astype(np.float32)), obs=pd.DataFrame({"type": types}))
    adata.obs_names = [f"c{i}" for i in range(61)]
    adata.var_names = [f"G{i}" for i in range(12)]
    places = np.c_[np.arange(12) % 4, np.arange(12) // 4].astype(np.float32)
    places[11] = np.nan
    adata.varm["X_umap"] = places
    adata.varm["scgpt_gene"] = np.c_[places, rng.normal(size=(12, 6))].astype(np.float32)
    adata.var["scgpt_program"] = pd.Categorical([*["P1"] * 6, *["P2"] * 4, None, None])
    adata.var["mean"] = np.arange(12.0)
    return adata


def colors(ax, adata, basis="X_umap") -> dict[str, str]:
    """Of genes, by their places."""
    found = {}
    for points in ax.collections:
        for place, shade in zip(points.get_offsets(), points.get_facecolors(), strict=True):
            (i,) = np.flatnonzero(np.isclose(adata.varm[basis], place).all(1))
            found[adata.var_names[i]] = mpl.colors.to_hex(shade)
    return found


def legend(ax) -> dict[str, str]:
    found = ax.get_legend()
    handles = (mpl.colors.to_hex(handle.get_color()) for handle in found.legend_handles)
    return dict(zip((text.get_text() for text in found.get_texts()), handles, strict=True))


def written(ax) -> dict[str, tuple[float, float]]:
    return {text.get_text(): getattr(text, "xy", text.get_position()) for text in ax.texts}


def test_genes_are_coloured_by_program_and_programs_named_in_their_middle(adata):
    ax = gene_embedding(adata, basis="X_umap", show=False)
    found = colors(ax, adata)
    assert list(found) != list(adata.var_names)
    assert set(found) == set(adata.var_names[:-1])
    assert len({found[f"G{i}"] for i in range(6)}) == len({found[f"G{i}"] for i in range(6, 10)}) == 1
    assert found["G0"] != found["G6"]
    assert found["G10"] == GREY
    assert legend(ax) == {"none": GREY}
    assert ax.get_legend().get_title().get_text() == "program"
    assert written(ax) == {"P1": (1, 0), "P2": (1.5, 1.5)}
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("UMAP1", "UMAP2")


@pytest.mark.parametrize("matrix", [sp.csr_matrix, sp.csc_matrix, lambda own: own.toarray()])
def test_markers_are_coloured_by_their_group(matrix, adata):
    adata.X = matrix(adata.X)
    ax = gene_embedding(adata, basis="X_umap", groupby="type", n_genes=3, show=False)
    found, key = colors(ax, adata), legend(ax)
    assert key.keys() >= {"B", "T"}
    assert "one" not in key  # of one cell, which has no markers
    assert [found[f"G{i}"] for i in range(6)] == [key["B"]] * 3 + [key["T"]] * 3
    assert ax.get_legend().get_title().get_text() == "type"


@pytest.mark.slow
def test_markers_are_those_of_scanpy(adata):
    adata.X = adata.X.toarray()
    ax = gene_embedding(adata, basis="X_umap", groupby="type", n_genes=2, show=False)
    own = adata[adata.obs["type"] != "one"].copy()
    sc.pp.normalize_total(own, target_sum=1e4)
    sc.pp.log1p(own)
    own = own[:, :-1].copy()
    own.obs["type"] = own.obs["type"].astype("category")
    sc.tl.rank_genes_groups(own, "type", method="t-test", n_genes=2)
    first = pd.DataFrame(own.uns["rank_genes_groups"]["names"])
    found, key = colors(ax, adata), legend(ax)
    assert {name for name, shade in found.items() if shade == key["B"]} == set(first["B"])
    assert {name for name, shade in found.items() if shade == key["T"]} == set(first["T"])
    assert key["other"] == GREY
    assert list(found.values()).count(GREY) >= 11 - 6


@pytest.mark.parametrize("scale", ["normalised", "log-normalised"])
def test_counts_are_normalised_and_other_values_taken_as_they_are(scale, adata):
    expected = colors(gene_embedding(adata, basis="X_umap", groupby="type", n_genes=3, show=False), adata)
    done = adata.X.toarray()
    done *= 1e4 / done.sum(1, keepdims=True)
    adata.layers["done"] = sp.csr_matrix(done if scale == "normalised" else np.log1p(done))
    adata.X = sp.csr_matrix(adata.shape, dtype=np.float32)
    ax = gene_embedding(adata, basis="X_umap", groupby="type", n_genes=3, layer="done", show=False)
    assert colors(ax, adata) == expected


def test_cells_without_a_group_are_left_out(adata):
    adata.obs.loc["c0", "type"] = None
    ax = gene_embedding(adata, basis="X_umap", groupby="type", n_genes=3, show=False)
    assert colors(ax, adata)["G0"] == legend(ax)["B"]


def test_another_column_may_be_drawn(adata):
    ax = gene_embedding(adata, basis="X_umap", color="mean", cmap="magma", show=False)
    found = colors(ax, adata)
    ends = [mpl.colors.to_hex(mpl.colormaps["magma"](end)) for end in (0.0, 1.0)]
    assert [found["G0"], found["G10"]] == ends
    (bar,) = (other for other in ax.get_figure().axes if other is not ax)
    assert bar.get_ylabel() == "mean"
    adata.var["kind"] = np.where(np.arange(12) < 6, "x", "y")
    assert list(legend(gene_embedding(adata, basis="X_umap", color="kind", show=False))) == ["x", "y"]
    del adata.var["scgpt_program"]
    ax = gene_embedding(adata, basis="X_umap", show=False)
    assert len(set(colors(ax, adata).values())) == 1
    assert ax.get_legend() is None


def test_colours_may_be_chosen(adata):
    ax = gene_embedding(adata, basis="X_umap", palette={"P1": "#111111", "P2": "#222222"}, show=False)
    assert (colors(ax, adata)["G0"], colors(ax, adata)["G6"]) == ("#111111", "#222222")
    adata.obs["type"] = pd.Categorical(adata.obs["type"], ["T", "B", "NK", "one"])
    ax = gene_embedding(adata, basis="X_umap", groupby="type", n_genes=3, palette="tab10", show=False)
    assert (legend(ax)["T"], legend(ax)["B"]) == tuple(mpl.colors.to_hex(f"C{i}") for i in range(2))


def test_genes_may_be_named(adata):
    del adata.var["scgpt_program"]
    ax = gene_embedding(adata, basis="X_umap", label=["G9", "G0"], size=7, show=False)
    assert written(ax) == {"G9": (1, 2), "G0": (0, 0)}
    rimmed = ax.collections[-1]
    assert len(rimmed.get_offsets()) == 2
    np.testing.assert_array_equal(rimmed.get_edgecolors()[0], [0, 0, 0, 1])
    assert {float(size) for points in ax.collections for size in points.get_sizes()} == {7}
    assert set(written(gene_embedding(adata, basis="X_umap", label="G3", show=False))) == {"G3"}


def test_grey_genes_lie_below_the_others(adata):
    ax = gene_embedding(adata, basis="X_umap", show=False)
    np.testing.assert_array_equal(ax.collections[0].get_offsets(), [[2, 2]])


def test_more_dimensions_are_reduced_from_known_genes(adata, monkeypatch):
    """The neighbours and UMAP themselves take long to compile; a slow test runs them."""
    calls = {}

    def neighbors(genes, n_neighbors, **kwargs):
        calls["neighbors"] = (genes.shape, n_neighbors, kwargs["metric"], kwargs["random_state"])

    def umap(genes, random_state):
        calls["umap"] = random_state
        genes.obsm["X_umap"] = np.asarray(genes.X)[:, :2]

    monkeypatch.setattr(sc.pp, "neighbors", neighbors)
    monkeypatch.setattr(sc.tl, "umap", umap)
    ax = gene_embedding(adata, show=False)
    assert calls == {"neighbors": ((11, 8), 10, "cosine", 0), "umap": 0}
    assert set(colors(ax, adata)) == set(adata.var_names[:-1])
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("UMAP1", "UMAP2")


@pytest.mark.slow
def test_umap_puts_similar_genes_together_and_always_at_the_same_place(rng):
    centres = rng.normal(size=(3, 16))
    values = np.repeat(centres, 30, 0) + rng.normal(0, 0.2, (90, 16))
    adata = ad.AnnData(np.ones((1, 90), np.float32), varm={"scgpt_gene": values.astype(np.float32)})
    first, again = (
        np.concatenate([points.get_offsets() for points in gene_embedding(adata, show=False).collections])
        for _ in range(2)
    )
    np.testing.assert_array_equal(first, again)
    groups = first.reshape(3, 30, 2)
    middles = groups.mean(1)
    within = np.linalg.norm(groups - middles[:, None], axis=-1).mean()
    assert min(np.linalg.norm(middles[i] - middles[i - 1]) for i in range(3)) > 2 * within


def test_all_of_it_lies_in_the_figure(rng):
    adata = ad.AnnData(np.ones((1, 300), np.float32), varm={"X_umap": rng.normal(size=(300, 2))})
    adata.var["kind"] = pd.Categorical(np.arange(300) % 25).rename_categories(lambda i: f"a kind of gene {i}")
    ax = gene_embedding(adata, basis="X_umap", color="kind", label=list(adata.var_names[:5]), show=False)
    figure = ax.get_figure()
    figure.draw_without_rendering()
    assert figure.get_figwidth() <= 3.5
    box, whole = ax.get_tightbbox(), figure.bbox
    assert box.x1 <= whole.x1 + 1
    assert box.y1 <= whole.y1 + 1
    assert ax.get_window_extent().height > 150


def test_the_input_is_not_changed(adata):
    before = adata.copy()
    gene_embedding(adata, basis="X_umap", groupby="type", show=False)
    assert (adata.X != before.X).nnz == 0
    pd.testing.assert_frame_equal(adata.obs, before.obs)
    assert not adata.uns


def test_axes_are_taken_and_the_file_is_written(adata, tmp_path):
    _, (_, mine) = plt.subplots(1, 2)
    file = tmp_path / "genes.svg"
    assert gene_embedding(adata, basis="X_umap", ax=mine, show=False, save=file) is mine
    assert len(colors(mine, adata)) == 11
    assert file.stat().st_size > 1000


def test_it_is_shown_on_request(adata, monkeypatch):
    shown = []
    monkeypatch.setattr(plt, "show", lambda: shown.append(True))
    assert gene_embedding(adata, basis="X_umap", show=True) is None
    assert shown == [True]


@pytest.mark.parametrize(
    ("kwargs", "error", "message"),
    [
        ({"basis": "mine"}, KeyError, "no 'mine' in .varm: call scgpt.tl.gene_programs(adata, model) first"),
        ({"color": "mean", "groupby": "type"}, ValueError, "color= and groupby= both name a column to colour by"),
        ({"color": "length"}, KeyError, "no column 'length' in .var: there are ['scgpt_program', 'mean']"),
        ({"groupby": "cluster"}, KeyError, "groupby='cluster' is not a column of .obs; there are ['type']"),
        ({"groupby": "type", "layer": "log"}, KeyError, "There is no layer 'log'"),
        ({"n_genes": 0}, ValueError, "n_genes has to be 1 or more, and is 0"),
        ({"label": "TP53"}, KeyError, "label= names TP53, not in .var_names"),
        ({"label": ["G1", "G11"]}, KeyError, "label= names G11, without an embedding in .varm['X_umap']"),
    ],
)
def test_wrong_input_is_an_error_that_says_what(kwargs, error, message, adata):
    with pytest.raises(error, match=re.escape(message)):
        gene_embedding(adata, show=False, **{"basis": "X_umap"} | kwargs)


def test_wrong_data_are_an_error_that_says_what(adata):
    with pytest.raises(ValueError, match=re.escape(".obs['type'] has 1 groups of two cells or more")):
        gene_embedding(adata[:20].copy(), basis="X_umap", groupby="type", show=False)
    adata.varm["line"] = np.zeros((12, 1))
    with pytest.raises(ValueError, match=r"shape \(12, 1\); there have to be two dimensions"):
        gene_embedding(adata, basis="line", show=False)
    adata.varm["X_umap"][2:] = np.nan
    with pytest.raises(ValueError, match=re.escape("2 of 12 genes have an embedding in .varm['X_umap']: too few")):
        gene_embedding(adata, basis="X_umap", show=False)


def test_more_programs_than_colours_are_drawn_and_names_lie_on_no_other(rng):
    adata = ad.AnnData(np.ones((2, 330), np.float32), var=pd.DataFrame(index=[f"G{i}" for i in range(330)]))
    names = [f"P{i + 1}" for i in range(110)]
    adata.var["scgpt_program"] = pd.Categorical(np.repeat(names, 3), names)
    adata.varm["X_umap"] = rng.normal(size=(330, 2))
    ax = gene_embedding(adata, basis="X_umap", label="G0", show=False)
    assert len(set(colors(ax, adata).values())) > 90
    assert "G0" in written(ax)
    boxes = [text.get_window_extent() for text in ax.texts]
    assert 10 < len(boxes) < 111
    assert not any(box.count_overlaps(boxes[:i]) for i, box in enumerate(boxes))
