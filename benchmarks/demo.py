"""A first look: embed real cells with a small scGPT, as it comes, fine-tuned, and trained from scratch.

The cells are the 700 PBMC that come inside scanpy (``scanpy.datasets.pbmc68k_reduced``, 765 genes, log-normalised).
A fifth of the cells, stratified by type, stays away from training; PCA is fitted on the same training cells and genes.
``scgpt-mini``, which is part of the package, was pretrained on other cells.
A k-nearest-neighbour vote of the training cells names the types of the held-out ones. Seeds are of the training; the
interval of the accuracy is from a bootstrap of the held-out cells.

    make demo                    # or: python benchmarks/demo.py --quick --json results.json
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import platform
import time
import warnings
from importlib.metadata import version
from pathlib import Path

import matplotlib

matplotlib.use("agg")

import _data
import anndata
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import scanpy as sc
import sklearn.decomposition
import sklearn.metrics
import sklearn.model_selection
import sklearn.neighbors

import scgpt
from scgpt.model import SCGPT

LABEL, KEY = "bulk_labels", "X_embedding"
N_NEIGHBORS = 15
N_COMPONENTS = 50
# Chosen on an inner split of the training cells. Pre-norm learns faster than the authors' post-norm on so few
# cells; zeros are left out of the input, so "zero" asks the cell embedding which of all genes are expressed.
SETTINGS = {"d_model": 64, "n_layers": 3, "n_heads": 4, "norm": "pre", "zero": True, "dropout": 0.0}
TRAINING = {
    "lr": 3e-3,
    "batch_size": 8,
    "mask_share": 0.4,
    "objectives": {"gep": 1, "gepc": 1, "zero": 1000},
    "plan_kwargs": {"warmup_steps": 100},  # else some seeds begin with a loss that is lost for epochs
}


def split(cells: anndata.AnnData) -> tuple[np.ndarray, np.ndarray]:
    """Return the rows of training and of held-out cells; benchmarks/splits names the latter."""
    rows = np.arange(cells.n_obs)
    return sklearn.model_selection.train_test_split(rows, test_size=0.2, stratify=cells.obs[LABEL], random_state=0)


def from_scratch(train: anndata.AnnData, test: anndata.AnnData, epochs: int, seed: int) -> SCGPT:
    """Train on one data set and embed both."""
    SCGPT.setup_anndata(train)
    model = SCGPT(train, seed=seed, **SETTINGS)
    model.train(epochs, train_size=1.0, seed=seed, **TRAINING)
    return embed(train, test, model)


def fine_tuned(train: anndata.AnnData, test: anndata.AnnData, epochs: int, seed: int) -> SCGPT:
    """Train the small pretrained model on one data set and embed both."""
    SCGPT.setup_anndata(train)
    model = SCGPT.from_pretrained("mini", train, dropout=0.0)
    model.train(max(epochs // 3, 1), train_size=1.0, seed=seed, **TRAINING)
    return embed(train, test, model)


def zero_shot(train: anndata.AnnData, test: anndata.AnnData, epochs: int, seed: int) -> SCGPT:
    """Embed both with the small pretrained model as it is."""
    return embed(train, test, SCGPT.from_pretrained("mini"))


def embed(train: anndata.AnnData, test: anndata.AnnData, model: SCGPT) -> SCGPT:
    for cells in (train, test):
        scgpt.tl.embed(cells, model, key_added=KEY, progress_bar=False)
    return model


def pca(train: anndata.AnnData, test: anndata.AnnData, epochs: int, seed: int) -> None:
    """Fit PCA on one data set and apply it to both."""
    fitted = sklearn.decomposition.PCA(N_COMPONENTS, random_state=seed).fit(train.X.toarray())
    for cells in (train, test):
        cells.obsm[KEY] = fitted.transform(cells.X.toarray())


METHODS = {
    "PCA": pca,
    "scGPT from scratch": from_scratch,
    "scgpt-mini, zero-shot": zero_shot,
    "scgpt-mini, fine-tuned": fine_tuned,
}


def predict(train: anndata.AnnData, test: anndata.AnnData) -> np.ndarray:
    """Name the types of held-out cells by a vote of their nearest training cells."""
    vote = sklearn.neighbors.KNeighborsClassifier(N_NEIGHBORS).fit(train.obsm[KEY], train.obs[LABEL])
    return vote.predict(test.obsm[KEY])


def interval(correct: np.ndarray) -> str:
    """Return the 95 % bootstrap interval of the accuracy, given which (seed, cell) were right."""
    n_cells = correct.shape[1]
    draws = np.random.default_rng(0).integers(0, n_cells, (2000, n_cells))
    low, high = np.quantile(correct.mean(0)[draws].mean(1), [0.025, 0.975])
    return f"{low:.3f} - {high:.3f}"


def score(test: anndata.AnnData, predicted: np.ndarray) -> dict[str, float]:
    """Score an embedding on the cells that training never saw."""
    asw = sklearn.metrics.silhouette_score(test.obsm[KEY], test.obs[LABEL])
    return {
        "kNN accuracy": sklearn.metrics.accuracy_score(test.obs[LABEL], predicted),
        "kNN macro F1": sklearn.metrics.f1_score(test.obs[LABEL], predicted, average="macro"),
        "ASW (cell type)": (asw + 1) / 2,
    }


def draw(test: anndata.AnnData, title: str, path: Path) -> None:
    """Write a UMAP of the held-out cells."""
    sc.pp.neighbors(test, n_neighbors=N_NEIGHBORS, use_rep=KEY)
    sc.tl.umap(test)
    ax = sc.pl.umap(test, color=LABEL, title=title, size=60, show=False)
    ax.figure.savefig(path, bbox_inches="tight", dpi=120)
    plt.close(ax.figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="one seed and few epochs: does it run?")
    parser.add_argument("--json", type=Path, help="file for the scores")
    parser.add_argument("--out", type=Path, default=Path("demo"), help="folder for pictures and models")
    args = parser.parse_args()
    # What dependencies say about themselves would bury the table.
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", module="lightning|anndata")
    seeds, epochs = (range(1), 1) if args.quick else (range(3), 15)
    args.out.mkdir(parents=True, exist_ok=True)

    cells = _data.load("pbmc68k_reduced")
    print(f"{cells.n_obs} cells x {cells.n_vars} genes, {cells.obs[LABEL].nunique()} cell types; {epochs} epochs")
    train_index, test_index = split(cells)
    started, rows, correct = time.time(), [], {}
    for seed in seeds:
        for method, embed_both in METHODS.items():
            train, test = cells[train_index].copy(), cells[test_index].copy()
            model = embed_both(train, test, epochs, seed)
            predicted = predict(train, test)
            correct.setdefault(method, []).append(predicted == test.obs[LABEL])
            rows.append({"method": method, "seed": seed} | score(test, predicted))
            if seed == seeds[0]:
                name = "-".join(method.replace(",", "").split())
                draw(test, f"{method}, {test.n_obs} held-out cells", args.out / f"umap-{name}.png")
                if model is not None:
                    model.save(args.out / f"model-{name}", overwrite=True)

    scores = pd.DataFrame(rows).set_index(["method", "seed"])
    table = scores.groupby("method", sort=False).agg(["mean", "std"]).round(3)
    intervals = {method: interval(np.array(right)) for method, right in correct.items()}
    table["kNN accuracy", "95 % interval"] = pd.Series(intervals)
    table = table[[*dict.fromkeys(table.columns.get_level_values(0))]]
    print(f"\nHeld-out cells, {len(seeds)} seed(s), {time.time() - started:.0f} s\n\n{table.to_string()}\n")
    print(f"Pictures and models are in {args.out}/")
    if args.json:
        result = {
            "machine": f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}",
            "settings": SETTINGS | TRAINING | {"epochs": epochs},
            "versions": {name: version(name) for name in ("scgpt-tools", "scanpy", "scvi-tools", "torch")},
            "seconds": round(time.time() - started, 1),
            "scores": rows,
            "accuracy, 95 % interval": intervals,
        }
        args.json.write_text(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
