"""The paper's integration benchmarks with the authors' weights, for whoever has the network.

Downloads PBMC 10K (``scvi.data.pbmc_dataset``) and the whole-human checkpoint, fine-tunes it with the authors' settings
(1,200 genes, zeros as tokens, 15 epochs, learning rate 1e-4 x 0.9 an epoch) and prints AvgBIO beside the published
number. The paper's other data sets are read from a file that you name; no number is published for them that could be
put beside. A GPU is advisable: the authors report about two minutes an epoch on one.

    python benchmarks/paper.py                                                    # PBMC 10K
    python benchmarks/paper.py --file covid.h5ad --batch-key sample --label-key cell_type
    python benchmarks/paper.py --quick                                            # offline, see below

``--quick`` proves the path without network: a model of minutes stands in for the checkpoint and 700 PBMC that come
with scanpy, in two made-up batches, for the data. Its scores mean nothing.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

import _data
import anndata
import numpy as np
import pandas as pd
from _runs import machine

import scgpt
from scgpt.model import SCGPT

PUBLISHED = {"pbmc_10k": {"AvgBIO": 0.821}}  # Cui et al. 2024, Fig. 3
N_TOP_GENES = 1200


def pbmc_10k() -> anndata.AnnData:
    """12,000 PBMC of two 10x runs."""
    import scvi

    cells = scvi.data.pbmc_dataset()
    cells.obs = pd.DataFrame({"batch": cells.obs["batch"].astype(str), "label": cells.obs["str_labels"].astype(str)})
    return cells


def stand_in(folder: Path) -> tuple[anndata.AnnData, Path]:
    """Cells and a checkpoint in place of those that need a network."""
    cells = _data.load("pbmc68k_reduced")
    cells.obs["label"] = cells.obs["bulk_labels"].astype(str)
    cells.obs["batch"] = np.where(np.random.default_rng(0).random(cells.n_obs) < 0.5, "a", "b")
    SCGPT.setup_anndata(cells)
    model = SCGPT(cells)
    model.train(1, enable_progress_bar=False)
    model.save(folder / "model")
    return cells, folder / "model"


def run(
    cells: anndata.AnnData, model: str | Path, seed: int, *, epochs: int | None = None, counts: bool = True
) -> pd.DataFrame:
    """Score the embedding of the model as it is, and after fine-tuning."""
    keys = {"batch_key": "batch", "n_top_genes": N_TOP_GENES}
    scgpt.tl.embed(cells, model, key_added="zero-shot")
    scgpt.tl.integrate(
        cells, model=model, include_zeros=True, max_epochs=epochs, seed=seed, key_added="fine-tuned", **keys
    )
    scgpt.metrics.baselines.pca(cells, normalize=counts, key_added="HVG + PCA", **keys)
    return scgpt.metrics.integration_scores(
        cells, "batch", "label", ["zero-shot", "fine-tuned", "HVG + PCA"], n_bootstrap=200
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="whole-human", help="checkpoint's name or folder")
    parser.add_argument("--file", type=Path, help="h5ad with raw counts in .X, in place of PBMC 10K")
    parser.add_argument("--batch-key", default="batch", help="column of .obs in the file")
    parser.add_argument("--label-key", default="cell_type", help="column of .obs in the file")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true", help="offline, with stand-ins")
    parser.add_argument("--json", type=Path, help="write the scores to this file")
    args = parser.parse_args()

    with tempfile.TemporaryDirectory() as folder:
        name, model = "pbmc_10k", args.model
        if args.quick:
            name = "stand-in"
            cells, model = stand_in(Path(folder))
        elif args.file:
            name = args.file.stem
            cells = anndata.read_h5ad(args.file)
            cells.obs["batch"] = cells.obs[args.batch_key].astype(str)
            cells.obs["label"] = cells.obs[args.label_key].astype(str)
        else:
            cells = pbmc_10k()
        quickly = {"epochs": 1, "counts": False} if args.quick else {}
        scores = run(cells, model, args.seed, **quickly)

    print(scores.round(3).T.to_string())
    for metric, value in PUBLISHED.get(name, {}).items():
        print(f"published {metric} of {name}, fine-tuned: {value}")
    if args.json:
        result = {"data": name, "model": str(args.model), "seed": args.seed, "scores": scores.to_dict("index")}
        args.json.write_text(json.dumps(result | {"published": PUBLISHED.get(name), "machine": machine()}, indent=1))


if __name__ == "__main__":
    main()
