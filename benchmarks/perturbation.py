"""Expression under perturbations that training never saw: scGPT beside simple baselines.

Tasks:

- ``ifnb``: kang_ifnb, cells stimulated with interferon beta. Each of seven cell types in turn is left out: its stimulated cells
  are predicted from its control cells, by what the others became.
- ``papalexi``: papalexi_thp1, knock-outs in THP-1 cells. The perturbed genes that were measured are held out in five parts, each once; perturbed genes that were not measured are trained on as treatments, which tell nothing of others.
- ``schraivogel``: schraivogel_tapseq, repressed genes in K562 cells, likewise. Cells with several guides are left out of both.
- ``synthetic``: twenty genes whose combined effects are known (``_synthetic_perturbations.py``). All single genes and 19 of 190
  pairs are trained on, as in the paper 39 of 210; the other pairs are predicted, and each is searched for among all 210.

The scores are those of ``scgpt.metrics.perturbation_scores`` over held-out perturbations. What is not defined, such as a
correlation with the change that "no change" predicts, is left out. "one half predicts the other" is what cells of the same
perturbation tell of each other: no method can be expected to be better. Settings of scGPT were chosen on synthetic sets of other
seeds, and on no real set.

Each run is a process of its own and is kept under ``benchmarks/results/perturbation``; what is there is not run again.

    python benchmarks/perturbation.py                   # all, hours on two cores
    python benchmarks/perturbation.py --quick           # minutes: few cells and epochs; nothing is kept
    python benchmarks/perturbation.py --task ifnb --method "scGPT, from scratch"
    python benchmarks/perturbation.py --kept            # report what is kept, run nothing
"""

from __future__ import annotations

import argparse
import json
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import _data
import _runs
import _synthetic_perturbations as synthetic_cells
import anndata
import numpy as np
import pandas as pd
import scanpy as sc

from scgpt.metrics import PerturbationSplit, baselines, perturbation_scores, perturbed_by, replicate_ceiling

KEY, CONTROL = "perturbation", "control"
N_GENES, MIN_CELLS, MAX_CONTROL, N_SPLITS = 1000, 20, 2000, 5
QUICK_CELLS = 600


@dataclass
class Task:
    """What a method is given, and what it is scored by.

    Parameters
    ----------
    train
        Cells to learn from, with control cells.
    start
        Control cells to predict from.
    observed
        Cells under the perturbations to predict, and control cells; others are for comparison.
    names
        The perturbations.
    setup
        What scGPT is told of them.
    searched
        Among which candidates each is searched for; empty for no search.
    """

    train: anndata.AnnData
    start: anndata.AnnData
    observed: anndata.AnnData
    names: list[str]
    setup: dict[str, Any] = field(default_factory=dict)
    searched: list[str] = field(default_factory=list)


def log_normalised(cells: anndata.AnnData) -> anndata.AnnData:
    cells = cells.copy()
    sc.pp.normalize_total(cells, target_sum=1e4)
    sc.pp.log1p(cells)
    return cells


def ifnb(part: int) -> Task:
    """kang_ifnb, one cell type held out."""
    cells = log_normalised(_data.load("kang_ifnb"))
    cells.obs[KEY] = cells.obs["condition"].astype(str)
    types = sorted(cells.obs["cell_type"].astype(str).unique())
    of_type = (cells.obs["cell_type"] == types[part]).to_numpy()
    is_control = (cells.obs[KEY] == CONTROL).to_numpy()
    train = cells[~of_type | is_control].copy()
    sc.pp.highly_variable_genes(train, n_top_genes=N_GENES)
    genes = train.var_names[train.var["highly_variable"]]
    own = cells[of_type, genes].copy()
    return Task(
        train[:, genes].copy(),
        own[(own.obs[KEY] == CONTROL).to_numpy()].copy(),
        own,
        ["stimulated"],
        {"treatments": "all", "paired_within": "cell_type", "network_kwargs": {"max_length": 513}},
    )


def crispr(name: str, part: int) -> Task:
    """A CRISPR set, some measured genes held out."""
    cells = log_normalised(_data.load(name))
    given = cells.obs["perturbation_multi"].astype(str)
    cells.obs[KEY] = given.replace("non-targeting", CONTROL)
    counts = cells.obs[KEY].value_counts()
    names = [n for n in counts.index if "+" not in n and n != "unassigned" and counts[n] >= MIN_CELLS]
    rng = np.random.default_rng(0)
    keep = cells.obs[KEY].isin(names).to_numpy(copy=True)
    control = np.flatnonzero((cells.obs[KEY] == CONTROL).to_numpy())
    keep[rng.permutation(control)[MAX_CONTROL:]] = False
    cells = cells[keep].copy()
    measured = sorted(n for n in names if n in cells.var_names)
    held_out = np.array_split(rng.permutation(measured), N_SPLITS)[part]  # each gene is held out once
    split = PerturbationSplit.from_names([n for n in names if n not in {*held_out, CONTROL}], [], held_out)
    return Task(
        cells[split.cells(cells, "train", KEY)].copy(),
        cells[(cells.obs[KEY] == CONTROL).to_numpy()].copy(),
        cells,  # those trained on have a part in the scores: the true profile is to be told from theirs
        list(split.test),
        {"treatments": sorted(set(names) - set(measured) - {CONTROL})},
    )


def papalexi(part: int) -> Task:
    return crispr("papalexi_thp1", part)


def schraivogel(part: int) -> Task:
    return crispr("schraivogel_tapseq", part)


def synthetic(part: int) -> Task:
    pairs = np.random.default_rng([part, 4]).permutation(synthetic_cells.pairs()).tolist()
    singles = synthetic_cells.genes()
    train = synthetic_cells.make([*singles, *pairs[:19]], seed=part)
    observed = synthetic_cells.make(pairs[19:], seed=part)
    start = train[(train.obs[KEY] == CONTROL).to_numpy()].copy()
    return Task(train, start, observed, pairs[19:], searched=singles + synthetic_cells.pairs())


TASKS: dict[str, tuple[Callable[[int], Task], int]] = {
    "ifnb": (ifnb, 7),
    "papalexi": (papalexi, N_SPLITS),
    "schraivogel": (schraivogel, N_SPLITS),
    "synthetic": (synthetic, 5),
}


def scgpt_from_scratch(task: Task, names: list[str], seed: int, epochs: int | None, model=None) -> anndata.AnnData:
    """``scgpt.tl.perturb`` with its defaults, started from the control cells of the held-out part."""
    import tempfile

    import scgpt

    with tempfile.TemporaryDirectory() as folder:
        saved = Path(folder) / "model"
        scgpt.tl.perturb(
            task.train,
            names[:1],
            model=model,
            perturbation_key=KEY,
            control=CONTROL,
            max_epochs=epochs,
            seed=seed,
            save=saved,
            n_cells=2,
            progress_bar=False,
            **task.setup,
        )
        return scgpt.tl.perturb(task.start, names, model=saved, n_cells=300, seed=seed, progress_bar=False)


def scgpt_from_mini(task: Task, names: list[str], seed: int, epochs: int | None) -> anndata.AnnData:
    return scgpt_from_scratch(task, names, seed, epochs, model="mini")


def baseline(function: Callable[..., anndata.AnnData]) -> Callable:
    def predict(task: Task, names: list[str], seed: int, epochs: int | None) -> anndata.AnnData:
        return function(task.train, names, perturbation_key=KEY, control=CONTROL)

    return predict


def no_change(task: Task, names: list[str], seed: int, epochs: int | None) -> anndata.AnnData:
    """The control cells that are predicted from."""
    return baselines.no_change(task.start, names, perturbation_key=KEY, control=CONTROL)


def mean_change(task: Task, names: list[str], seed: int, epochs: int | None) -> anndata.AnnData:
    """The control cells that are predicted from, changed by as much as the other cell types were on average."""
    types = task.train.obs["cell_type"].astype(str)
    changes = []
    for name in sorted(set(types)):
        own = task.train[(types == name).to_numpy()]
        control = (own.obs[KEY] == CONTROL).to_numpy()
        if not control.all():
            changes.append(np.asarray(own.X[~control].mean(0) - own.X[control].mean(0)).ravel())
    predicted = no_change(task, names, seed, epochs)
    change = np.mean(changes, axis=0, dtype=np.float64).astype(np.float32)
    predicted.X = np.asarray(predicted.X) + change
    predicted.layers["delta"] = np.tile(change, (predicted.n_obs, 1))
    return predicted


CEILING = "one half predicts the other"
METHODS: dict[str, Callable | None] = {
    "scGPT, from scratch": scgpt_from_scratch,
    "scGPT, from mini": scgpt_from_mini,
    "no change": no_change,
    "mean of perturbations": baseline(baselines.mean_of_perturbations),
    "mean change": mean_change,
    "matching mean": baseline(baselines.matching_mean),
    "additive": baseline(baselines.additive),
    "bilinear ridge": baseline(baselines.bilinear_ridge),
    CEILING: None,
}
SHOWN = (
    "pearson_delta",
    "pearson_delta_top20",
    "pearson_centroid_delta",
    "mse_delta",
    "centroid_accuracy",
    "discrimination_cosine",
    "direction_match",
    "relevant at 1",
    "exact at 1",
    "exact at 8",
    "mean rank",
)


def search(task: Task, predicted: anndata.AnnData) -> dict[str, float]:
    """How well the true perturbation of the held-out cells is found among all candidates, by the cosine of changes.

    ``relevant``: a candidate that shares a gene; ``exact``: the perturbation itself (Cui 2024). By chance the mean rank of
    n candidates is (n + 1) / 2.
    """
    import scgpt

    held_out = task.observed[(task.observed.obs[KEY] != CONTROL).to_numpy()]
    ranking = scgpt.tl.reverse_perturb(task.start, held_out, candidates=predicted, groupby=KEY, k=predicted.n_obs)
    genes = {name: set(perturbed_by(name, control=CONTROL)) for name in [*predicted.obs_names, *task.names]}
    relevant, rank = [], []
    for state, own in ranking.groupby("state"):
        found = [genes[name] for name in own["perturbation"]]
        relevant.append(bool(found[0] & genes[state]))
        rank.append(1 + found.index(genes[state]))
    ranks = np.array(rank)
    return {
        "relevant at 1": float(np.mean(relevant)),
        "exact at 1": float((ranks <= 1).mean()),
        "exact at 8": float((ranks <= 8).mean()),
        "mean rank": float(ranks.mean()),
    }


def run(name: str, part: int, method: str, seed: int, quick: bool) -> dict:
    """Fit one method on one part of a task and score what it predicts."""
    task = TASKS[name][0](part)
    if quick:
        few = np.random.default_rng(0).permutation(task.train.n_obs)[:QUICK_CELLS]
        task.train = task.train[np.sort(few)].copy()
        task.setup["treatments"] = [t for t in task.setup.get("treatments", []) if t in set(task.train.obs[KEY])]
        if name == "ifnb":
            task.setup["treatments"] = "all"
    scored = {"perturbation_key": KEY, "control": CONTROL, "seed": seed}
    function = METHODS[method]
    if function is None:
        asked = task.observed[task.observed.obs[KEY].isin([*task.names, CONTROL]).to_numpy()].copy()
        scores, cost = _runs.measured(lambda: replicate_ceiling(asked, reference=task.train, **scored))
        found = {}
    else:
        names = task.searched or task.names
        predicted, cost = _runs.measured(lambda: function(task, names, seed, 1 if quick else None))
        own = predicted[predicted.obs["perturbation"].isin(task.names).to_numpy()].copy()
        scores = perturbation_scores(
            task.observed, own, reference=task.train, n_bootstrap=0 if quick else 200, **scored
        )
        found = search(task, predicted) if task.searched else {}
    return {
        "task": name,
        "part": part,
        "method": method,
        "seed": seed,
        "settings": settings(method),
        "n_train": task.train.n_obs,
        "perturbations": task.names,
        "scores": scores.overall.to_dict() | found,
        "per_perturbation": scores.per_perturbation.to_dict("index"),
    } | cost


def settings(method: str) -> str:
    """What a kept result depends on; one of other settings is made anew."""
    from scgpt.model import _perturbation

    return str((_perturbation.FROM_SCRATCH, _perturbation.FINE_TUNING)) if method.startswith("scGPT") else ""


def planned(args: argparse.Namespace) -> list[_runs.Planned]:
    runs = []
    for task in args.task or TASKS:
        for part in range(1 if args.quick else TASKS[task][1]):
            for method in args.method or METHODS:
                if (method == "mean change") != (task == "ifnb") and method in ("mean change", "matching mean"):
                    continue
                if method in ("additive", "bilinear ridge") and task == "ifnb":
                    continue  # of one treatment there is nothing to add
                file = _runs.file_name(task, part, method, part)
                runs.append(_runs.Planned(task, method, (part, part), file))
    return runs


def table(results: list[dict]) -> pd.DataFrame:
    """Mean over parts ± standard deviation."""
    rows = []
    for method, group in pd.DataFrame(results).groupby("method", sort=False):
        scores = pd.DataFrame(list(group["scores"]))
        row: dict[str, object] = {"method": method, "parts": len(group)}
        for name in SHOWN:
            if name in scores and not scores[name].isna().all():
                row[name] = f"{scores[name].mean():.3f} ± {scores[name].std(ddof=0):.3f}"
        rows.append(
            row | {"minutes": f"{group['seconds'].mean() / 60:.1f}", "peak GiB": f"{group['peak_GiB'].mean():.1f}"}
        )
    return pd.DataFrame(rows).fillna("")


def report(results: list[dict]) -> str:
    parts = [
        "# Perturbation\n",
        "Made by `benchmarks/perturbation.py`, whose head describes the tasks. Mean over parts (cell types, splits) ± standard "
        f"deviation between them. {results[0]['machine']['cpu']}, "
        f"{', '.join(sorted({r['threads'] for r in results}))} threads; intervals and each perturbation stand beside each run.\n",
    ]
    for task in dict.fromkeys(r["task"] for r in results):
        parts += [f"## {task}\n", table([r for r in results if r["task"] == task]).to_markdown(index=False), ""]
    return "\n".join(parts)


def main() -> None:
    warnings.filterwarnings("ignore", category=UserWarning)
    args = _runs.command_line(__doc__, TASKS, METHODS)
    if args.one:
        print(json.dumps(run(args.task[0], args.one[0], args.method[0], args.one[1], args.quick)))
        return
    results = _runs.collect(__file__, planned(args), args, settings)
    _runs.publish(__file__, report(results), results, args)


if __name__ == "__main__":
    main()
