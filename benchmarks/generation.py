"""Expression that a pretrained model generates, against cells that it never saw.

``scgpt-mini``, in whose training all genes are unknown in every second pass, generates

- pseudo-cells from cell prompts: as many of each type as it has test cells, each after the embedding of a training cell;
- the same from the cells' types alone: one cell after the mean embedding of the type's training cells, so without variance;
- half of the genes of each test cell from the other half (gene prompt).

From cells and genes it does so with the genes expressed that more likely are than not, and ``drawn``.

Types of 50 cells or more are asked, over genes that one in twenty of these test cells expresses, in log-normalised units. Told are

- ``own type``: for how many types the mean of what was generated correlates better with the mean of the type's own test
  cells than with that of any other type, once the mean over types is taken off each gene; and the same of the means
  themselves, ``own type, raw``;
- ``variance``: correlation over genes between the variances of generated and test cells, and their ratio, the median gene;
- ``gene-gene``: correlation between the gene-gene correlations of generated and test cells, of the 200 most variable
  genes of test cells.

A mean can be copied: the same is told of ``training cells``, drawn at random from the type, which is as good as it gets, and of
``type mean``, each cell replaced by the mean of the training cells of its type.

    python benchmarks/generation.py                  # minutes
    python benchmarks/generation.py --quick --data sc_mixology
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import _data
import _runs
import anndata
import numpy as np
import pandas as pd
import scanpy as sc
import scipy.sparse as sp

import scgpt
from scgpt.model import SCGPT

DATA = ("pbmc_facs", "bmmc_cite_d2", "bmmc_cite_d5", "sc_mixology")
LABEL = "label"
FEWEST = 50  # cells of a type
SHARE = 0.05  # of the test cells that express a gene
N_VARIABLE = 200
QUICK_CELLS = 20


def load(name: str) -> tuple[anndata.AnnData, anndata.AnnData]:
    """Training and test cells of a data set, log-normalised, of types with enough cells."""
    cells = _data.load_genes(name)
    key = next(key for key in ("cell_type", "cell_line") if key in cells.obs)
    cells = anndata.AnnData(sp.csr_matrix(cells.X, dtype=np.float32), cells.obs[[key]].astype(str), cells.var[[]])
    cells.obs.columns = [LABEL]
    often = cells.obs[LABEL].value_counts()
    cells = cells[cells.obs[LABEL].isin(often.index[often >= FEWEST])].copy()
    sc.pp.normalize_total(cells, target_sum=1e4)
    sc.pp.log1p(cells)
    test = cells.obs_names.isin(_data.test_cells(name))
    return cells[~test].copy(), cells[test].copy()


def drawn(train: anndata.AnnData, types: pd.Series, seed: int) -> np.ndarray:
    """Rows of training cells, one of its type for each test cell."""
    random = np.random.default_rng(seed)
    return np.array([random.choice(np.flatnonzero((train.obs[LABEL] == of).to_numpy())) for of in types])


def from_cells(
    model: SCGPT, train: anndata.AnnData, test: anndata.AnnData, genes: pd.Index, seed: int, draw: bool = False
) -> np.ndarray:
    """Pseudo-cells, each after a training cell of the type of a test cell."""
    prompts = train[drawn(train, test.obs[LABEL], seed)].copy()
    prompts.obs_names_make_unique()
    return scgpt.tl.generate(prompts, model=model, prompt="cell", draw=draw, progress_bar=False)[:, genes].X


def drawn_from_cells(
    model: SCGPT, train: anndata.AnnData, test: anndata.AnnData, genes: pd.Index, seed: int
) -> np.ndarray:
    """The same with what each cell expresses drawn."""
    return from_cells(model, train, test, genes, seed, draw=True)


def from_types(model: SCGPT, train: anndata.AnnData, test: anndata.AnnData, genes: pd.Index, seed: int) -> np.ndarray:
    """For each test cell the one pseudo-cell of its type."""
    pseudo = scgpt.tl.generate(train, model=model, groupby=LABEL, progress_bar=False)[:, genes]
    rows = {of: i for i, of in enumerate(pseudo.obs[LABEL])}
    return pseudo.X[[rows[of] for of in test.obs[LABEL]]]


def from_genes(
    model: SCGPT, train: anndata.AnnData, test: anndata.AnnData, genes: pd.Index, seed: int, draw: bool = False
) -> np.ndarray:
    """Genes of test cells, each half from the other."""
    half = np.random.default_rng(seed).permutation(test.n_vars) < test.n_vars / 2
    values = pd.DataFrame(0.0, test.obs_names, test.var_names)
    for asked in (test.var_names[half], test.var_names[~half]):
        made = scgpt.tl.generate(test, model=model, genes=asked, draw=draw, progress_bar=False)
        values[made.var_names] = made.X
    return values[genes].to_numpy()


def drawn_from_genes(
    model: SCGPT, train: anndata.AnnData, test: anndata.AnnData, genes: pd.Index, seed: int
) -> np.ndarray:
    """The same with what each cell expresses drawn."""
    return from_genes(model, train, test, genes, seed, draw=True)


def training_cells(
    model: SCGPT, train: anndata.AnnData, test: anndata.AnnData, genes: pd.Index, seed: int
) -> np.ndarray:
    return train[drawn(train, test.obs[LABEL], seed), genes].X.toarray()


def type_mean(model: SCGPT, train: anndata.AnnData, test: anndata.AnnData, genes: pd.Index, seed: int) -> np.ndarray:
    means = {of: train[train.obs[LABEL] == of, genes].X.toarray().mean(0) for of in train.obs[LABEL].unique()}
    return np.stack([means[of] for of in test.obs[LABEL]])


METHODS: dict[str, Callable] = {
    "cell prompts": from_cells,
    "cell prompts, drawn": drawn_from_cells,
    "type prompts": from_types,
    "gene prompts": from_genes,
    "gene prompts, drawn": drawn_from_genes,
    "training cells": training_cells,
    "type mean": type_mean,
}


def compared(made: np.ndarray, true: np.ndarray, types: np.ndarray) -> dict[str, float | str]:
    """Scores of ``(n_cells, n_genes)`` values against those of test cells, row by row of the same type."""
    names = np.unique(types)
    means = [np.stack([x[types == of].mean(0) for of in names]) for x in (made, true)]
    result: dict[str, float | str] = {}
    for name, (a, b) in {"own type": [x - x.mean(0) for x in means], "own type, raw": means}.items():
        matrix = np.corrcoef(a, b)[: len(names), len(names) :]
        result[name] = f"{int((matrix.argmax(1) == np.arange(len(names))).sum())} of {len(names)}"
    variance = made.var(0), true.var(0)
    if not variance[0].any():
        return result
    result["variance, correlation"] = float(np.corrcoef(*variance)[0, 1])
    result["variance, ratio"] = float(np.median(variance[0] / variance[1]))
    variable = np.argsort(-variance[1])[:N_VARIABLE]
    variable = variable[variance[0][variable] > 0]
    upper = np.triu_indices(len(variable), 1)
    result["gene-gene"] = float(np.corrcoef(*(np.corrcoef(x[:, variable].T)[upper] for x in (made, true)))[0, 1])
    result["genes that vary"] = f"{len(variable)} of {min(N_VARIABLE, true.shape[1])}"
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few cells, to see that it runs; nothing is kept")
    parser.add_argument("--data", action="append", choices=DATA)
    parser.add_argument("--model", default="mini", help="name or folder of another model; nothing is kept")
    args = parser.parse_args()
    model = SCGPT.from_pretrained(args.model)
    rows = []
    for name in args.data or DATA:
        train, test = load(name)
        if args.quick:
            test = test[np.random.default_rng(0).permutation(test.n_obs)[:QUICK_CELLS]].copy()
        genes = test.var_names[np.asarray((test.X > 0).mean(0)).ravel() >= SHARE]
        genes = genes[genes.isin(model.vocab.genes)]
        for method, make in METHODS.items():
            made = make(model, train, test, genes, seed=0)
            scores = compared(made, test[:, genes].X.toarray(), test.obs[LABEL].to_numpy())
            rows.append({"data": name, "method": method, "test cells": test.n_obs, "genes": len(genes)} | scores)
            print(rows[-1], flush=True)
    table = pd.DataFrame(rows)
    print(table.round(3).to_markdown(index=False))
    if not (args.quick or args.data or args.model != "mini"):
        _runs.keep(_runs.RESULTS / "generation.json", {"scores": rows, "machine": _runs.machine()})


if __name__ == "__main__":
    main()
