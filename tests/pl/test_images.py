"""Every plot looks as it did, and can be read in a column of a page.

``python tests/pl/test_images.py`` draws the expected images anew, into ``images/``; look at them before they are committed.
Text is drawn otherwise by other versions of matplotlib, so they are compared under the version that drew them alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import combinations
from pathlib import Path

import anndata as ad
import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

mpl.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.testing.compare import compare_images
from matplotlib.text import Text
from PIL import Image

import scgpt

IMAGES = Path(__file__).parent / "images"
# Root of the mean squared difference of pixels, of 255. Under one version of matplotlib there is none; a name that is
# missing makes more than this, as tests below hold.
TOLERANCE = 0.5
COLUMN = 3.35  # inches: 85 mm
SMALLEST = 5  # points
# Without a legend or a colour bar.
EXPLAIN_THEMSELVES = {"confidence", "confusion", "gene_embedding", "integration_scores"}


def cells(**columns) -> ad.AnnData:
    n = len(next(iter(columns.values())))
    return ad.AnnData(np.ones((n, 1), np.float32), obs=pd.DataFrame(columns, [f"c{i}" for i in range(n)]))


def annotated() -> ad.AnnData:
    rng = np.random.default_rng(0)
    types = np.array(["B cells", "CD14+ Monocytes", "CD4 T cells", "NK cells"])
    true, other = rng.choice(types, (2, 300))
    confidence = rng.uniform(0.3, 1, 300)
    predicted = np.where(rng.random(300) < confidence, true, other)
    return cells(cell_type=true, scgpt_label=predicted, scgpt_confidence=confidence)


def attention_targets(**kwargs):
    genes = ["IRF1", *(f"GENE{i}" for i in range(6))]
    influence = np.full((2, 7, 7), 0.5)
    influence[:, 1:, 0] = [[0.4, 0.5, 0.3, 0.6, 0.5, 0.45], [0.9, 0.7, 0.2, 0.5, 0.55, 0.2]]
    found = {
        "genes": np.array(genes, dtype=object),
        "groups": np.array(["control", "IRF1"], dtype=object),
        "n_cells": np.array([20, 20]),
        "control": "control",
        "influence": influence,
        "n_both": np.full(influence.shape, 20),
        "targets": pd.DataFrame(columns=["regulator", "group", "mode", "target", "rank", "score"]),
    }
    adata = ad.AnnData(np.ones((1, 1), np.float32), uns={"scgpt_attention": found})
    return scgpt.pl.attention_targets(adata, "IRF1", **kwargs)


def confidence(**kwargs):
    return scgpt.pl.confidence(annotated(), "cell_type", n_bins=8, **kwargs)


def confusion(**kwargs):
    return scgpt.pl.confusion(annotated(), "cell_type", **kwargs)


def enrichment(**kwargs):
    sets = ["E2F_TARGETS", "G2M_CHECKPOINT", "INTERFERON_ALPHA_RESPONSE", "APOPTOSIS"]
    rows = [(f"P{1 + i % 3}", f"HALLMARK_{name}", 9 - 2 * i, 10.0 ** (i - 6)) for i, name in enumerate(sets)]
    table = pd.DataFrame(rows, columns=["list", "gene_set", "overlap", "adjusted_pvalue"])
    table["pvalue"] = table["adjusted_pvalue"] / 10
    return scgpt.pl.enrichment(ad.AnnData(np.ones((1, 1)), uns={"scgpt_enrichment": table}), **kwargs)


def genes() -> ad.AnnData:
    """Three programs of genes."""
    rng = np.random.default_rng(1)
    program = np.repeat([0, 1, 2], 8)
    adata = ad.AnnData(np.ones((2, 24), np.float32), var=pd.DataFrame(index=[f"GENE{i}" for i in range(24)]))
    adata.var["scgpt_program"] = pd.Categorical.from_codes(program, ["P1", "P2", "P3"])
    places = np.array([[0, 0], [4, 1], [2, 4]])[program] + rng.normal(0, 0.6, (24, 2))
    adata.varm["X_umap"] = places
    near = np.exp(-(((places[:, None] - places) ** 2).sum(-1))) * (1 - np.eye(24))
    adata.varp["scgpt_similarity"] = sp.csr_matrix(np.where(near > 0.4, near, 0))
    return adata


def gene_embedding(**kwargs):
    return scgpt.pl.gene_embedding(genes(), basis="X_umap", label=["GENE3", "GENE12"], **kwargs)


def gene_network(**kwargs):
    # Few genes: where many are put hangs on how the machine rounds.
    return scgpt.pl.gene_network(genes(), genes=[f"GENE{i}" for i in range(4)], **kwargs)


def integration_scores(**kwargs):
    names = ["NMI", "ARI", "ASW_label", "AvgBIO", "ASW_batch", "graph_connectivity", "AvgBATCH", "Overall"]
    table = pd.DataFrame(np.linspace(0.2, 0.95, 24).reshape(3, 8), ["X_pca", "X_harmony", "X_scGPT"], names)
    for name in ("AvgBIO", "Overall"):
        table[f"{name}_low"], table[f"{name}_high"] = table[name] - 0.1, table[name] + 0.08
    return scgpt.pl.integration_scores(table, **kwargs)


def pathway_counts(**kwargs):
    counts = {"resolution": [1, 5, 20, 40], "model": [20, 45, 81, 79], "coexpression": [18, 30, 40, 12]}
    table = pd.DataFrame(counts | {"shared": [15, 20, 24, 10]})
    return scgpt.pl.pathway_counts(ad.AnnData(np.ones((1, 1)), uns={"scgpt_pathways": {"counts": table}}), **kwargs)


def perturbation_response(**kwargs):
    rng = np.random.default_rng(2)
    effect = np.linspace(-2, 2, 12)
    var = pd.DataFrame(index=["KLF1", *(f"GENE{i}" for i in range(11))])
    observed = cells(perturbation=np.repeat(["control", "KLF1"], 30))
    values = 4 + np.outer(np.arange(60) >= 30, effect) + rng.normal(0, 0.5, (60, 12))
    observed = ad.AnnData(values, obs=observed.obs, var=var)
    predicted = ad.AnnData(4 + 0.8 * effect[None], obs=pd.DataFrame({"perturbation": ["KLF1"]}, ["KLF1"]), var=var)
    return scgpt.pl.perturbation_response(observed, predicted, "KLF1", **kwargs)


def perturbation_space(**kwargs):
    single = ["CEBPA", "KLF1", "SET", "SPI1"]
    names = [*single, *("+".join(pair) for pair in combinations(single, 2))]
    space = cells(perturbation=names, dominant_gene=["CEBPA", *["KLF1"] * 4, *["SET"] * 3, *["SPI1"] * 2])
    space.obsm["X_umap"] = np.random.default_rng(3).normal(size=(10, 2))
    return scgpt.pl.perturbation_space(space, **kwargs)


def program_activity(**kwargs):
    programs, groups = [f"P{i}" for i in range(1, 7)], ["B", "CD4 T", "CD14+ Mono", "NK"]
    activity = pd.DataFrame(np.random.default_rng(4).normal(size=(4, 6)), groups, programs)
    table = pd.DataFrame({"genes": [f"GENE{i}, GENE{i + 9}, GENE{i + 20}" for i in range(6)]}, programs)
    adata = ad.AnnData(np.ones((1, 1)), uns={"scgpt_programs": {"table": table, "activity": activity}})
    return scgpt.pl.program_activity(adata, **kwargs)


def reverse_ranking(**kwargs):
    names = ["CEBPA+KLF1", "KLF1", "SPI1+KLF1", "SET", "SPI1"]
    similarity = [0.9, 0.8, 0.5, 0.1, -0.2]
    table = pd.DataFrame({"state": "treated", "rank": range(1, 6), "perturbation": names, "similarity": similarity})
    return scgpt.pl.reverse_ranking(table, truth="KLF1+CEBPA", **kwargs)


PLOTS: dict[str, Callable] = {name: globals()[name] for name in scgpt.pl.__all__}


@pytest.fixture(autouse=True)
def _style() -> Iterator[None]:
    """Matplotlib's own style and font, whatever this machine or other tests have set."""
    with mpl.rc_context():
        mpl.rcdefaults()
        yield
    plt.close("all")


def image_of(figure: Figure, path: Path) -> Path:
    figure.savefig(path, dpi=60)
    return path


def drawn(name: str) -> Figure:
    return PLOTS[name](show=False).get_figure(root=True)


def check(figure: Figure, name: str, folder: Path) -> str | None:
    """Return what differs from the expected image, and where the images are."""
    expected = IMAGES / f"{name}.png"
    made_by = Image.open(expected).info["Software"]
    if f"version{mpl.__version__}," not in made_by:
        pytest.skip(f"{expected.name} was drawn by {made_by.split(',')[0]}, and this is {mpl.__version__}")
    return compare_images(str(expected), str(image_of(figure, folder / f"{name}.png")), TOLERANCE)


@pytest.mark.parametrize("name", PLOTS)
def test_a_plot_looks_as_it_did(name, tmp_path):
    difference = check(drawn(name), name, tmp_path)
    assert difference is None, difference


def written(figure: Figure) -> list[Text]:
    figure.draw_without_rendering()
    return [
        text
        for text in figure.findobj(Text)
        if text.get_text() and text.get_visible() and text.get_window_extent().width
    ]


@pytest.mark.parametrize("name", PLOTS)
def test_a_missing_name_would_be_seen(name, tmp_path):
    figure = drawn(name)
    # The shortest one, of a single letter or digit or more.
    shortest = min(written(figure), key=lambda text: (len(text.get_text()), text.get_fontsize()))
    shortest.set_alpha(0)
    assert check(figure, name, tmp_path) is not None


@pytest.mark.parametrize("name", sorted(PLOTS.keys() - EXPLAIN_THEMSELVES))
def test_a_missing_legend_would_be_seen(name, tmp_path):
    figure = drawn(name)
    legends = [ax.get_legend() for ax in figure.axes if ax.get_legend()] or figure.axes[1:]
    legends[0].set_visible(False)
    assert check(figure, name, tmp_path) is not None


def test_another_colour_would_be_seen(tmp_path):
    figure = reverse_ranking(palette={"true": "#D55E00"}, show=False).get_figure()
    assert check(figure, "reverse_ranking", tmp_path) is not None
    figure = confusion(cmap="Greens", show=False).get_figure()
    assert check(figure, "confusion", tmp_path) is not None


def beyond_the_ends(figure: Figure) -> set[Text]:
    """Return the labels of ticks that lie beyond the ends of their axes, where they are not drawn."""
    found = set()
    for axis in figure.findobj(Axis):
        low, high = sorted(axis.get_view_interval())
        beyond = [tick for tick in axis.get_major_ticks() if not low <= tick.get_loc() <= high]
        found |= {label for tick in beyond for label in (tick.label1, tick.label2)}
    return found


@pytest.mark.parametrize("in_column", [False, True])
@pytest.mark.parametrize("name", PLOTS)
def test_all_text_can_be_read(name, in_column):
    figure = drawn(name)
    if in_column:
        figure, ax = plt.subplots(figsize=(COLUMN, max(2.5, figure.get_figheight())), layout="constrained")
        PLOTS[name](ax=ax, show=False)
    texts = written(figure)
    assert min(text.get_fontsize() for text in texts) >= SMALLEST
    not_drawn = beyond_the_ends(figure)
    boxes = {(text.get_text(), id(text)): text.get_window_extent() for text in texts if text not in not_drawn}
    outside = [
        text
        for (text, _), box in boxes.items()
        if min(box.x0, box.y0) < -1 or box.x1 > figure.bbox.x1 + 1 or box.y1 > figure.bbox.y1 + 1
    ]
    assert not outside
    overlaps = [
        (one[0], other[0])
        for (one, box), (other, second) in combinations(boxes.items(), 2)
        if min(box.x1, second.x1) - max(box.x0, second.x0) > 1 and min(box.y1, second.y1) - max(box.y0, second.y0) > 1
    ]
    assert not overlaps


if __name__ == "__main__":
    IMAGES.mkdir(exist_ok=True)
    for plot in PLOTS:
        with mpl.rc_context():
            mpl.rcdefaults()
            mpl.use("Agg")
            image_of(drawn(plot), IMAGES / f"{plot}.png")
            plt.close("all")
