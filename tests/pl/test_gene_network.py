import random
import re
from itertools import combinations

import anndata as ad
import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from scgpt.pl import gene_network
from scgpt.pl._colors import BLUE, VERMILLION

mpl.use("Agg")
plt = pytest.importorskip("matplotlib.pyplot")

GENES = list("ABCDEFGH")
EDGES = {("A", "B"): 0.9, ("A", "C"): 0.5, ("B", "C"): 0.7, ("C", "D"): 0.6, ("E", "F"): 0.8}
CHANGES = [("B", "A", "gained", 0.9, 0.3), ("D", "E", "lost", 0.2, 0.75), ("A", "gone", "lost", 0.1, 0.6)]


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    plt.close("all")


@pytest.fixture
def adata() -> ad.AnnData:
    """Genes of which G and H have no edge."""
    adata = ad.AnnData(np.ones((2, 8), np.float32), var=pd.DataFrame(index=GENES))
    matrix = pd.DataFrame(0.0, GENES, GENES)
    for (one, other), value in EDGES.items():
        matrix.loc[one, other] = matrix.loc[other, one] = value
    adata.varp["scgpt_similarity"] = sp.csr_matrix(matrix.to_numpy(np.float32))
    columns = ["gene_1", "gene_2", "change", "similarity", "similarity_before"]
    adata.uns["scgpt_similarity"] = {"changes": pd.DataFrame(CHANGES, columns=columns)}
    adata.var["scgpt_program"] = pd.Categorical([*["P1"] * 4, "P2", "P2", None, "P3"])
    adata.var["size"] = np.arange(8.0)
    return adata


def nodes(ax) -> dict[str, np.ndarray]:
    """Place of each gene, by the names that are written."""
    return {text.get_text(): np.array(text.xy) for text in ax.texts}


def points(ax):
    return ax.collections[-1]


def colors(ax) -> dict[str, str]:
    places = points(ax).get_offsets()
    found = {}
    for name, place in nodes(ax).items():
        (i,) = np.flatnonzero(np.isclose(places, place).all(1))
        found[name] = mpl.colors.to_hex(points(ax).get_facecolors()[i])
    return found


def edges(ax) -> dict[tuple[str, str], tuple[float, str, bool]]:
    """Width, colour and whether it is dashed, of each edge."""
    places, found = nodes(ax), {}
    for lines in ax.collections[:-1]:
        widths, shades, styles = lines.get_linewidths(), lines.get_colors(), lines.get_linestyles()
        for i, ends in enumerate(lines.get_segments()):
            names = sorted(name for end in ends for name, place in places.items() if np.allclose(place, end))
            shade = mpl.colors.to_hex(shades[i % len(shades)])
            found[tuple(names)] = float(widths[i]), shade, styles[i % len(styles)][1] is not None
    return found


def legend(ax) -> list[str]:
    return [text.get_text() for text in ax.get_legend().get_texts()]


def test_genes_with_an_edge_are_drawn_with_their_edges(adata):
    ax = gene_network(adata, show=False)
    assert set(nodes(ax)) == set("ABCDEF")
    found = edges(ax)
    assert set(found) == set(EDGES)
    by_similarity = sorted(EDGES, key=EDGES.get)
    widths = [found[edge][0] for edge in by_similarity]
    darkness = [-mpl.colors.to_rgb(found[edge][1])[0] for edge in by_similarity]
    assert widths == sorted(set(widths))
    assert darkness == sorted(set(darkness))
    assert not any(dashed for _, _, dashed in found.values())
    assert legend(ax) == ["P1", "P2", "cosine 0.50", "cosine 0.90"]
    assert ax.get_legend().get_title().get_text() == "program"


def test_genes_are_coloured_by_program(adata):
    ax = gene_network(adata, genes=GENES, show=False)
    found = colors(ax)
    assert len({found["A"], found["E"], found["H"]}) == 3
    assert found["A"] == found["B"] == found["C"] == found["D"]
    assert found["G"] == mpl.colors.to_hex("lightgray")
    assert legend(ax)[:4] == ["P1", "P2", "P3", "none"]


def test_another_column_may_be_drawn(adata):
    ax = gene_network(adata, color="size", cmap="magma", show=False)
    ends = [mpl.colors.to_hex(mpl.colormaps["magma"](end)) for end in (0.0, 1.0)]
    assert [colors(ax)["A"], colors(ax)["F"]] == ends
    (bar,) = (other for other in ax.get_figure().axes if other is not ax)
    assert bar.get_ylabel() == "size"
    assert legend(ax) == ["cosine 0.50", "cosine 0.90"]
    del adata.var["scgpt_program"]
    assert set(colors(gene_network(adata, show=False)).values()) == {BLUE.lower()}


def test_colours_may_be_chosen(adata):
    ax = gene_network(adata, palette={"P1": "#111111", "P2": "#222222"}, show=False)
    assert (colors(ax)["A"], colors(ax)["E"]) == ("#111111", "#222222")


def test_genes_may_be_chosen(adata):
    assert set(nodes(gene_network(adata, genes=["A", "B", "G", "A"], show=False))) == set("ABG")
    assert set(nodes(gene_network(adata, program="P2", show=False))) == set("EF")
    ax = gene_network(adata, genes=["H"], show=False)
    assert set(nodes(ax)) == {"H"}
    assert edges(ax) == {}


@pytest.mark.parametrize(("around", "expected"), [("D", "CD"), (["A", "E"], "ABCEF"), ("G", "G")])
def test_neighbours_are_drawn_around_genes(around, expected, adata):
    ax = gene_network(adata, around=around, show=False)
    assert set(nodes(ax)) == set(expected)
    assert set(edges(ax)) == {edge for edge in EDGES if set(edge) <= set(expected)}
    rims = points(ax).get_edgecolors()
    rimmed = {name for name, place in nodes(ax).items() if (rims[at(ax, place)] == [0, 0, 0, 1]).all()}
    assert rimmed == set(around)


def at(ax, place) -> int:
    return int(np.flatnonzero(np.isclose(points(ax).get_offsets(), place).all(1))[0])


def test_changes_have_colours_and_dashes(adata):
    ax = gene_network(adata, genes=list("ABCDEF"), changes=True, show=False)
    found = edges(ax)
    assert set(found) == {*EDGES, ("D", "E")}
    assert found["A", "B"][1:] == (BLUE.lower(), False)
    assert found["D", "E"][1:] == (VERMILLION.lower(), True)
    assert found["A", "C"][1] not in (BLUE.lower(), VERMILLION.lower())
    assert found["A", "B"][0] > found["D", "E"][0]
    assert legend(ax) == ["kept", "gained", "lost"]
    assert len(set(colors(ax).values())) == 1
    ax = gene_network(adata, changes=True, color="scgpt_program", show=False)
    assert set(nodes(ax)) == set("ABDE")  # those of an edge gained or lost
    assert colors(ax)["A"] != colors(ax)["E"]
    assert set(edges(ax)) == {("A", "B"), ("D", "E")}
    ax = gene_network(adata, around="D", changes=True, show=False)
    assert set(nodes(ax)) == set("CDE")


def test_the_layout_is_always_the_same(adata):
    random.seed(1)
    state = random.getstate()
    first = points(gene_network(adata, show=False)).get_offsets()
    assert random.getstate() == state
    random.seed(2)
    np.testing.assert_array_equal(points(gene_network(adata, show=False)).get_offsets(), first)


def test_similar_genes_lie_near_one_another(rng):
    genes = [f"GENE{i}" for i in range(40)]
    matrix = np.zeros((40, 40))
    for i, j in combinations(range(40), 2):
        if i // 10 == j // 10 and rng.random() < 0.7:
            matrix[i, j] = matrix[j, i] = rng.uniform(0.3, 0.9)
    adata = ad.AnnData(np.ones((1, 40), np.float32), var=pd.DataFrame(index=genes))
    adata.varp["scgpt_similarity"] = sp.csr_matrix(matrix)
    ax = gene_network(adata, show=False)
    places = np.asarray(points(ax).get_offsets()).reshape(4, 10, 2)
    middles = places.mean(1)
    within = np.linalg.norm(places - middles[:, None], axis=-1).max()
    between = min(np.linalg.norm(one - other) for one, other in combinations(middles, 2))
    assert between > within
    boxes = [text.get_window_extent() for text in ax.texts]
    assert len(boxes) > 25
    assert not any(one.overlaps(other) for one, other in combinations(boxes, 2))
    figure = ax.get_figure()
    assert figure.get_figwidth() <= 3.5
    box, whole = ax.get_tightbbox(), figure.bbox
    assert box.x1 <= whole.x1 + 1
    assert box.y1 <= whole.y1 + 1


def test_names_may_be_chosen(adata):
    assert nodes(gene_network(adata, label=False, show=False)) == {}
    assert set(nodes(gene_network(adata, label=["A", "E"], show=False))) == set("AE")
    with pytest.raises(KeyError, match="label= names G, not among the genes drawn"):
        gene_network(adata, label=["A", "G"], show=False)


def test_the_input_is_not_changed(adata):
    before = adata.copy()
    gene_network(adata, changes=True, show=False)
    assert (adata.varp["scgpt_similarity"] != before.varp["scgpt_similarity"]).nnz == 0
    pd.testing.assert_frame_equal(adata.var, before.var)


def test_axes_are_taken_and_the_file_is_written(adata, tmp_path):
    _, (_, mine) = plt.subplots(1, 2)
    assert gene_network(adata, ax=mine, show=False, save=tmp_path / "network.svg") is mine
    assert len(points(mine).get_offsets()) == 6
    assert (tmp_path / "network.svg").stat().st_size > 1000


def test_it_is_shown_on_request(adata, monkeypatch):
    shown = []
    monkeypatch.setattr(plt, "show", lambda: shown.append(True))
    assert gene_network(adata, show=True) is None
    assert shown == [True]


@pytest.mark.parametrize(
    ("kwargs", "error", "message"),
    [
        ({"genes": ["A", "TP53"]}, KeyError, "genes= names TP53, not in .var_names"),
        ({"genes": []}, ValueError, "genes= names no gene"),
        ({"around": "TP53"}, KeyError, "around= names TP53, not in .var_names"),
        ({"program": "P9"}, KeyError, "There is no program 'P9'; there are P1, P2, P3"),
        ({"program": "P1", "around": "A"}, ValueError, "genes=, program= and around= choose genes each in its own way"),
        ({"color": "length"}, KeyError, "no column 'length' in .var: there are ['scgpt_program', 'size']"),
        ({"key": "mine"}, KeyError, "no 'mine' in .varp: call scgpt.tl.gene_similarity(adata, model) first"),
    ],
)
def test_wrong_input_is_an_error_that_says_what(kwargs, error, message, adata):
    with pytest.raises(error, match=re.escape(message)):
        gene_network(adata, show=False, **kwargs)


def test_what_has_to_be_called_first_is_said(adata):
    del adata.uns["scgpt_similarity"]["changes"], adata.var["scgpt_program"]
    message = (
        "no 'changes' in .uns['scgpt_similarity']: call scgpt.tl.gene_similarity(adata, model, compare_to=...) first"
    )
    with pytest.raises(KeyError, match=re.escape(message)):
        gene_network(adata, changes=True, show=False)
    message = "no column 'scgpt_program' in .var: call scgpt.tl.gene_programs(adata, model) first"
    with pytest.raises(KeyError, match=re.escape(message)):
        gene_network(adata, program="P1", show=False)
    table = pd.DataFrame(columns=["gene_1", "gene_2", "change", "similarity", "similarity_before"])
    adata.uns["scgpt_similarity"]["changes"] = table
    with pytest.raises(ValueError, match="No gene has an edge that was gained or lost: there is nothing to draw"):
        gene_network(adata, changes=True, show=False)
    adata.varp["scgpt_similarity"] = sp.csr_matrix((8, 8))
    with pytest.raises(ValueError, match="No gene has an edge: there is nothing to draw"):
        gene_network(adata, show=False)


def test_too_many_genes_are_an_error_that_says_how_to_choose():
    adata = ad.AnnData(np.ones((1, 151), np.float32))
    adata.varp["scgpt_similarity"] = sp.csr_matrix(np.ones((151, 151)) - np.eye(151))
    message = (
        "151 genes are too many to draw with their names; choose up to 150 by genes=, those of a program by program="
    )
    with pytest.raises(ValueError, match=message):
        gene_network(adata, show=False)
