"""The picture of what the package does: cells in, tokens, the network, and what comes out.

The panels on the right are real: 700 blood cells that come inside scanpy and the small checkpoint that comes with the package, and
for the perturbation what the benchmark keeps. The matrices and the network on the left are schematic.
"""

from __future__ import annotations

import json
import warnings

import _data
import _runs
import anndata
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import scanpy as sc
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

import scgpt
from scgpt import hub
from scgpt.data import bin_values
from scgpt.pl._colors import BLUE, GREEN, ORANGE, PURPLE, SKY, VERMILLION

WIDTH, HEIGHT = 1200, 500  # pixels of a browser, 96 to the inch
INK, PALE = "0.25", "0.93"
TYPES = {
    "CD14+ Monocyte": "monocytes",
    "CD19+ B": "B cells",
    "CD34+": "progenitors",
    "CD56+ NK": "NK cells",
    "Dendritic": "dendritic",
}
COLORS = {
    "T cells": BLUE,
    "monocytes": ORANGE,
    "B cells": GREEN,
    "NK cells": VERMILLION,
    "dendritic": PURPLE,
    "progenitors": SKY,
}
SHOWN = ["CD79A", "CD74", "CD79B", "HLA-DRA", "LTB", "CD37", "MS4A1"]
NETWORK = "CD79A CD79B MS4A1 NKG7 GNLY PRF1 GZMB CST7 LYZ S100A8 S100A9 FCN1 CST3 HLA-DRA CD74".split()


class Sheet:
    """A figure in pixels from its upper left corner."""

    def __init__(self) -> None:
        self.figure = plt.figure(figsize=(WIDTH / 96, HEIGHT / 96))
        self.back = self.figure.add_axes((0, 0, 1, 1))
        self.back.set(xlim=(0, WIDTH), ylim=(HEIGHT, 0))
        self.back.set_axis_off()

    def panel(self, x: float, y: float, width: float, height: float) -> Axes:
        ax = self.figure.add_axes((x / WIDTH, 1 - (y + height) / HEIGHT, width / WIDTH, height / HEIGHT))
        ax.tick_params(labelsize=6.5, length=2)
        return ax

    def write(self, x: float, y: float, text: str, **style) -> None:
        self.back.text(x, y, text, **({"color": INK, "va": "center", "fontsize": 8} | style))

    def box(self, x: float, y: float, width: float, height: float, color: str, edge: str = "none") -> None:
        shape = FancyBboxPatch(
            (x, y), width, height, boxstyle="round,pad=0,rounding_size=5", facecolor=color, edgecolor=edge
        )
        self.back.add_patch(shape)

    def arrow(self, start: tuple[float, float], end: tuple[float, float]) -> None:
        style = {
            "arrowstyle": "-|>",
            "color": "0.4",
            "linewidth": 1.6,
            "mutation_scale": 13,
            "shrinkA": 0,
            "shrinkB": 0,
        }
        self.back.annotate("", end, start, arrowprops=style)

    def title(self, x: float, y: float, text: str, verb: str = "") -> None:
        self.write(x, y, text, fontsize=9.5, fontweight="bold", color="black")
        self.write(x, y + 15, verb, fontsize=7, family="monospace", color="0.4")


def draw() -> Figure:
    """Return the picture."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        cells = _data.load("pbmc68k_reduced")
        sheet = Sheet()
        _data_in(sheet, cells)
        _tokens(sheet, cells)
        _network(sheet)
        _embedding(sheet, cells)
        _labels(sheet, cells)
        _perturbation(sheet)
        _programs(sheet, cells)
        _generation(sheet, cells)
    return sheet.figure


def _data_in(sheet: Sheet, cells: anndata.AnnData) -> None:
    sheet.title(20, 22, "AnnData, MuData", "genes, proteins, peaks")
    rng = np.random.default_rng(0)
    sizes = {"genes": (58, "Blues"), "proteins": (32, "Purples"), "peaks": (48, "Greens")}
    x = 20.0
    for name, (width, cmap) in sizes.items():
        ax = sheet.panel(x, 78, width, 300)
        values = rng.gamma(0.5, size=(24, round(width / 8)))
        ax.imshow(values, cmap=cmap, aspect="auto", vmin=-0.4, vmax=2.2, interpolation="nearest")
        ax.set_axis_off()
        sheet.write(x + width / 2, 391, name, ha="center", fontsize=7.5)
        x += width + 6
    sheet.write(93, 66, "cells in rows", ha="center", fontsize=7.5)
    for y, text in enumerate(("counts or log values", "in memory, on disk,", "or a corpus of millions")):
        sheet.write(93, 417 + 15 * y, text, ha="center", fontsize=7.5)
    sheet.arrow((180, 228), (208, 228))


def _tokens(sheet: Sheet, cells: anndata.AnnData) -> None:
    """Draw the tokens of a B cell: the values are the bins that the model reads."""
    sheet.title(222, 22, "tokens", "gene and binned value")
    vocab = hub.read("mini").vocab
    cell = cells[cells.obs["bulk_labels"] == "CD19+ B", :]
    cell = cell[np.argmax((cell[:, SHOWN].X > 0).sum(1))]
    known = [name for name in cell.var_names if name in vocab]
    bins = dict(zip(known, bin_values(np.asarray(cell[:, known].X.todense()).ravel()), strict=True))
    colors = plt.get_cmap("Blues")
    rows = [("<cls>", None), *((name, int(bins[name])) for name in SHOWN), ("…", None)]
    for i, (name, value) in enumerate(rows):
        y = 62 + 37 * i
        sheet.box(222, y, 88, 29, PALE)
        sheet.write(230, y + 15, name, fontsize=7.5)
        sheet.box(314, y, 30, 29, PALE if value is None else colors(0.1 + 0.8 * value / 50))
        if value is not None:
            sheet.write(329, y + 15, str(value), ha="center", fontsize=7.5, color="white" if value > 30 else "black")
    sheet.write(283, 417, "no padding; a cell's tokens", ha="center", fontsize=7.5)
    sheet.write(283, 432, "depend on that cell alone", ha="center", fontsize=7.5)
    sheet.arrow((352, 228), (380, 228))


def _network(sheet: Sheet) -> None:
    sheet.title(394, 22, "scGPT", "official weights or yours")
    sheet.box(394, 62, 150, 328, "0.97", "0.8")
    sheet.box(406, 338, 126, 40, "#D6E6F2")
    sheet.write(469, 358, "embeddings of\ngenes and values", ha="center", fontsize=7.5)
    for i in range(5):
        sheet.box(406, 146 + 38 * i, 126, 30, BLUE)
        sheet.write(469, 161 + 38 * i, "transformer layer", ha="center", fontsize=7.5, color="white")
    sheet.box(406, 74, 126, 58, "#FBE7C0")
    sheet.write(469, 103, "embedding of the cell,\nvalues of genes,\nclasses", ha="center", fontsize=7.5)
    sheet.write(469, 417, "zero-shot, fine-tuned,", ha="center", fontsize=7.5)
    sheet.write(469, 432, "or pretrained by you", ha="center", fontsize=7.5)
    sheet.arrow((552, 228), (580, 228))


def _embedding(sheet: Sheet, cells: anndata.AnnData) -> None:
    sheet.title(600, 22, "embedding", "tl.embed, tl.integrate")
    scgpt.tl.embed(cells, "mini", progress_bar=False)
    sc.pp.neighbors(cells, use_rep="X_scGPT", random_state=0)
    sc.tl.umap(cells, random_state=0)
    kinds = cells.obs["bulk_labels"].astype(str).map(TYPES).fillna("T cells")
    ax = sheet.panel(600, 56, 180, 160)
    places = cells.obsm["X_umap"]
    ax.scatter(*places.T, s=5, c=kinds.map(COLORS), linewidths=0, rasterized=True)
    for name, color in COLORS.items():
        ax.plot([], [], "o", color=color, markersize=4, label=name)
    ax.set(xticks=[], yticks=[])
    ax.set_xlabel("UMAP of X_scGPT, 700 blood cells", fontsize=6.5)
    ax.legend(fontsize=6, frameon=False, handletextpad=0.1, labelspacing=0.2, borderpad=0, loc="best")
    cells.obs["kind"] = pd.Categorical(kinds, list(COLORS))


def _labels(sheet: Sheet, cells: anndata.AnnData) -> None:
    sheet.title(836, 22, "cell types", "tl.annotate, tl.map_reference")
    query = np.arange(cells.n_obs) % 2 == 0
    own, reference = cells[query].copy(), cells[~query].copy()
    scgpt.tl.map_reference(own, reference, labels_key="kind", model="mini", progress_bar=False)
    own.obs["scgpt_label"] = pd.Categorical(own.obs["scgpt_mapped_label"].astype(str), list(COLORS))
    ax = sheet.panel(888, 56, 100, 110)
    scgpt.pl.confusion(own, "kind", ax=ax, show=False)
    ax.set_xlabel("350 cells after 350 others", fontsize=6.5)
    ax.set_ylabel("")


def _perturbation(sheet: Sheet) -> None:
    """Draw how well the response of cell types that were held out is predicted, as benchmarks/perturbation.py found."""
    sheet.title(1026, 22, "perturbation", "tl.perturb, tl.reverse_perturb")
    ax = sheet.panel(1052, 56, 138, 120)
    for method, label, color in (("scGPT__from_scratch", "scGPT", BLUE), ("mean_change", "mean change", ORANGE)):
        paths = sorted((_runs.RESULTS / "perturbation").glob(f"ifnb.*.{method}.*.json"))
        scores = [json.loads(path.read_text())["scores"]["pearson_delta"] for path in paths]
        ax.plot(range(1, len(scores) + 1), scores, "o", color=color, markersize=4, label=label)
    ax.set(ylim=(0, 1.03), xticks=range(1, len(scores) + 1))
    ax.set_xlabel("interferon beta, held-out cell types", fontsize=6.5)
    ax.set_ylabel("Pearson delta", fontsize=6.5)
    ax.legend(fontsize=6, frameon=False, handletextpad=0.1, loc="lower left", borderpad=0)


def _programs(sheet: Sheet, cells: anndata.AnnData) -> None:
    sheet.title(600, 268, "gene programs", "tl.gene_programs, tl.gene_similarity")
    scgpt.tl.gene_similarity(cells, "mini", genes=NETWORK, n_neighbors=4, progress_bar=False)
    ax = sheet.panel(600, 302, 250, 180)
    scgpt.pl.gene_network(cells, genes=NETWORK, ax=ax, show=False)
    if ax.get_legend():
        ax.get_legend().remove()
    for text in ax.texts:
        text.set_path_effects([])  # which would make paths of text


def _generation(sheet: Sheet, cells: anndata.AnnData) -> None:
    sheet.title(920, 268, "generation", "tl.generate")
    made = scgpt.tl.generate(cells, model="mini", groupby="kind", n_cells=20, progress_bar=False)
    common = [name for name in cells.var_names if name in made.var_names]
    ax = sheet.panel(956, 306, 180, 148)
    shades = {name: COLORS[name] for name in ("B cells", "monocytes")}
    means = [
        [np.asarray(data[data.obs["kind"] == name, common].X.mean(0)).ravel() for data in (cells, made)]
        for name in shades
    ]
    points = np.concatenate(means, axis=1)
    ax.scatter(*points, s=3, c=np.repeat(list(shades.values()), len(common)), linewidths=0, rasterized=True)
    for name, color in shades.items():
        ax.plot([], [], "o", color=color, markersize=4, label=name)
    ax.set_xlabel("mean of real cells, a gene each", fontsize=6.5)
    ax.set_ylabel("of generated ones", fontsize=6.5)
    ax.legend(fontsize=6, frameon=False, handletextpad=0.1, loc="upper left", borderpad=0)
