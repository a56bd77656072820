"""What the two savings of the paper's Supplementary Note 3 are worth: zeros left out of the input, embeddings frozen.

Zeros: steps of training on the training cells of sc_mixology, 1,200 highly variable genes, with the genes that a cell
does not express as tokens and without them, in turns in one process. What it does to the scores is in
``benchmarks/integration.py``. Freezing: training with a vocabulary of 60,000 genes, width 512 and 4 layers, each in a
process of its own for its peak memory.

    python benchmarks/training_cost.py            # or --quick, --json FILE
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from pathlib import Path

import _data
import anndata
import numpy as np
import pandas as pd
import scipy.sparse as sp
from _runs import machine

from scgpt.model import SCGPT

RESULTS = Path(__file__).parent / "results" / "training_cost.json"
FROZEN = {"nothing": (), "embeddings": ("embeddings",), "embeddings and half the layers": ("embeddings", "layers.0", "layers.1")}  # fmt: skip


def seconds_of_epoch(model: SCGPT, **kwargs) -> float:
    start = time.perf_counter()
    model.train(1, train_size=1.0, enable_progress_bar=False, **kwargs)
    return time.perf_counter() - start


def zeros(quick: bool) -> dict:
    import scanpy as sc

    cells = _data.load("sc_mixology")
    cells = cells[~_data.is_test("sc_mixology", cells)].copy()
    sc.pp.normalize_total(cells)
    sc.pp.log1p(cells)
    sc.pp.highly_variable_genes(cells, n_top_genes=1200, batch_key="batch", subset=True)
    cells = cells[: 32 if quick else 128].copy()
    SCGPT.setup_anndata(cells, batch_key="batch")
    models = {name: SCGPT(cells, include_zeros=name == "as tokens", max_length=1201) for name in ("left out", "as tokens")}  # fmt: skip
    times: dict[str, list[float]] = {name: [] for name in models}
    for turn in range(2 if quick else 4):
        for name, model in models.items():
            seconds = seconds_of_epoch(model, seed=turn)
            if turn:  # the first compiles
                times[name].append(seconds)
    row = {f"s per 100 cells, zeros {name}": 100 * np.median(t) / cells.n_obs for name, t in times.items()}
    pairs = np.array(times["left out"]) / np.array(times["as tokens"])
    return row | {"time saved": 1 - float(np.median(pairs)), "genes expressed": float(np.diff(cells.X.indptr).mean())}


def freezing(name: str, quick: bool) -> dict:
    rng = np.random.default_rng(0)
    n_genes = 6_000 if quick else 60_000
    cells = anndata.AnnData(sp.random(16, n_genes, density=300 / n_genes, format="csr", dtype=np.float32, rng=rng))
    cells.X.data[:] = rng.integers(1, 20, cells.X.nnz)
    SCGPT.setup_anndata(cells)
    model = SCGPT(cells, d_model=512, n_heads=8, n_layers=4)
    steps = {"batch_size": 8, "freeze": FROZEN[name]}
    seconds_of_epoch(model, **steps)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    seconds = min(seconds_of_epoch(model, seed=seed, **steps) for seed in (1, 2))
    peak = max(before, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss) / 2**20
    return {"frozen": name, "s per step": seconds / 2, "peak GiB": peak}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer cells and genes, to see that it runs")
    parser.add_argument("--json", type=Path, help="write the results to this file, too")
    parser.add_argument("--freezing", choices=FROZEN, help=argparse.SUPPRESS)  # one of them, in its own process
    args = parser.parse_args()
    if args.freezing:
        print(json.dumps(freezing(args.freezing, args.quick)))
        return
    result = {"machine": machine(), "zeros": zeros(args.quick), "freezing": []}
    for name in FROZEN:
        command = [sys.executable, __file__, "--freezing", name] + ["--quick"] * args.quick
        shown = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
        result["freezing"].append(json.loads(shown.splitlines()[-1]))
    print(pd.Series(result["zeros"]).round(3).to_string())
    print(pd.DataFrame(result["freezing"]).round(2).to_string(index=False))
    text = json.dumps(result, indent=1) + "\n"
    for path in [args.json] * bool(args.json) + [RESULTS] * (not args.quick):
        path.write_text(text)


if __name__ == "__main__":
    main()
