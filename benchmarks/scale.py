"""What ``scgpt.tl.embed`` costs as cells grow: time and peak memory, by where the cells are and where the embedding goes.

The cells are made up: 2,000 genes, of which a cell expresses about 200, counts from a multinomial over genes whose
frequencies follow a power law. The network is small and untrained (2 layers, width 64, 4 heads), which changes nothing in
how the cost grows. Three ways:

- ``memory``: CSR in memory, the embedding in memory;
- ``backed``: an h5ad file opened with ``backed="r"``, the embedding in memory;
- ``store``: the same file, the embedding into a zarr store.

Each measurement is a process of its own. ``MB`` is its peak memory beyond what it had when the data set was open and the
network had embedded 100 other cells, so that for ``memory`` the cells themselves are left out. The exponent is that of time in
cells, a line through their logarithms: 1 is a cost that grows as cells do.

    python benchmarks/scale.py            # 1,000, 10,000 and 100,000 cells
    python benchmarks/scale.py --quick    # 500 and 2,000 cells; nothing is kept
    python benchmarks/scale.py --json FILE
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import scipy.sparse as sp
from _runs import RESULTS, forget_peak, in_process, keep, machine, memory_MB

N_GENES, GENES_OF_CELL, PORTION = 2_000, 200, 10_000
WAYS = ("memory", "backed", "store")
SIZES, QUICK = (1_000, 10_000, 100_000), (500, 2_000)
NETWORK = {"n_layers": 2, "d_model": 64, "n_heads": 4}
VAR = pd.DataFrame(index=[f"G{i}" for i in range(N_GENES)])


def made_up_cells(n_cells: int, seed: int) -> sp.csr_matrix:
    """Counts of cells of about one depth, drawn in portions."""
    rng = np.random.default_rng(seed)
    frequency = np.cumsum(np.arange(1, N_GENES + 1) ** -0.8)
    depth = 3 * GENES_OF_CELL // 2
    portions = []
    for first in range(0, n_cells, PORTION):
        n = min(PORTION, n_cells - first)
        genes = np.searchsorted(frequency, rng.random(n * depth) * frequency[-1]).clip(max=N_GENES - 1)
        cells = np.repeat(np.arange(n), depth)
        portions.append(sp.csr_matrix((np.ones(len(genes), np.float32), (cells, genes)), shape=(n, N_GENES)))
    return sp.vstack(portions, format="csr")


def data_set(counts: sp.csr_matrix) -> anndata.AnnData:
    return anndata.AnnData(counts, obs=pd.DataFrame(index=[f"c{i}" for i in range(counts.shape[0])]), var=VAR)


def measure(way: str, folder: Path) -> dict[str, float]:
    """Embed the cells of a folder in this process."""
    import scgpt
    from scgpt.model import SCGPT

    few = data_set(made_up_cells(100, 1))
    SCGPT.setup_anndata(few)
    model = SCGPT(few, **NETWORK)
    model.is_trained_ = True
    scgpt.tl.embed(few, model, progress_bar=False)  # compiles
    adata = anndata.read_h5ad(folder / "cells.h5ad", backed=None if way == "memory" else "r")
    forget_peak()
    before = memory_MB("VmHWM")
    start = time.perf_counter()
    store = folder / "embedding.zarr" if way == "store" else None
    scgpt.tl.embed(adata, model, store=store, progress_bar=False)
    seconds = time.perf_counter() - start
    return {"seconds": seconds, "cells/s": adata.n_obs / seconds, "MB": memory_MB("VmHWM") - before}


def exponents(rows: list[dict]) -> dict[str, float]:
    """Exponent of time in cells, of each way."""
    return {
        way: float(np.polyfit(np.log(group["cells"]), np.log(group["seconds"]), 1)[0])
        for way, group in pd.DataFrame(rows).groupby("way", sort=False)
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few cells, to see that it runs; nothing is kept")
    parser.add_argument("--json", type=Path, help="write the results to this file, too")
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        print(json.dumps(measure(args.one[0], Path(args.one[1]))))
        return
    rows = []
    for n_cells in QUICK if args.quick else SIZES:
        counts = made_up_cells(n_cells, 0)
        for way in WAYS:
            with tempfile.TemporaryDirectory() as folder:
                data_set(counts).write_h5ad(Path(folder) / "cells.h5ad")
                print(f"{n_cells} cells, {way} ...", flush=True)
                rows.append({"way": way, "cells": n_cells} | dict(in_process(__file__, [way, folder])))
    result = {
        "machine": machine(),
        "threads": os.environ.get("OMP_NUM_THREADS", str(os.cpu_count())),
        "load": os.getloadavg()[1],
        "seed": 0,
        "network": NETWORK,
        "genes of a cell": float(np.diff(counts.indptr).mean()),
        "exponents": exponents(rows),
        "results": rows,
    }
    table = pd.DataFrame(rows)
    table["exponent"] = table["way"].map(result["exponents"])
    print(table.round(2).to_string(index=False))
    if args.json:
        args.json.write_text(json.dumps(result, indent=1) + "\n")
    if not args.quick:
        keep(RESULTS / "scale.json", result)


if __name__ == "__main__":
    main()
