"""How fast a corpus is read from disk and made into tokens: the loader alone, as pretraining uses it.

The cells are made up, of the size of those in an atlas: 60,000 genes, of which about 1,500 are expressed, counts from a
multinomial over genes whose frequencies follow a power law. A cell becomes at most 1,200 tokens. Every file has the genes
in another order, so that no two cells are the same. The first epoch compiles; before each of the others the files are
dropped from the system's cache (``cold``) or not (``warm``). On a machine that is busy with other work the rates by the clock
say little, and those by the processor's time (``tokens/CPU s``, for one core) more: for ``n`` cores up to ``n`` times as much.

    python benchmarks/loader.py                  # 32,768 cells, on as many threads as NUMBA_NUM_THREADS says
    python benchmarks/loader.py --quick          # 8,192 cells
    python benchmarks/loader.py --json FILE --cells 500000 --batch-size 512
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import scipy.sparse as sp
from _runs import RESULTS, keep, machine

from scgpt.corpus import Corpus, build
from scgpt.data import Tokenizer
from scgpt.train import CorpusLoader

N_GENES, CELLS_OF_FILE = 60_000, 16_384


def made_up_cells(n_cells: int, rng: np.random.Generator) -> sp.csr_matrix:
    """Counts of cells whose depths differ as those of droplets do."""
    frequency = np.cumsum(np.arange(1, N_GENES + 1) ** -1.0)
    depth = rng.lognormal(np.log(3_000), 0.5, n_cells).astype(int)
    genes = np.searchsorted(frequency, rng.random(depth.sum(), np.float32) * frequency[-1]).clip(max=N_GENES - 1)
    cells = np.repeat(np.arange(n_cells), depth)
    return sp.csr_matrix((np.ones(len(genes), np.float32), (cells, genes)), shape=(n_cells, N_GENES))


def write_files(n_cells: int, folder: Path) -> list[Path]:
    """Files of made-up cells; one is drawn, the others have its genes in another order."""
    rng = np.random.default_rng(0)
    counts = made_up_cells(min(n_cells, CELLS_OF_FILE), rng)
    files = []
    for first in range(0, n_cells, CELLS_OF_FILE):
        rows = counts[: min(CELLS_OF_FILE, n_cells - first)]
        var = pd.DataFrame(index=[f"G{i}" for i in rng.permutation(N_GENES)])
        files.append(folder / f"{len(files)}.h5ad")
        anndata.AnnData(rows, var=var).write_h5ad(files[-1])
    return files


def drop_from_cache(folder: Path) -> None:
    """Ask the system to forget what it has read of these files."""
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.fdatasync(file.fileno())
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def epoch(loader: CorpusLoader, number: int) -> dict[str, float]:
    """Go through an epoch and time it."""
    loader.sampler.set_epoch(number)
    n_cells = n_tokens = 0
    start, cpu = time.perf_counter(), time.process_time()
    for batch in loader:
        n_cells, n_tokens = n_cells + batch.n_cells, n_tokens + batch.n_tokens
    seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    return {
        "cells/s": n_cells / seconds,
        "tokens/s": n_tokens / seconds,
        "tokens/CPU s": n_tokens / cpu,
        "tokens of a cell": n_tokens / n_cells,
    }


def measure(corpus: Corpus, batch_size: int, epochs: int) -> Iterable[dict]:
    """Time the loader with and without a thread of its own, with masks and without."""
    for mask_share in (0.0, 0.4):
        for prefetch in (0, 4):
            tokenizer = Tokenizer(corpus.vocab, ties="spread")
            loader = CorpusLoader(corpus, tokenizer, batch_size, mask_share=mask_share, prefetch=prefetch)
            epoch(loader, 0)
            for cache in ("cold", "warm"):
                runs = []
                for number in range(1, epochs + 1):
                    if cache == "cold":
                        drop_from_cache(corpus.path)
                    runs.append(epoch(loader, number))
                yield {"masked": mask_share, "thread": bool(prefetch), "cache": cache} | dict(
                    pd.DataFrame(runs).median()
                )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer cells; nothing is kept")
    parser.add_argument("--json", type=Path, help="write the results to this file, too")
    parser.add_argument("--cells", type=int, help="how many cells to make up")
    parser.add_argument("--batch-size", type=int, default=512)
    args = parser.parse_args()
    n_cells = args.cells or (8_192 if args.quick else 32_768)
    with tempfile.TemporaryDirectory() as folder:
        files = write_files(n_cells, Path(folder))
        start = time.perf_counter()
        corpus = build(files, Path(folder) / "corpus.zarr")
        built = time.perf_counter() - start
        size = sum(path.stat().st_size for path in corpus.path.rglob("*") if path.is_file())
        rows = list(measure(corpus, args.batch_size, 1 if args.quick else 3))
    result = {
        "machine": machine() | {name: version(name) for name in ("annbatch", "zarr", "numba")},
        "threads": os.environ.get("NUMBA_NUM_THREADS", str(os.cpu_count())),
        "load": os.getloadavg()[1],
        "seed": 0,
        "cells": n_cells,
        "batch_size": args.batch_size,
        "corpus_MB": size / 1e6,
        "cells_built_per_s": n_cells / built,
        "results": rows,
    }
    print(f"{n_cells} cells, {size / 1e6:.0f} MB, built {n_cells / built:.0f} cells/s")
    print(pd.DataFrame(rows).round(1).to_string(index=False))
    if args.json:
        args.json.write_text(json.dumps(result, indent=1) + "\n")
    if not args.quick:
        keep(RESULTS / "loader.json", result)


if __name__ == "__main__":
    main()
