"""Which way to find nearest cells ``scgpt.ReferenceIndex`` should use: recall, memory, and rates of building and asking.

Vectors of 512 dimensions, of length 1, of two kinds:

- ``mixture``: 1,000 centres drawn evenly on the sphere; a vector is a centre plus Gaussian noise of a length of about 0.5,
  scaled to length 1. Within a cluster nothing but noise tells near from far: hard for a compressed index.
- ``cells``: the first 512 principal components of the cells of kang_8donors (2,000 highly variable genes), scaled to
  length 1; a vector is a cell drawn at random plus Gaussian noise of a length of about 0.3, scaled to length 1. They stand
  for embeddings of a pretrained model, of which no weights were at hand.

Recall is the share of the ten nearest vectors by exact cosine that are among the ten found, over 500 queries drawn apart.
Memory is the size of the saved index; ``resident MB`` is what a process grows by that loads it and answers the queries
(of vectors mapped from a file, only what was read). Each method runs in a process of its own, on one thread. At the full
size of 1,000,000 only exact search, the index that was chosen and one of a third of its size run.

    python benchmarks/index.py                    # 100,000 vectors, all methods; then 1,000,000
    python benchmarks/index.py --quick            # 20,000 vectors, in a minute
    python benchmarks/index.py --n 100000 --data cells
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import _data
import numpy as np
import pandas as pd
from _runs import machine

RESULTS = Path(__file__).parent / "results" / "index"
N_DIMS, N_CENTRES, N_QUERIES, K = 512, 1000, 500, 10
NOISE = {"mixture": 0.5, "cells": 0.3}
PORTION = 16_384


def unit(x: np.ndarray) -> np.ndarray:
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)


def centres(kind: str) -> np.ndarray:
    if kind == "mixture":
        return unit(np.random.default_rng(0).standard_normal((N_CENTRES, N_DIMS)))
    import scanpy as sc
    from sklearn.decomposition import PCA

    adata = _data.load("kang_8donors")
    sc.pp.normalize_total(adata)
    sc.pp.log1p(adata)
    sc.pp.highly_variable_genes(adata, n_top_genes=2000, subset=True)
    return unit(PCA(N_DIMS, svd_solver="covariance_eigh").fit_transform(adata.X.toarray()))


def draw(kind: str, start: np.ndarray, n: int, seed: int) -> Iterator[np.ndarray]:
    rng = np.random.default_rng(seed)
    for first in range(0, n, PORTION):
        m = min(PORTION, n - first)
        noise = rng.standard_normal((m, N_DIMS), dtype=np.float32) * (NOISE[kind] / np.sqrt(N_DIMS))
        yield unit(start[rng.integers(len(start), size=m)] + noise)


def prepare(kind: str, n: int, folder: Path) -> None:
    """Write vectors, queries and the nearest vectors of each query."""
    start = centres(kind)
    vectors = np.lib.format.open_memmap(folder / "vectors.npy", "w+", np.float32, (n, N_DIMS))
    queries = np.concatenate(list(draw(kind, start, N_QUERIES, 2)))
    found = np.empty((N_QUERIES, 0)), np.empty((N_QUERIES, 0), np.int64)
    first = 0
    for part in draw(kind, start, n, 1):
        vectors[first : first + len(part)] = part
        rows = np.broadcast_to(np.arange(first, first + len(part)), (N_QUERIES, len(part)))
        cosines, rows = np.hstack([found[0], queries @ part.T]), np.hstack([found[1], rows])
        best = np.argpartition(-cosines, K - 1, axis=1)[:, :K]
        found = np.take_along_axis(cosines, best, 1), np.take_along_axis(rows, best, 1)
        first += len(part)
    vectors.flush()
    np.save(folder / "queries.npy", queries)
    np.save(folder / "truth.npy", found[1])


# Methods: each builds, saves, and returns how to load it and ask it.
type Ask = Callable[[np.ndarray], np.ndarray]


def ours(exact: bool, n_probes: int = 32):
    def run(vectors: np.ndarray, path: Path) -> Callable[[], Ask]:
        import anndata

        import scgpt

        adata = anndata.AnnData(obsm={"X": vectors}, shape=(len(vectors), 0))
        scgpt.ReferenceIndex.from_anndata(adata, use_rep="X", exact=exact).save(path)

        def load() -> Ask:
            index = scgpt.ReferenceIndex.load(path)
            return lambda queries: index.query(queries, K, n_probes=n_probes).rows

        return load

    return run


def faiss_factory(text: str, n_probes: int = 32, **parameters: int):
    def run(vectors: np.ndarray, path: Path) -> Callable[[], Ask]:
        import faiss

        index = faiss.index_factory(N_DIMS, text.format(lists=int(len(vectors) ** 0.5)), faiss.METRIC_INNER_PRODUCT)
        sample = np.sort(np.random.default_rng(0).choice(len(vectors), min(len(vectors), 65_536), replace=False))
        index.train(np.ascontiguousarray(vectors[sample]))
        for first in range(0, len(vectors), PORTION):
            index.add(np.ascontiguousarray(vectors[first : first + PORTION]))
        faiss.write_index(index, str(path))

        def load() -> Ask:
            index = faiss.read_index(str(path))
            inner = faiss.downcast_index(getattr(index, "base_index", index))
            if hasattr(inner, "nprobe"):
                inner.nprobe = n_probes
            for name, value in parameters.items():
                setattr(index, name, value)
            if hasattr(inner, "hnsw"):
                inner.hnsw.efSearch = 128
            return lambda queries: index.search(queries, K)[1]

        return load

    return run


def hnsw(vectors: np.ndarray, path: Path) -> Callable[[], Ask]:
    import hnswlib

    index = hnswlib.Index("ip", N_DIMS)
    index.init_index(len(vectors), M=16, ef_construction=100)
    index.add_items(vectors, num_threads=1)
    index.save_index(str(path))

    def load() -> Ask:
        index = hnswlib.Index("ip", N_DIMS)
        index.load_index(str(path))
        index.set_ef(128)
        return lambda queries: index.knn_query(queries, K, num_threads=1)[0]

    return load


def nn_descent(vectors: np.ndarray, path: Path) -> Callable[[], Ask]:
    import pynndescent

    index = pynndescent.NNDescent(np.array(vectors), metric="dot", n_jobs=1, random_state=0)
    index.prepare()
    graph = index._search_graph
    path.write_bytes(b"")
    os.truncate(path, index._raw_data.nbytes + graph.data.nbytes + graph.indices.nbytes + graph.indptr.nbytes)
    index.query(vectors[:K], K)  # compiles
    return lambda: lambda queries: index.query(queries, K)[0]  # it saves itself by pickle alone


METHODS = {
    "exact": ours(exact=True),
    "ReferenceIndex": ours(exact=False),
    "ReferenceIndex, 8 probes": ours(exact=False, n_probes=8),
    "ReferenceIndex, 128 probes": ours(exact=False, n_probes=128),
    "faiss IVF, SQ8 of residuals": faiss_factory("IVF{lists},SQ8"),
    "faiss IVF, SQ6": faiss_factory("IVF{lists},SQ6"),
    "faiss IVF, SQ4": faiss_factory("IVF{lists},SQ4"),
    "faiss IVF, PQ64 re-ranked by SQ8": faiss_factory("IVF{lists},PQ64x4fs,Refine(SQ8)", k_factor=20),
    "faiss IVF, RaBitQ re-ranked by SQ8": faiss_factory("IVF{lists},RaBitQ,Refine(SQ8)", k_factor=20),
    "faiss HNSW, SQ8": faiss_factory("HNSW16_SQ8"),
    "hnswlib": hnsw,
    "pynndescent": nn_descent,
}
# The others are too large or have too low a recall at 100,000 already, or would build for an hour.
AT_FULL_SIZE = ["exact", "ReferenceIndex", "faiss IVF, SQ4"]
QUICK = ["exact", "ReferenceIndex", "faiss IVF, SQ4"]


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def measure(name: str, folder: Path) -> dict:
    """Build, save, load and ask one method in this process."""
    vectors = np.load(folder / "vectors.npy", mmap_mode="r")
    queries, truth = np.load(folder / "queries.npy"), np.load(folder / "truth.npy")
    with tempfile.TemporaryDirectory(dir=folder) as own:
        path = Path(own) / "index"
        start = time.perf_counter()
        load = METHODS[name](vectors, path)
        built = time.perf_counter() - start
        files = list(path.iterdir()) if path.is_dir() else [path]
        size = sum(file.stat().st_size for file in files)
        before = resident_bytes()
        ask = load()
        ask(queries[:1])
        start = time.perf_counter()
        rows = ask(queries)
        asked = time.perf_counter() - start
        resident = resident_bytes() - before
    hits = [len(np.intersect1d(a, b)) for a, b in zip(rows, truth, strict=True)]
    return {
        "method": name,
        "recall@10": float(np.mean(hits)) / K,
        "MB": size / 1e6,
        "resident MB": resident / 1e6,
        "build s": built,
        "vectors built per s": len(vectors) / built,
        "queries per s": N_QUERIES / asked,
    }


def run(kind: str, n: int, methods: list[str]) -> list[dict]:
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        prepare(kind, n, Path(folder))
        for name in methods:
            command = [sys.executable, __file__, "--method", name, "--folder", folder]
            one_thread = os.environ | {"OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
            shown = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=one_thread).stdout
            rows.append({"data": kind, "n": n} | json.loads(shown.splitlines()[-1]))
            print(pd.DataFrame(rows[-1:]).round(3).to_string(index=False, header=len(rows) == 1), flush=True)
    return rows


def versions() -> dict[str, str]:
    found = {}
    for name in ("faiss-cpu", "hnswlib", "pynndescent", "numpy"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="20,000 vectors and few methods; nothing is kept")
    parser.add_argument("--json", type=Path, help="write the results to this file, too")
    parser.add_argument("--data", choices=NOISE, help="one kind of vectors alone")
    parser.add_argument("--n", type=int, action="append", help="how many vectors; may be given several times")
    parser.add_argument(
        "--method", action="append", choices=METHODS, help="these methods alone; may be given several times"
    )
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)  # one of them, in its own process
    args = parser.parse_args()
    if args.folder:
        print(json.dumps(measure(args.method[0], args.folder)))
        return
    shown = []
    for n in args.n or ([20_000] if args.quick else [100_000, 1_000_000]):
        for kind in [args.data] if args.data else ["mixture"] if args.quick else list(NOISE):
            methods = args.method or (QUICK if args.quick else list(METHODS) if n <= 100_000 else AT_FULL_SIZE)
            here = [name for name in methods if name != "hnswlib" or "hnswlib" in versions()]
            rows = run(kind, n, here)
            shown += rows
            result = {"machine": machine(), "versions": versions(), "seed": 0, "results": rows}
            if not args.quick and not args.method:
                RESULTS.mkdir(parents=True, exist_ok=True)
                (RESULTS / f"{kind}_{n}.json").write_text(json.dumps(result, indent=1) + "\n")
    print(pd.DataFrame(shown).round(3).to_string(index=False))
    if args.json:
        result = {"machine": machine(), "versions": versions(), "seed": 0, "results": shown}
        args.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
