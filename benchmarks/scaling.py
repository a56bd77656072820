"""What pretraining on more cells, and on cells of the right kind, is worth to cells that it never saw.

The network of ``scgpt-mini`` is pretrained for the same number of steps on growing numbers of its cells (``SIZES``; a smaller
corpus is part of a larger one), and on equal numbers of cells of blood and of lung-cancer lines (``CONTEXTS``, the in-context
effect of the paper). Each model, and one that was not pretrained, is then used on blood of other donors (kang_8donors), of
which no corpus holds a cell:

- ``annotation``: 500 cells of the training split have a type, those of the test split are named, by ``scgpt.tl.annotate``;
  beside it the vote of the nearest labelled cells in the embedding as it is (``kNN``), and logistic regression;
- ``integration``: 1,000 cells of the training split are integrated by ``scgpt.tl.integrate``, and embedded as they are.

Seeds are of the labelled and integrated cells, and of the fine-tuning; each size is pretrained once. What is there, under
``pretraining/scaling`` and ``benchmarks/results/scaling``, is not made again.

    python benchmarks/scaling.py                      # hours on one core
    python benchmarks/scaling.py --quick              # minutes: few steps and cells; nothing is kept
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

import _data
import _runs
import anndata
import mini
import numpy as np
import pandas as pd
from sklearn.neighbors import KNeighborsClassifier

import scgpt
from scgpt.metrics import baselines
from scgpt.pretraining import PretrainingConfig, pretrain

RUNS = _runs.RESULTS / "scaling"
MODELS = mini.FOLDER / "scaling"
BLOOD = ("pbmc_facs", "pbmc_10k_mosaic")
LINES = ("sc_mixology",)
SIZES = {f"{n:,} cells": (mini.SOURCES, n) for n in (800, 2000, 5000, 13217)}
CONTEXTS = {"780 blood cells": (BLOOD, 780), "780 lung-cancer cells": (LINES, 780)}
NOT_PRETRAINED, LOGISTIC = "not pretrained", "logistic regression"
DATA, BATCH, LABEL = "kang_8donors", "donor", "cell_type"
STEPS, SEEDS = 1000, 3
N_LABELLED, N_INTEGRATED = 500, 1000
N_NEIGHBORS = 10


def pretrained(sources: tuple[str, ...], n_cells: int, steps: int, folder: Path) -> Path:
    """The folder of a model that is pretrained on some cells, made if it is not there."""
    out = folder / f"{sources[0]}-{len(sources)}-{n_cells}-{steps}"
    if not (out / "run" / "model").exists() or not (out / "finished").exists():
        corpus = mini.make_corpus(out / "corpus.zarr", sources, n_cells)
        assert corpus.n_cells() == n_cells
        changes = {
            "corpus": str(out / "corpus.zarr"),
            "out": str(out / "run"),
            "max_steps": steps,
            "max_epochs": -(-steps * 32 // n_cells),
            "validate_every": steps,
            "objectives": {
                "gen": {"warmup_steps": steps + 1},
                "zero": 1000,
            },  # without cell prompts, in half of the time
        }
        pretrain(PretrainingConfig.from_yaml(Path(__file__).parent / "mini.yaml", changes), progress_bar=False)
        (out / "finished").touch()
    return out / "run" / "model"


def final_loss(model: Path) -> float:
    """Squared error of unknown genes of held-out cells, gene prompts, at the end of pretraining."""
    log = [json.loads(line) for line in (model.parent / "log.jsonl").read_text().splitlines()]
    return [line["gen_gene_prompt_validation"] for line in log if "gen_gene_prompt_validation" in line][-1]


def some(cells: anndata.AnnData, n: int, seed: int) -> anndata.AnnData:
    return cells[np.sort(np.random.default_rng(seed).permutation(cells.n_obs)[:n])].copy()


def annotation(
    model: Path | None, train: anndata.AnnData, test: anndata.AnnData, seed: int, epochs: int | None
) -> dict:
    """Scores on the test cells."""
    reference = some(train, N_LABELLED, seed)
    query = test.copy()
    scgpt.tl.annotate(
        query,
        LABEL,
        reference=reference,
        model=model,
        max_epochs=epochs,
        seed=seed,
        progress_bar=False,
        key_added="named",
    )
    scores = scored(query, "named_label")
    if model is not None:
        for cells in (reference, query):
            scgpt.tl.embed(cells, model, progress_bar=False)
        vote = KNeighborsClassifier(N_NEIGHBORS, metric="cosine").fit(reference.obsm["X_scGPT"], reference.obs[LABEL])
        query.obs["kNN"] = vote.predict(query.obsm["X_scGPT"])
        scores |= {f"kNN {name}": value for name, value in scored(query, "kNN").items()}
    return scores


def logistic(train: anndata.AnnData, test: anndata.AnnData, seed: int) -> dict:
    reference = some(train, N_LABELLED, seed)
    cells = anndata.concat([reference, test], label="part")
    baselines.logistic_regression(
        cells, LABEL, penalty="l2", train=(cells.obs["part"] == "0").to_numpy(), seed=seed, key_added="named"
    )
    return scored(cells[cells.obs["part"] == "1"].copy(), "named")


def scored(cells: anndata.AnnData, key: str) -> dict[str, float]:
    overall = scgpt.metrics.annotation_scores(cells, LABEL, key, n_bootstrap=0).overall
    return {name: float(overall[name]) for name in ("accuracy", "macro_F1")}


def integration(model: Path | None, train: anndata.AnnData, seed: int, epochs: int | None, n_cells: int) -> dict:
    """Scores of the embeddings of some cells."""
    cells = some(train, n_cells, seed)
    scgpt.tl.integrate(
        cells, batch_key=BATCH, model=model, max_epochs=epochs, seed=seed, progress_bar=False, key_added="integrated"
    )
    keys = {"integrated": ""}
    if model is not None:
        scgpt.tl.embed(cells, model, key_added="as it is", progress_bar=False)
        keys["as it is"] = "zero-shot "
    table = scgpt.metrics.integration_scores(cells, BATCH, LABEL, list(keys), n_bootstrap=0, benchmarker=False)
    return {keys[key] + name: float(table.loc[key, name]) for key in keys for name in ("AvgBIO", "AvgBATCH", "Overall")}


def run(name: str, seed: int, quick: bool, folder: Path) -> dict:
    """Pretrain if need be, and use the model."""
    cells = _data.load_genes(DATA)
    test = _data.is_test(DATA, cells)
    train, test = cells[~test].copy(), cells[test].copy()
    epochs = 1 if quick else None
    if quick:
        test = some(test, N_LABELLED, 0)
    if name == LOGISTIC:
        return {"name": name, "seed": seed, "scores": logistic(train, test, seed)}
    model = None
    if name != NOT_PRETRAINED:
        sources, n_cells = (SIZES | CONTEXTS)[name]
        model = pretrained(sources, n_cells, 20 if quick else STEPS, folder)
    scores, cost = _runs.measured(
        lambda: (
            annotation(model, train, test, seed, epochs)
            | integration(model, train, seed, epochs, N_LABELLED if quick else N_INTEGRATED)
        )
    )
    loss = {} if model is None else {"error of unknown genes": final_loss(model)}
    return {"name": name, "seed": seed, "scores": loss | scores} | cost


def table(results: list[dict]) -> pd.DataFrame:
    """Mean over seeds ± standard deviation."""
    rows = []
    for name, group in pd.DataFrame(results).groupby("name", sort=False):
        scores = pd.DataFrame(list(group["scores"]))
        spread = scores.std(ddof=0)
        rows.append({"pretrained on": name} | {c: f"{scores[c].mean():.3f} ± {spread[c]:.3f}" for c in scores})
    return pd.DataFrame(rows).fillna("")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few steps and cells, to see that it runs")
    args = parser.parse_args()
    results = []
    with tempfile.TemporaryDirectory() as folder:
        # One model after the other: what is pretrained is of use before all of it is.
        for name in (*SIZES, *CONTEXTS, NOT_PRETRAINED, LOGISTIC):
            for seed in range(1 if args.quick else SEEDS):
                path = RUNS / _runs.file_name(name, seed)
                result = None if args.quick or not path.exists() else json.loads(path.read_text())
                if result is None:
                    print(f"{name}, seed {seed} ...", flush=True)
                    result = run(name, seed, args.quick, Path(folder) if args.quick else MODELS)
                    if not args.quick:
                        _runs.keep(path, result)
                results.append(result)
    text = table(results).to_markdown(index=False)
    print(text)
    if not args.quick:
        (_runs.RESULTS / "scaling.md").write_text(
            f"# Pretraining on more cells\n\nMade by `benchmarks/scaling.py`.\n\n{text}\n"
        )


if __name__ == "__main__":
    main()
