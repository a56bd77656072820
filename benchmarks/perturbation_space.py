"""Time and memory of predicting all pairs of many genes.

A small model, trained for one epoch on synthetic cells of 200 genes, predicts the mean profile of single genes and all their pairs from
100 control cells. Each number of genes is a process of its own, so that its peak memory is its own.

    python benchmarks/perturbation_space.py            # up to 105 genes: 5,565 perturbations; half an hour on one core
    python benchmarks/perturbation_space.py --quick    # up to 20 genes
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

import _runs
import _synthetic_perturbations as synthetic
import pandas as pd

import scgpt
from scgpt.model import SCGPTPerturbation

N_GENES, N_CONTROL = (10, 33, 105), 100


def run(n_genes: int) -> dict:
    cells = synthetic.make(synthetic.genes()[:5], n_cells=20, n_control=N_CONTROL)
    with tempfile.TemporaryDirectory() as folder:
        saved = Path(folder) / "model"
        asked = {"perturbation_key": synthetic.KEY, "progress_bar": False}
        scgpt.tl.perturb(cells, "G000", max_epochs=1, n_cells=2, save=saved, **asked)
        model = SCGPTPerturbation.load(saved, adata=False)
    genes = list(cells.var_names[:n_genes])
    before = _runs.measured(lambda: None)[1]["peak_GiB"]
    space, cost = _runs.measured(
        lambda: scgpt.tl.perturb(cells, genes, model=model, pairs=True, n_cells=N_CONTROL, progress_bar=False)
    )
    n_tokens = space.n_obs * N_CONTROL * (cells.n_vars + 1)
    return {
        "genes": n_genes,
        "perturbations": space.n_obs,
        "cells predicted": space.n_obs * N_CONTROL,
        "tokens / s": round(n_tokens / cost["seconds"]),
        "GiB before": before,
    } | cost


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few genes")
    parser.add_argument("--json", type=Path, help="write the results to this file, too")
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        print(json.dumps(run(args.one)))
        return
    results = [_runs.in_process(__file__, [str(n)]) for n in (N_GENES[:1] + (20,) if args.quick else N_GENES)]
    print(pd.DataFrame(results).drop(columns="machine").to_string(index=False))
    if args.json:
        args.json.write_text(json.dumps(results, indent=1) + "\n")
    if not args.quick:
        _runs.keep(_runs.RESULTS / "perturbation_space.json", {"runs": results})


if __name__ == "__main__":
    main()
