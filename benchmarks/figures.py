"""The figures of the documentation, drawn from the results that the other benchmarks keep.

Small points are single runs (seeds; in annotation and perturbation also folds, donors, cell types or splits), large ones their
mean, and lines the 95 % bootstrap intervals over cells where the runs have some. Nothing is measured here, but for the small
panels of the overview, which the package computes on the cells that come inside scanpy.

    python benchmarks/figures.py            # all, into docs/figures
    python benchmarks/figures.py --figure speed --figure scale
    python benchmarks/figures.py --quick    # into a folder that is thrown away, without the overview: does it run?
"""

from __future__ import annotations

import argparse
import json
import re
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import _overview
import _runs
import matplotlib as mpl
import numpy as np
from anndata import AnnData
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

import scgpt
from scgpt.pl._colors import BLUE, GREEN, ORANGE

mpl.use("agg")
import matplotlib.pyplot as plt
import pandas as pd

DOCS = Path(__file__).parents[1] / "docs" / "figures"
GREY = "0.45"
STYLE = {
    "font.family": "sans-serif",
    # The second has the widths of the first, for browsers without it.
    "font.sans-serif": ["DejaVu Sans", "Verdana", "sans-serif"],
    "font.size": 9,
    "axes.titlesize": 9.5,
    "axes.titleweight": "bold",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "svg.fonttype": "none",  # text is text
    "svg.hashsalt": "scgpt-tools",
    "figure.dpi": 100,
    "savefig.dpi": 100,  # of what is drawn as pixels
}


@dataclass(frozen=True)
class Row:
    """What a method scored."""

    runs: Sequence[float]
    interval: tuple[float, float] | None = None

    @property
    def mean(self) -> float:
        return float(np.mean(self.runs)) if len(self.runs) else np.nan

    @classmethod
    def of(cls, scores: Sequence[Mapping[str, float]], metric: str) -> Row:
        """Read the scores of runs; the interval is the mean of theirs."""
        low, high = ([run[f"{metric}_{end}"] for run in scores if f"{metric}_{end}" in run] for end in ("low", "high"))
        interval = (float(np.mean(low)), float(np.mean(high))) if low else None
        return cls([run[metric] for run in scores], interval)


def kept(benchmark: str) -> pd.DataFrame:
    """Read the runs of a benchmark."""
    return pd.DataFrame(json.loads(path.read_text()) for path in sorted((_runs.RESULTS / benchmark).glob("*.json")))


def of(file: str) -> list[Mapping]:
    """Read the results of a benchmark that keeps one file."""
    return json.loads((_runs.RESULTS / f"{file}.json").read_text())["results"]


def color_of(method: str) -> str:
    """Return ours, the baselines', or that of what is no method: chance, and what the noise of the data allows."""
    if method in ("majority class", "no change", "chance", "one half predicts the other"):
        return GREY
    return BLUE if method.startswith(("scGPT", "ReferenceIndex")) else ORANGE


def draw_rows(
    ax: Axes, rows: Mapping[str, Row], methods: Sequence[str], *, shift: float = 0, filled: bool = True
) -> None:
    """Draw what methods scored, the first on top; those without a score have an empty row."""
    for y, method in enumerate(methods):
        if (row := rows.get(method)) is None or not np.isfinite(row.mean):
            continue
        color, at = color_of(method), y + shift
        if row.interval:
            ax.plot(row.interval, [at, at], color=color, linewidth=1.6, solid_capstyle="butt", zorder=2)
        if len(row.runs) > 1:
            ax.plot(row.runs, [at] * len(row.runs), "o", color=color, markersize=3, alpha=0.35, markeredgewidth=0)
        face = color if filled else "white"
        ax.plot(row.mean, at, "o", color=color, markerfacecolor=face, markersize=6, markeredgewidth=1.3, zorder=3)
    ax.set_yticks(range(len(methods)), methods)
    ax.set_ylim(len(methods) - 0.5, -0.5)
    ax.tick_params(axis="y", length=0)
    ax.grid(axis="x", color="0.9", linewidth=0.7)
    ax.set_axisbelow(True)
    ax.spines["left"].set_visible(False)
    if ax.get_xscale() == "linear":
        ax.locator_params(axis="x", nbins=5)


def panels(
    n_rows: int, n_columns: int, height: float, width: float = 8.6, share_names: bool = True, heights=None
) -> tuple[Figure, np.ndarray]:
    figure, axes = plt.subplots(
        n_rows,
        n_columns,
        figsize=(width, height),
        layout="constrained",
        squeeze=False,
        sharey="row" if share_names else False,
        height_ratios=heights,
    )
    return figure, axes


def by_task(
    runs: pd.DataFrame,
    titles: Mapping[str, str],
    methods: Sequence[str],
    metrics: Mapping[str, tuple[float, float]],
    height: float,
) -> Figure:
    """Draw a column for each task, and a row for each metric between its limits."""
    figure, axes = panels(len(metrics), len(titles), height)
    for row, (metric, limits) in zip(axes, metrics.items(), strict=True):
        for ax, task in zip(row, titles, strict=True):
            own = runs[runs["task"] == task]
            rows = {name: Row.of(list(group["scores"]), metric) for name, group in own.groupby("method")}
            draw_rows(ax, rows, methods)
            ax.set_xlim(limits)
            ax.set_xlabel(metric.replace("_", " "))
    for ax, title in zip(axes[0], titles.values(), strict=True):
        ax.set_title(title, loc="left")
    return figure


def explain(figure: Figure, *more: Line2D, grey: str = "", interval: bool = True) -> None:
    """Say below what colours and marks are."""
    point = {"marker": "o", "linestyle": "none", "markersize": 6}
    handles = [
        Line2D([], [], color=BLUE, label="scGPT", **point),
        Line2D([], [], color=ORANGE, label="others", **point),
    ]
    if grey:
        handles.append(Line2D([], [], color=GREY, label=grey, **point))
    handles.append(Line2D([], [], color="0.4", label="single runs", **(point | {"markersize": 3})))
    if interval:
        handles.append(Line2D([], [], color="0.4", linewidth=1.6, label="95 % interval"))
    figure.legend(
        handles=[*handles, *more],
        loc="outside lower center",
        ncols=7,
        columnspacing=1.4,
        frameon=False,
        handletextpad=0.5,
    )


def integration() -> Figure:
    runs = kept("integration")
    order = ["from scratch", "zeros as tokens", "zero-shot", "fine-tuned"]
    figure, axes = panels(2, 2, 5.2, heights=[7, 8])
    for row, data in zip(axes, ("kang_8donors", "sc_mixology"), strict=True):
        own = runs[runs["data"] == data]
        ours = [f"scGPT, {name}" for name in order if f"scGPT, {name}" in set(own["method"])]
        methods = [*ours, "scVI", "scANVI", "Harmony", "HVG + PCA"]
        for ax, metric in zip(row, ("AvgBIO", "AvgBATCH"), strict=True):
            for cells, shift, filled in (("test cells", -0.17, True), ("all cells", 0.17, False)):
                rows = {
                    name: Row.of([scores[cells] for scores in group["scores"]], metric)
                    for name, group in own.groupby("method")
                }
                draw_rows(ax, rows, methods, shift=shift, filled=filled)
            ax.set_title(f"{data}: {metric}", loc="left")
    point = {"marker": "o", "linestyle": "none", "markersize": 6, "color": "0.4"}
    marks = [
        Line2D([], [], label="test cells", **point),
        Line2D([], [], label="all cells", markerfacecolor="white", **point),
    ]
    explain(figure, *marks)
    return figure


def annotation() -> Figure:
    runs = kept("annotation")
    titles = {
        "folds": "pbmc_facs, five folds",
        "donors": "kang_8donors, each donor",
        "studies": "from one study to the other",
    }
    methods = [
        "scGPT, from scratch",
        "logistic regression, L2",
        "logistic regression, L1",
        "kNN on PCA",
        "CellTypist",
        "majority class",
    ]
    figure = by_task(runs, titles, methods, {"accuracy": (0, 1), "macro_F1": (0, 1)}, 4.6)
    explain(figure, grey="majority class")
    return figure


def multiomics() -> Figure:
    runs = kept("multiomics")
    titles = {"cite": "CITE-seq", "multiome": "multiome", "mosaic": "mosaic of both", "asap": "proteins alone"}
    methods = [
        "scGPT, from scratch",
        "scGPT, from mini",
        "totalVI",
        "MultiVI",
        "MOFA+",
        "scMoMaT",
        "WNN",
        "PCA and LSI side by side",
        "PCA of RNA",
    ]
    figure = by_task(runs, titles, methods, {"AvgBIO": (0.25, 0.7), "AvgBATCH": (0.55, 1)}, 5)
    explain(figure)
    return figure


def perturbation() -> Figure:
    runs = kept("perturbation")
    titles = {
        "ifnb": "interferon beta,\nheld-out cell types",
        "schraivogel": "schraivogel_tapseq,\nheld-out genes",
        "papalexi": "papalexi_thp1,\nheld-out genes",
        "synthetic": "synthetic pairs,\nheld out",
    }
    methods = [
        "scGPT, from scratch",
        "mean change",
        "additive",
        "matching mean",
        "bilinear ridge",
        "mean of perturbations",
        "no change",
        "one half predicts the other",
    ]
    figure, axes = panels(2, 4, 5.2)
    measures = {"pearson_delta": "Pearson delta", "discrimination_cosine": "discrimination"}
    for row, (metric, label) in zip(axes, measures.items(), strict=True):
        for ax, (task, title) in zip(row, titles.items(), strict=True):
            own = runs[runs["task"] == task]
            rows = {
                name: Row([score[metric] for score in group["scores"] if np.isfinite(score.get(metric, np.nan))])
                for name, group in own.groupby("method")
            }
            draw_rows(ax, rows, methods)
            ax.set_xlabel(label)
            ax.set_xlim((-0.25, 1.02) if metric == "pearson_delta" else (0.4, 1.02))
            if metric == "pearson_delta":
                ax.set_title(title, loc="left")
            elif task == "ifnb":  # there is one perturbation, which is told from no other
                ax.text(0.5, 0.5, "one perturbation", transform=ax.transAxes, ha="center", color="0.4")
    explain(figure, grey="no prediction", interval=False)
    return figure


def networks() -> Figure:
    runs = kept("networks")
    figure, axes = panels(1, 3, 3.1, width=10, share_names=False)
    own = runs[(runs["task"] == "pbmc_facs") & (runs["method"] == "scGPT, mini as it is")]
    counts = pd.concat(
        [pd.DataFrame({k: v for k, v in s["pathways"].items() if k != "found_by"}) for s in own["scores"]]
    )
    stored = AnnData(
        np.ones((1, 1)), uns={"scgpt_pathways": {"counts": counts.groupby("resolution").mean().reset_index()}}
    )
    scgpt.pl.pathway_counts(stored, ax=axes[0, 0], show=False)
    axes[0, 0].set_title("Reactome pathways, pbmc_facs", loc="left", pad=20)
    methods = [
        "scGPT, mini as it is",
        "scGPT, mini fine-tuned",
        "scGPT, from scratch",
        "co-expression",
        "GRNBoost2",
        "chance",
    ]
    for ax, data in zip(axes[0, 1:], ("pbmc_facs", "kang_ifnb"), strict=True):
        of_data = runs[runs["task"] == data].groupby("method")["scores"]
        for source, shift, filled in (("similarity", -0.17, True), ("attention", 0.17, False)):
            key = f"TRRUST, {source}"
            rows = {
                name: Row.of([scores[key] for scores in group], "AUPRC_ratio")
                for name, group in of_data
                if key in group.iloc[0]
            }
            draw_rows(ax, rows, methods, shift=shift, filled=filled)
        ax.axvline(1, color="0.3", linewidth=0.8, zorder=1)
        ax.set_xlabel("AUPRC over that of chance")
        ax.set_title(f"TRRUST, {data}", loc="left")
    axes[0, 2].set_yticks(range(len(methods)), [])
    point = {"marker": "o", "linestyle": "none", "markersize": 6, "color": "0.4"}
    marks = [
        Line2D([], [], label="similarity, or their own", **point),
        Line2D([], [], label="attention", markerfacecolor="white", **point),
    ]
    explain(figure, *marks, grey="chance")
    return figure


def bars(ax: Axes, values: Mapping[str, float], colors: Sequence[str]) -> None:
    """Draw bars with their length beside them, as often as the first."""
    first = next(iter(values.values()))
    ax.barh(range(len(values)), list(values.values()), color=colors, height=0.68)
    for y, value in enumerate(values.values()):
        times = "" if y == 0 else f"  ({value / first:.1f}×)"
        ax.text(value, y, f" {value:.2f}{times}", va="center", fontsize=8)
    ax.set_yticks(range(len(values)), list(values))
    ax.set_ylim(len(values) - 0.5, -0.5)
    ax.set_xlim(0, 1.45 * max(values.values()))
    ax.tick_params(axis="y", length=0)


def speed() -> Figure:
    names = {"pbmc": "179 to 719 genes a cell", "mixed": "309 to 1,195 genes", "full": "1,200 genes"}
    figure, axes = panels(1, 5, 2.5, width=11.5)
    colors = [ORANGE, ORANGE, BLUE, BLUE]
    for ax, own in zip(axes[0], of("embed"), strict=False):
        rate = {row["path"]: row["cells/s"] for row in own["rows"]}
        values = {
            "usual": rate["usual, batches of 64"],
            "usual, its best": max(value for path, value in rate.items() if path.startswith("usual")),
            "scgpt-tools, float32": rate["ours, float32"],
            "scgpt-tools, bfloat16": rate["ours, bfloat16"],
        }
        bars(ax, values, colors)
        ax.set_title(f"embedding,\n{names[own['cells']]}", loc="left")
        ax.set_xlabel("cells a second")
    steps = pd.DataFrame(of("train"))
    for ax, step in zip(axes[0, 3:], ("fine-tuning", "pretraining"), strict=True):
        rate = steps[steps["step"] == step].set_index("path")["cells/s"]
        values = {
            "usual": rate["usual"],
            "usual, its best": rate["usual, no dropout of attention"],
            "scgpt-tools, float32": rate["ours"],
            "scgpt-tools, bfloat16": rate["ours, bf16"],
        }
        bars(ax, values, colors)
        ax.set_title(f"a step of\n{step}", loc="left")
        ax.set_xlabel("cells a second")
    return figure


def lines(ax: Axes, table: pd.DataFrame, column: str, label: str) -> None:
    """Draw what ways of embedding take, over cells."""
    ways = {
        "memory": ("in memory", BLUE, "o"),
        "backed": ("from disk", ORANGE, "s"),
        "store": ("into a store", GREEN, "^"),
    }
    for way, (name, color, marker) in ways.items():
        own = table[table["way"] == way]
        ax.plot(own["cells"], own[column], color=color, marker=marker, markersize=5, label=name)
    ax.set(xscale="log", yscale="log", xlabel="cells", ylabel=label)
    ax.grid(color="0.9", linewidth=0.7)


def scale() -> Figure:
    table = pd.DataFrame(of("scale"))
    figure, axes = panels(1, 2, 2.8, width=7, share_names=False)
    lines(axes[0, 0], table, "seconds", "seconds")
    lines(axes[0, 1], table, "MB", "peak memory, MB")
    axes[0, 1].set_ylim(10, 1000)
    axes[0, 0].legend(frameon=False)
    return figure


def scaling() -> Figure:
    """Scores over the number of cells pretrained on, of models as they are and fine-tuned."""
    runs = kept("scaling")
    scores = pd.DataFrame(list(runs["scores"])).groupby(runs["name"])
    mean, spread = scores.mean(), scores.std(ddof=0)
    numbers = {name: re.fullmatch(r"([\d,]+) cells", name) for name in mean.index}
    sizes = {name: int(found[1].replace(",", "")) for name, found in numbers.items() if found}
    sizes = dict(sorted(sizes.items(), key=lambda item: item[1]))
    figure, axes = panels(1, 3, 2.8, width=9.5, share_names=False)
    measures = {
        "annotation, macro F1": ("macro_F1", "kNN macro_F1"),
        "integration, AvgBIO": ("AvgBIO", "zero-shot AvgBIO"),
        "integration, AvgBATCH": ("AvgBATCH", "zero-shot AvgBATCH"),
    }
    for ax, (title, (tuned, as_it_is)) in zip(axes[0], measures.items(), strict=True):
        for column, label, color in ((tuned, "fine-tuned", BLUE), (as_it_is, "as it is", GREEN)):
            values = mean.loc[list(sizes), column], spread.loc[list(sizes), column]
            ax.errorbar(list(sizes.values()), *values, marker="o", markersize=5, color=color, label=label)
        ax.axhline(mean.loc["not pretrained", tuned], color=GREY, linestyle="--", label="not pretrained")
        ax.set(xscale="log", xlabel="cells pretrained on")
        ax.set_title(title, loc="left")
        ax.grid(axis="y", color="0.9", linewidth=0.7)
    axes[0, 0].legend(frameon=False)
    return figure


def index() -> Figure:
    found = sorted((_runs.RESULTS / "index").glob("*.json"))
    table = pd.DataFrame([row for path in found for row in json.loads(path.read_text())["results"]])
    titles = {
        ("cells", 1_000_000): "1,000,000 cells",
        ("mixture", 1_000_000): "1,000,000 of a mixture",
        ("mixture", 100_000): "100,000 of a mixture",
    }
    parts = {title: table[(table["data"] == data) & (table["n"] == n)] for (data, n), title in titles.items()}
    figure, axes = panels(3, 3, 6.2, heights=[len(part) for part in parts.values()])
    measures = {
        "recall@10": ("recall of 10 neighbours", "linear", (0, 1.04)),
        "queries per s": ("queries a second", "log", (5, 50_000)),
        "MB": ("size in MB", "log", (10, 5000)),
    }
    for row, (title, part) in zip(axes, parts.items(), strict=True):
        methods = [name for name in part["method"] if "ReferenceIndex" in name]
        methods += [name for name in part["method"] if name not in methods]
        for ax, (column, (label, scale, limits)) in zip(row, measures.items(), strict=True):
            ax.set(xscale=scale, xlim=limits)
            draw_rows(ax, {own["method"]: Row([own[column]]) for _, own in part.iterrows()}, methods)
            if title == list(parts)[-1]:
                ax.set_xlabel(label)
        row[0].set_title(title, loc="left")
    return figure


FIGURES: dict[str, Callable[[], Figure]] = {
    "integration": integration,
    "annotation": annotation,
    "multiomics": multiomics,
    "perturbation": perturbation,
    "networks": networks,
    "speed": speed,
    "scale": scale,
    "scaling": scaling,
    "index": index,
    "overview": _overview.draw,
}


def write(name: str, folder: Path) -> Path:
    """Draw one; the file is the same whenever the results are."""
    with mpl.rc_context(STYLE):
        figure = FIGURES[name]()
        path = folder / f"{name}.svg"
        figure.savefig(path, metadata={"Date": None, "Creator": None})
        plt.close(figure)
    # Matplotlib writes a millionth of a point, and leaves spaces at the ends of lines.
    text = re.sub(r"(\.\d{2})\d{3,}", r"\1", path.read_text())
    path.write_text("\n".join(line.rstrip() for line in text.splitlines()) + "\n")
    return path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="keep nothing, and leave out the overview")
    parser.add_argument("--json", type=Path, help="write the sizes of the files, in kB, to this file")
    parser.add_argument("--figure", action="append", choices=FIGURES)
    args = parser.parse_args()
    names = args.figure or [name for name in FIGURES if not (args.quick and name == "overview")]
    with tempfile.TemporaryDirectory() as thrown_away:
        folder = Path(thrown_away) if args.quick else DOCS
        folder.mkdir(exist_ok=True)
        sizes = {name: round(write(name, folder).stat().st_size / 1000, 1) for name in names}
    print(pd.Series(sizes, name="kB").to_string())
    if args.json:
        args.json.write_text(json.dumps(sizes, indent=1) + "\n")


if __name__ == "__main__":
    main()
