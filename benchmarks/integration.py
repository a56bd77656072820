"""Integration of experimental batches: scGPT beside HVG + PCA, Harmony, scVI and scANVI.

Every method but Harmony is fitted on the training cells alone and embeds all cells; Harmony cannot embed cells that it
was not fitted on, so it sees all of them. Labels are used by scANVI (those of the training cells) and by the scores.
Reported are the scores of all cells, as the field does, and of the test cells that no fit has seen
(``benchmarks/splits``). Zero-shot and fine-tuned is ``scgpt-mini``, which was pretrained on the training cells of
sc_mixology, among others, and on no cell of kang_8donors. Settings of scGPT were chosen on both data sets, so neither tells
how they carry over to others: objectives and rates on training cells of kang_8donors; that batches are not normalised
apart, and the limit of 30 epochs, on sc_mixology. For the limit a run of 50 epochs, seed 0, had been scored on all cells of
sc_mixology, its test cells among them. Seurat needs R and is not run: Harmony and scVI stand for it.

Each run is a process of its own, for its wall time and peak memory, and is kept under ``benchmarks/results/integration``:
what is there is not run again.

    python benchmarks/integration.py                  # all, hours on two cores
    python benchmarks/integration.py --quick          # minutes: few cells, epochs and one seed; nothing is kept
    python benchmarks/integration.py --data sc_mixology --method "scGPT, from scratch" --seed 0
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable
from pathlib import Path

import _data
import _runs
import numpy as np
import pandas as pd

RUNS = _runs.RESULTS / "integration"
SCVI_MODELS = RUNS / "scvi_models"  # that scANVI starts from; not in the repository
DATA = {"kang_8donors": ("donor", "cell_type"), "sc_mixology": ("batch", "cell_line")}
SEEDS = 5
KEY = "X_embedding"
QUICK_CELLS, QUICK_EPOCHS = 300, 1
N_TOP_GENES = 1200


def batch_key(data: str) -> str:
    return DATA[data][0]


def scvi_model(data: str, seed: int) -> Path:
    return SCVI_MODELS / f"{data}.{seed}"


def scgpt_from_scratch(adata, train, data, seed, epochs, **changes):
    """``scgpt.tl.integrate`` with its defaults on the training cells; the model that it saves embeds all cells."""
    import scgpt
    from scgpt.model import SCGPT

    with tempfile.TemporaryDirectory() as folder:
        fitted = adata[train].copy()
        scgpt.tl.integrate(
            fitted,
            batch_key=batch_key(data),
            n_top_genes=N_TOP_GENES,
            max_epochs=epochs,
            seed=seed,
            save=Path(folder) / "model",
            progress_bar=False,
            **changes,
        )
        model = SCGPT.load(Path(folder) / "model", adata=False)
        # A pretrained model knows more genes than it was trained on here.
        chosen = adata[:, adata.var_names.isin(fitted.uns["scgpt"]["X_scGPT"]["genes"])].copy()
        adata.obsm[KEY] = model.get_latent_representation(chosen, progress_bar=False)


def scgpt_with_zeros(adata, train, data, seed, epochs):
    """The same with the genes that a cell does not express as tokens."""
    scgpt_from_scratch(adata, train, data, seed, epochs, include_zeros=True)


def scgpt_zero_shot(adata, train, data, seed, epochs):
    import scgpt

    scgpt.tl.embed(adata, "mini", key_added=KEY, progress_bar=False)


def scgpt_fine_tuned(adata, train, data, seed, epochs):
    """The same on from the weights of ``scgpt-mini``."""
    scgpt_from_scratch(adata, train, data, seed, epochs, model="mini")


def hvg_pca(adata, train, data, seed, epochs):
    from scgpt.metrics import baselines

    baselines.pca(adata, batch_key=batch_key(data), n_top_genes=N_TOP_GENES, train=train, seed=seed, key_added=KEY)


def harmony(adata, train, data, seed, epochs):
    from scgpt.metrics import baselines

    baselines.harmony(adata, batch_key(data), n_top_genes=N_TOP_GENES, seed=seed, key_added=KEY)


def scvi(adata, train, data, seed, epochs):
    from scgpt.metrics import baselines

    baselines.scvi(
        adata, batch_key(data), n_top_genes=N_TOP_GENES, train=train, max_epochs=epochs, seed=seed, progress_bar=False,
        save=None if epochs else scvi_model(data, seed), key_added=KEY,
    )  # fmt: skip


def scanvi(adata, train, data, seed, epochs):
    """On top of the scVI of the same seed, whose training its time does not count where that is kept."""
    from scgpt.metrics import baselines

    batch, label = DATA[data]
    # The test cells' labels are hidden from it.
    adata.obs["known_label"] = np.where(train, adata.obs[label].astype(str), "Unknown")
    kept = scvi_model(data, seed)
    baselines.scanvi(
        adata, batch, "known_label", n_top_genes=N_TOP_GENES, train=train, max_epochs=epochs, seed=seed,
        scvi_model=kept if kept.exists() and not epochs else None, progress_bar=False, key_added=KEY,
    )  # fmt: skip


METHODS: dict[str, Callable] = {
    "scGPT, from scratch": scgpt_from_scratch,
    "scGPT, zeros as tokens": scgpt_with_zeros,
    "scGPT, zero-shot": scgpt_zero_shot,
    "scGPT, fine-tuned": scgpt_fine_tuned,
    "HVG + PCA": hvg_pca,
    "Harmony": harmony,
    "scVI": scvi,
    "scANVI": scanvi,
}
PRETRAINED_METHODS = {"scGPT, zero-shot", "scGPT, fine-tuned"}
ONE_SEED = {"HVG + PCA", "scGPT, zero-shot"}  # another seed gives the same
EXTRA = {"scGPT, zeros as tokens"}  # one seed of sc_mixology, more than an hour


def run(data: str, method: str, seed: int, quick: bool) -> dict:
    """Fit one method on the training cells of one data set, embed all cells and score them."""
    import scgpt

    batch, label = DATA[data]
    adata = _data.load(data)
    test = _data.is_test(data, adata)
    if quick:
        few = np.random.default_rng(0).permutation(adata.n_obs)[:QUICK_CELLS]
        adata, test = adata[few].copy(), test[few]
    epochs = QUICK_EPOCHS if quick else None
    _, cost = _runs.measured(lambda: METHODS[method](adata, ~test, data, seed, epochs))
    scores = {
        cells: scgpt.metrics.integration_scores(
            chosen, batch, label, [KEY], n_bootstrap=0 if quick else 200, benchmarker=False
        ).iloc[0].to_dict()
        for cells, chosen in (("all cells", adata), ("test cells", adata[test]))
    }  # fmt: skip
    return {
        "data": data,
        "method": method,
        "seed": seed,
        "n_cells": adata.n_obs,
        "n_test": int(test.sum()),
        "settings": settings(method),
        "scores": scores,
    } | cost


def settings(method: str) -> str:
    """What a kept result depends on; one of other settings is made anew."""
    from scgpt import hub
    from scgpt.tl import _integrate

    if not method.startswith("scGPT"):
        return ""
    weights = f"mini {hub.read('mini').report.sha256}" if method in PRETRAINED_METHODS else ""
    return weights if "zero-shot" in method else f"{_integrate.FROM_SCRATCH}{weights}"


def planned(args: argparse.Namespace) -> list[tuple[str, str, int]]:
    seeds = [args.seed] if args.seed is not None else range(1 if args.quick else SEEDS)
    runs = [
        (data, method, seed)
        for seed in seeds
        for data in args.data or DATA
        for method in args.method or METHODS
        if seed == seeds[0] or method not in ONE_SEED
    ]
    return [r for r in runs if r[1] not in EXTRA or (r[0] == "sc_mixology" and r[2] == seeds[0])]


def table(results: list[dict], cells: str) -> pd.DataFrame:
    """Mean over seeds, the spread over seeds, and the bootstrap interval over cells averaged over seeds."""
    rows = []
    for (data, method), group in pd.DataFrame(results).groupby(["data", "method"], sort=False):
        scores = pd.DataFrame([row[cells] for row in group["scores"]])
        row = {"data": data, "method": method, "seeds": len(group)}
        for name in ("AvgBIO", "AvgBATCH", "Overall"):
            row[name] = f"{scores[name].mean():.3f} ± {scores[name].std(ddof=0):.3f}"
            if f"{name}_low" in scores:
                row[name] += f" ({scores[f'{name}_low'].mean():.3f} - {scores[f'{name}_high'].mean():.3f})"
        for name in ("NMI", "ARI", "ASW_label", "ASW_batch", "graph_connectivity"):
            row[name] = f"{scores[name].mean():.3f}"
        row["minutes"] = f"{group['seconds'].mean() / 60:.1f}"
        row["peak GiB"] = f"{group['peak_GiB'].mean():.1f}"
        rows.append(row)
    return pd.DataFrame(rows)


def report(results: list[dict]) -> str:
    parts = [
        "# Integration\n",
        "Made by `benchmarks/integration.py`, whose head says what is compared with what. Mean over seeds ± their "
        "standard deviation, and in parentheses the 95 % bootstrap interval over cells. Every run had "
        f"{', '.join(sorted({r['threads'] for r in results}))} threads of {results[0]['machine']['cpu']}; versions "
        "stand beside each run.\n",
    ]
    for cells in ("all cells", "test cells"):
        parts += [f"## Scores of {cells}\n", table(results, cells).to_markdown(index=False), ""]
    return "\n".join(parts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few cells, epochs and one seed, to see that it runs")
    parser.add_argument("--json", type=Path, help="write all runs to this file, too")
    parser.add_argument("--data", action="append", choices=DATA)
    parser.add_argument("--method", action="append", choices=METHODS)
    parser.add_argument("--seed", type=int)
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)  # the run itself, in its own process
    args = parser.parse_args()
    if args.one:
        print(json.dumps(run(args.data[0], args.method[0], args.seed, args.quick)))
        return

    results = []
    for data, method, seed in planned(args):
        path = RUNS / _runs.file_name(data, method, seed)
        result = None if args.quick else _runs.kept(path, settings(method))
        if result is None:
            print(f"{data}, {method}, seed {seed} ...", flush=True)
            arguments = ["--data", data, "--method", method, "--seed", str(seed), *["--quick"] * args.quick]
            result = _runs.in_process(__file__, arguments)
            if not args.quick:
                _runs.keep(path, result)
        results.append(result)
    text = report(results)
    print(text)
    if args.json:
        args.json.write_text(json.dumps(results, indent=1) + "\n")
    if not args.quick and not (args.data or args.method or args.seed is not None):
        (_runs.RESULTS / "integration.md").write_text(text)


if __name__ == "__main__":
    main()
