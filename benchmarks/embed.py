"""Embedding cells with 12 layers of width 512: our path beside the usual one, with the same weights in one process.

The usual path (``_usual.py``) is what the authors' notebooks do: cells go through numpy one by one, are padded to the longest
of their batch, and are read by ``torch.nn.TransformerEncoder`` in float32; at the authors' batch size of 64, and at the one
of several at which it is fastest. Ours is ``SCGPT.get_latent_representation``, tokenising included in both. The weights are
random; the cells are real:

- ``pbmc``: test cells of kang_8donors, about 300 genes a cell;
- ``mixed``: cells of sc_mixology that keep 300 to 1,200 of their genes, drawn at random;
- ``full``: the same with 1,199 genes each, which with ``<cls>`` is all that a cell may have.

Paths take turns, after one pass over a few cells that warms them up; the rate is of the median turn. The share of the machine
is the arithmetic of real tokens over that of a product of 4096 x 4096 float32 matrices, measured beside it. Peak memory is what
a turn adds to what was there before. ``bfloat16`` is run where the machine computes in it, or with ``--all``.

    python benchmarks/embed.py                  # about half an hour on two cores
    python benchmarks/embed.py --quick --json FILE
    python benchmarks/embed.py --cells full --turns 1
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path

import _data
import _usual
import anndata
import numpy as np
import pandas as pd
import scipy.sparse as sp
import torch
from _runs import RESULTS, forget_peak, keep, machine, memory_MB

from scgpt.model import SCGPT
from scgpt.nn import ScGPTConfig, has_bfloat16

N_GENES = 60_694  # of the authors' whole-human model
CELLS = {"pbmc": 128, "mixed": 64, "full": 64}
BATCH_SIZES = (64, 8, 1)
MOST_GENES = 1_199


def cells_of(name: str, n_cells: int) -> anndata.AnnData:
    """Counts of so many cells."""
    rng = np.random.default_rng(0)
    source = "kang_8donors" if name == "pbmc" else "sc_mixology"
    cells = _data.load(source)
    cells = cells[_data.is_test(source, cells)]
    cells = cells[rng.choice(cells.n_obs, n_cells, replace=cells.n_obs < n_cells)]
    counts = sp.csr_matrix(cells.X, dtype=np.float32)
    if name != "pbmc":
        for cell in range(n_cells):
            row = counts.data[counts.indptr[cell] : counts.indptr[cell + 1]]
            kept = MOST_GENES if name == "full" else int(rng.integers(300, MOST_GENES + 1))
            row[rng.permutation(len(row))[kept:]] = 0
        counts.eliminate_zeros()
    return anndata.AnnData(counts, var=pd.DataFrame(index=[f"G{i}" for i in range(counts.shape[1])]))


def random_model() -> SCGPT:
    """A model of the authors' size."""
    genes = anndata.AnnData(sp.csr_matrix((2, N_GENES)), var=pd.DataFrame(index=[f"G{i}" for i in range(N_GENES)]))
    SCGPT.setup_anndata(genes)
    model = SCGPT(genes, d_model=512, n_heads=8, n_layers=12)
    torch.manual_seed(0)
    with torch.no_grad():  # norms that do something
        for parameter in model.module.parameters():
            if parameter.ndim == 1:
                parameter += 0.1 * torch.randn_like(parameter)
    model.is_trained_ = True
    model.module.eval()
    return model


def matmul_rate(dtype: torch.dtype, size: int = 4096) -> float:
    """Operations a second of a product of square matrices."""
    a, b = (torch.randn(size, size, dtype=dtype) for _ in range(2))
    seconds = []
    for _ in range(4):
        start = time.perf_counter()
        a @ b
        seconds.append(time.perf_counter() - start)
    return 2 * size**3 / min(seconds)


def flops(lengths: np.ndarray, config: ScGPTConfig) -> float:
    """Arithmetic of the layers for cells of so many tokens."""
    d, f = config.d_model, config.d_feed_forward
    of_token = 2 * (4 * d * d + 2 * d * f)
    return float(config.n_layers * (of_token * lengths + 4 * d * lengths**2).sum())


def peak_of(function: Callable[[], np.ndarray]) -> tuple[np.ndarray, float, float]:
    """Return what a function gives, its seconds, and by how many MB it raised the memory of this process."""
    forget_peak()
    before = memory_MB("VmRSS")
    start = time.perf_counter()
    result = function()
    return result, time.perf_counter() - start, memory_MB("VmHWM") - before


def tokenizer_rates(cells: anndata.AnnData, model: SCGPT) -> dict[str, float]:
    """Tokens a second of our tokenizer and of numpy, cell by cell, without the padding."""
    counts = sp.vstack([cells.X] * 20, format="csr")
    ids = model.match(cells).token_ids
    model.tokenizer(counts, ids)
    seconds = []
    for _ in range(5):
        start = time.perf_counter()
        n_tokens = model.tokenizer(counts, ids).n_tokens
        seconds.append(time.perf_counter() - start)
    usual = _usual.UsualCells(cells.X, ids, (model.vocab.cls_id, model.tokenizer.cls_value))
    start = time.perf_counter()
    n_usual = sum(len(usual[i][0]) for i in range(len(usual)))
    by_numpy = n_usual / (time.perf_counter() - start)
    return {"tokens/s": n_tokens / min(seconds), "tokens/s of numpy": by_numpy}


def measure(name: str, n_cells: int, turns: int, model: SCGPT, rates: dict[str, float], halves: bool) -> dict:
    """Run all paths in turns over the cells of one kind."""
    cells = cells_of(name, n_cells)
    lengths = np.diff(cells.X.indptr).astype(float) + 1
    ids = model.match(cells).token_ids
    usual = _usual.UsualNetwork(model.module.network).eval()
    batches = _usual.UsualCells(cells.X, ids, (model.vocab.cls_id, model.tokenizer.cls_value))

    def by_usual(size: int) -> np.ndarray:
        return torch.cat(list(_usual.embeddings(usual, _usual.loader(batches, size)))).numpy()

    def by_ours(precision: str) -> np.ndarray:
        return model.get_latent_representation(cells, precision=precision, progress_bar=False)

    paths = {f"usual, batches of {size}": lambda size=size: by_usual(size) for size in BATCH_SIZES}
    for precision in ("float32", "bfloat16")[: 1 + halves]:
        paths[f"ours, {precision}"] = lambda precision=precision: by_ours(precision)
    model.get_latent_representation(cells[:4].copy(), progress_bar=False)
    runs: dict[str, list[tuple[float, float]]] = {path: [] for path in paths}
    reference, cosines = None, {}
    for _ in range(turns):
        for path, function in paths.items():
            embedding, seconds, megabytes = peak_of(function)
            runs[path].append((seconds, megabytes))
            reference = embedding if reference is None else reference
            cosines[path] = float((embedding * reference).sum(1).min())
            print(f"{name}: {path}: {seconds:.1f} s", flush=True)
    rows = []
    for path, of_path in runs.items():
        seconds, megabytes = np.median(np.array(of_path), axis=0)
        rate = rates["bfloat16" if "bfloat16" in path else "float32"]
        rows.append(
            {
                "cells": name,
                "path": path,
                "cells/s": n_cells / seconds,
                "tokens/s": float(lengths.sum()) / seconds,
                "share of the machine": flops(lengths, model.module.network.config) / seconds / rate,
                "peak MB": megabytes,
                "min cosine": cosines[path],
            }
        )
    fastest = max(r["cells/s"] for r in rows if "usual" in r["path"])
    for row in rows:
        row["times the usual"] = row["cells/s"] / rows[0]["cells/s"]
        row["times its best"] = row["cells/s"] / fastest
    quantiles = np.percentile(lengths, [0, 50, 100]).tolist()
    return {"cells": name, "n_cells": n_cells, "tokens of a cell": quantiles, "rows": rows} | tokenizer_rates(cells, model)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few cells and one turn; nothing is kept")
    parser.add_argument("--json", type=Path, help="write the results to this file, too")
    parser.add_argument("--cells", action="append", choices=CELLS, help="kinds of cells; all by default")
    parser.add_argument("--turns", type=int, help="how often each path is run")
    parser.add_argument("--all", action="store_true", help="bfloat16 even where the machine has none")
    args = parser.parse_args()
    turns = args.turns or (1 if args.quick else 2)
    model = random_model()
    native = has_bfloat16(torch.device("cpu"))
    rates = {"float32": matmul_rate(torch.float32)}
    if native or args.all:
        rates["bfloat16"] = matmul_rate(torch.bfloat16)
    results = [
        measure(name, CELLS[name] // 16 if args.quick else CELLS[name], turns, model, rates, native or args.all)
        for name in args.cells or CELLS
    ]
    about = {"machine": machine(), "threads": torch.get_num_threads(), "bfloat16 is native": native}
    about |= {"GFLOP/s of products": {name: rate / 1e9 for name, rate in rates.items()}, "seed": 0, "turns": turns}
    print(json.dumps(about, indent=1))
    print(pd.DataFrame([row for result in results for row in result["rows"]]).round(4).to_string(index=False))
    print(pd.DataFrame(results).drop(columns="rows").to_string(index=False))
    result = about | {"results": results}
    if args.json:
        args.json.write_text(json.dumps(result, indent=1) + "\n")
    if not (args.quick or args.cells):
        keep(RESULTS / "embed.json", result)


if __name__ == "__main__":
    main()
