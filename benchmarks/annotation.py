"""Annotation of cell types: scGPT beside simple baselines.

Tasks, each with cells that no fit has seen:

- ``folds``: pbmc_facs, whose ten types were sorted by flow cytometry, in five stratified folds. The first fold is the
  test cells of ``benchmarks/splits``, which no choice of a setting has seen; settings of scGPT were chosen on cells of the
  other four.
- ``donors``: kang_8donors, each donor named after the seven others.
- ``studies``: the cells of kang_8donors after those of pbmc_facs, which were sequenced deeper, with the types of both
  under common names (``COMMON``).
- ``rare``: the first fold, with 20 cells left of one type. Told is its recall.
- ``absent``: the first fold, with one type left out of training. Told is how well confidence tells its cells from those
  of known types.

Each run is a process of its own and is kept under ``benchmarks/results/annotation``; what is there is not run again.

    python benchmarks/annotation.py                   # all, hours on two cores
    python benchmarks/annotation.py --quick           # minutes: few cells and epochs; nothing is kept
    python benchmarks/annotation.py --task folds --method "scGPT, from scratch"
    python benchmarks/annotation.py --kept            # report what is kept, run nothing
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from importlib.util import find_spec

import _data
import _runs
import anndata
import numpy as np
import pandas as pd
from sklearn.model_selection import StratifiedKFold

SEEDS = 3
QUICK_CELLS = 400
LABEL, KNOWN = "label", "known"
N_FOLDS = 5
RARE, N_RARE = "CD4+/CD25 T Reg", 20
ABSENT = "CD56+ NK"

# The same type in both studies. Dendritic cells and megakaryocytes are not in pbmc_facs: no answer is right for them.
# Progenitors (CD34+) are not in kang_8donors: they stay in the reference, as they would in anyone's.
COMMON = {
    "pbmc_facs": {
        "CD19+ B": "B cell",
        "CD34+": "progenitor",
        "CD56+ NK": "NK cell",
        "CD8+ Cytotoxic T": "CD8 T cell",
        "CD8+/CD45RA+ Naive Cytotoxic": "CD8 T cell",
        "CD4+ T Helper2": "CD4 T cell",
        "CD4+/CD45RO+ Memory": "CD4 T cell",
        "CD4+/CD25 T Reg": "CD4 T cell",
        "CD4+/CD45RA+/CD25- Naive T": "CD4 T cell",
        "CD14+ Monocyte": "monocyte",
    },
    "kang_8donors": {
        "B cells": "B cell",
        "CD14+ Monocytes": "monocyte",
        "CD4 T cells": "CD4 T cell",
        "CD8 T cells": "CD8 T cell",
        "Dendritic cells": "dendritic cell",
        "FCGR3A+ Monocytes": "monocyte",
        "Megakaryocytes": "megakaryocyte",
        "NK cells": "NK cell",
    },
}


def load(name: str) -> anndata.AnnData:
    """Counts under gene symbols, with the types as ``.obs["label"]``."""
    cells = _data.load_genes(name)
    cells.obs[LABEL] = cells.obs["cell_type"].astype(str)
    return cells


def folds(part: int) -> tuple[anndata.AnnData, np.ndarray]:
    """pbmc_facs, and which of its cells are those of a fold."""
    cells = load("pbmc_facs")
    first = _data.is_test("pbmc_facs", cells)
    if part == 0:
        return cells, first
    others = np.flatnonzero(~first)
    splits = StratifiedKFold(N_FOLDS - 1, shuffle=True, random_state=0).split(others, cells.obs[LABEL].iloc[others])
    test = np.zeros(cells.n_obs, bool)
    test[others[list(splits)[part - 1][1]]] = True
    return cells, test


def donors(part: int) -> tuple[anndata.AnnData, np.ndarray]:
    """kang_8donors, and which of its cells are those of a donor."""
    cells = load("kang_8donors")
    donor = cells.obs["donor"].astype(str)
    return cells, (donor == sorted(donor.unique())[part]).to_numpy()


def studies(part: int) -> tuple[anndata.AnnData, np.ndarray]:
    """Both studies over the genes that both measured."""
    parts = {name: load(name) for name in COMMON}
    for name, cells in parts.items():
        cells.obs[LABEL] = cells.obs[LABEL].map(COMMON[name])
    cells = anndata.concat(parts, label="study", index_unique=":")
    return cells, (cells.obs["study"] == "kang_8donors").to_numpy()


def rare(part: int) -> tuple[anndata.AnnData, np.ndarray]:
    """The first fold with few training cells of one type."""
    cells, test = folds(0)
    of_type = np.flatnonzero((cells.obs[LABEL] == RARE).to_numpy() & ~test)
    dropped = np.random.default_rng(part).permutation(of_type)[N_RARE:]
    keep = np.setdiff1d(np.arange(cells.n_obs), dropped)
    return cells[keep].copy(), test[keep]


def absent(part: int) -> tuple[anndata.AnnData, np.ndarray]:
    """The first fold without training cells of one type."""
    cells, test = folds(0)
    keep = test | (cells.obs[LABEL] != ABSENT).to_numpy()
    return cells[keep].copy(), test[keep]


TASKS: dict[str, tuple[Callable, int]] = {
    "folds": (folds, N_FOLDS),
    "donors": (donors, 8),
    "studies": (studies, 1),
    "rare": (rare, 1),
    "absent": (absent, 1),
}


def scgpt_from_scratch(cells, train, seed, epochs, **changes):
    """``scgpt.tl.annotate`` with its defaults; the types of test cells are hidden from it."""
    import scgpt

    cells.obs[KNOWN] = cells.obs[LABEL].where(train)
    scgpt.tl.annotate(cells, KNOWN, max_epochs=epochs, seed=seed, progress_bar=False, key_added="predicted", **changes)
    cells.obs["predicted"] = cells.obs["predicted_label"]


def scgpt_balanced(cells, train, seed, epochs):
    """The same, with all types given the same say."""
    scgpt_from_scratch(cells, train, seed, epochs, class_weight="balanced")


def majority_class(cells, train, seed, epochs):
    from scgpt.metrics import baselines

    baselines.majority_class(cells, LABEL, train=train, key_added="predicted")


def logistic_l1(cells, train, seed, epochs):
    from scgpt.metrics import baselines

    baselines.logistic_regression(cells, LABEL, penalty="l1", train=train, seed=seed, key_added="predicted")


def logistic_l2(cells, train, seed, epochs):
    from scgpt.metrics import baselines

    baselines.logistic_regression(cells, LABEL, penalty="l2", train=train, seed=seed, key_added="predicted")


def knn_pca(cells, train, seed, epochs):
    from scgpt.metrics import baselines

    baselines.knn_pca(cells, LABEL, train=train, seed=seed, key_added="predicted")


def knn_distance(cells, train, seed, epochs):
    """kNN on PCA whose confidence falls with the distance to the nearest training cells; it is no probability."""
    from sklearn.neighbors import NearestNeighbors

    from scgpt.metrics import baselines

    baselines.knn_pca(cells, LABEL, train=train, seed=seed, key_added="predicted")
    baselines.pca(cells, n_top_genes=2000, train=train, seed=seed, key_added="X_pca")
    nearest = NearestNeighbors(n_neighbors=15).fit(cells.obsm["X_pca"][train])
    distance = nearest.kneighbors(cells.obsm["X_pca"])[0].mean(1)
    cells.obs["predicted_confidence"] = 1 / (1 + distance)


def celltypist(cells, train, seed, epochs):
    from scgpt.metrics import baselines

    baselines.celltypist(cells, LABEL, train=train, seed=seed, key_added="predicted")


METHODS: dict[str, Callable] = {
    "scGPT, from scratch": scgpt_from_scratch,
    "scGPT, balanced": scgpt_balanced,
    "majority class": majority_class,
    "logistic regression, L1": logistic_l1,
    "logistic regression, L2": logistic_l2,
    "kNN on PCA": knn_pca,
    "kNN distance on PCA": knn_distance,
} | ({"CellTypist": celltypist} if find_spec("celltypist") else {})


def run(task: str, part: int, method: str, seed: int, quick: bool) -> dict:
    """Fit one method on one part of a task and score the cells that it has not seen."""
    import scgpt

    make, _ = TASKS[task]
    cells, test = make(part)
    if quick:
        few = np.random.default_rng(0).permutation(cells.n_obs)[:QUICK_CELLS]
        cells, test = cells[few].copy(), test[few]
    known = sorted(set(cells.obs[LABEL][~test]))
    _, cost = _runs.measured(lambda: METHODS[method](cells, ~test, seed, 1 if quick else None))
    scores = scgpt.metrics.annotation_scores(
        cells[test].copy(),
        LABEL,
        "predicted",
        confidence_key="predicted_confidence",
        known_types=known,
        n_bootstrap=0 if quick else 200,
        seed=seed,
    )
    return {
        "task": task,
        "part": part,
        "method": method,
        "seed": seed,
        "n_train": int((~test).sum()),
        "n_test": int(test.sum()),
        "settings": settings(method),
        "scores": scores.overall.to_dict(),
        "per_type": scores.per_type.to_dict("index"),
    } | cost


def settings(method: str) -> str:
    """What a kept result depends on; one of other settings is made anew."""
    from scgpt.model import _annotator

    return str(_annotator.FROM_SCRATCH) if method.startswith("scGPT") else ""


def planned(args: argparse.Namespace) -> list[_runs.Planned]:
    runs = []
    for task in args.task or TASKS:
        for seed in range(1 if args.quick else SEEDS):
            for part in range(1 if args.quick else TASKS[task][1]):
                for method in args.method or METHODS:
                    if method == "kNN distance on PCA" and task not in ("studies", "absent"):
                        continue  # of interest where types are unknown
                    if method == "scGPT, balanced" and task != "rare":
                        continue  # what it is for
                    # The seeds of what has none would be the same run; donors take long and are eight.
                    if seed and (task == "donors" or not method.startswith("scGPT")):
                        continue
                    file = _runs.file_name(task, part, method, seed)
                    runs.append(_runs.Planned(task, method, (part, seed), file))
    return runs


def table(results: list[dict]) -> pd.DataFrame:
    """Means over parts and seeds, and the spread of the means over parts between seeds."""
    rows = []
    for (task, method), group in pd.DataFrame(results).groupby(["task", "method"], sort=False):
        scores = pd.DataFrame(list(group["scores"]))
        row = {"task": task, "method": method, "runs": len(group)}
        for name in ("accuracy", "macro_F1", "ECE", "unknown_AUROC"):
            if name not in scores or scores[name].isna().all():
                continue
            by_seed = scores[name].groupby(group["seed"].to_numpy()).mean()
            row[name] = f"{by_seed.mean():.3f}" + (f" ± {by_seed.std(ddof=0):.3f}" if len(by_seed) > 1 else "")
        if task == "rare":
            row[f"recall of {RARE}"] = f"{np.mean([types[RARE]['recall'] for types in group['per_type']]):.3f}"
        row["minutes"] = f"{group['seconds'].mean() / 60:.1f}"
        row["peak GiB"] = f"{group['peak_GiB'].mean():.1f}"
        rows.append(row)
    return pd.DataFrame(rows).fillna("")


def report(results: list[dict]) -> str:
    parts = [
        "# Annotation\n",
        "Made by `benchmarks/annotation.py`, whose head describes the tasks. Mean over parts (folds, donors) and seeds "
        f"± standard deviation between seeds. Threads: {', '.join(sorted({r['threads'] for r in results}))} of "
        f"{results[0]['machine']['cpu']}; intervals, types and versions stand beside each run.\n",
    ]
    for task in dict.fromkeys(r["task"] for r in results):
        of_task = table([r for r in results if r["task"] == task]).drop(columns="task")
        parts += [f"## {task}\n", of_task.to_markdown(index=False), ""]
    return "\n".join(parts)


def main() -> None:
    args = _runs.command_line(__doc__, TASKS, METHODS)
    if args.one:
        print(json.dumps(run(args.task[0], args.one[0], args.method[0], args.one[1], args.quick)))
        return
    results = _runs.collect(__file__, planned(args), args, settings)
    _runs.publish(__file__, report(results), results, args)


if __name__ == "__main__":
    main()
