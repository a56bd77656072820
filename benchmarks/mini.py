"""A small model pretrained on the cells at hand that are under permissive terms, and what it predicts of unknown genes.

    python benchmarks/mini.py corpus             # write mini/corpus.zarr; minutes
    scgpt pretrain --config benchmarks/mini.yaml
    python benchmarks/mini.py score              # print errors on test cells

The test cells of ``benchmarks/splits`` are not in the corpus, neither to train on nor to validate on. Of the others one in
twenty, by a hash of its name, is held out for validation. Scores of ``gen`` stand beside those of two predictors that know
more than a cell's other genes: the mean bin of each gene over training cells, and that of each gene and cell type.
"""

from __future__ import annotations

import argparse
import hashlib
import tempfile
from dataclasses import replace
from pathlib import Path

import _data
import anndata
import numpy as np
import pandas as pd
import torch

from scgpt.corpus import Corpus, build
from scgpt.data import Cells, mark_unknown
from scgpt.model import SCGPT

FOLDER = Path("mini")
SOURCES = ("pbmc_facs", "pbmc_10k_mosaic", "bmmc_cite_d2", "bmmc_cite_d5", "bmmc_multiome_a", "sc_mixology")
TYPED = ("pbmc_facs", "bmmc_cite_d2", "bmmc_cite_d5", "bmmc_multiome_a", "sc_mixology")  # those with cell types
HELD_OUT = 20  # one cell in so many


def cells_of(name: str) -> anndata.AnnData:
    """Counts of a data set under gene symbols, without its test cells."""
    cells = _data.load(name)
    kept = ~_data.is_test(name, cells)
    if not isinstance(cells, anndata.AnnData):
        names = cells.obs_names[kept]
        cells = cells.mod["rna"]
        kept = cells.obs_names.isin(names)
    cells = cells[kept].copy()
    if "symbol" in cells.var:
        cells.var_names = cells.var["symbol"].astype(str)
    cells.var_names_make_unique()
    return anndata.AnnData(cells.X, obs=cells.obs[[]], var=cells.var[[]])


def is_held_out(names: list[str]) -> np.ndarray:
    """Which cells are for validation."""
    return np.array([int(hashlib.sha256(name.encode()).hexdigest()[:8], 16) % HELD_OUT == 0 for name in names])


def make_corpus(out: Path, sources: tuple[str, ...] = SOURCES) -> Corpus:
    """Build the corpus; file ``x.h5ad`` of it has the training cells of data set ``x``, ``x_held_out.h5ad`` the others."""
    with tempfile.TemporaryDirectory() as folder:
        files: dict[bool, list[Path]] = {False: [], True: []}
        for name in sources:
            cells = cells_of(name)
            chosen = is_held_out(list(cells.obs_names))
            for held_out in (False, True):
                files[held_out].append(Path(folder) / f"{name}{'_held_out' * held_out}.h5ad")
                cells[chosen == held_out].copy().write_h5ad(files[held_out][-1])
        return build(files[False], out, held_out=files[True], overwrite=True)


def errors(model: SCGPT, name: str) -> dict[str, float]:
    """Mean squared error of the bins of unknown genes, over the test cells of a data set that has cell types.

    Half of the genes of each cell are unknown. ``gene mean`` predicts the mean bin of the gene in the training cells that
    express it, ``type and gene mean`` that in those of the cell's own, true, type.
    """
    cells = _data.load(name)
    cells = cells if isinstance(cells, anndata.AnnData) else cells.mod["rna"]
    if "symbol" in cells.var:
        cells.var_names = cells.var["symbol"].astype(str)
    cells.var_names_make_unique()
    label = next(key for key in ("cell_type", "cell_line") if key in cells.obs)
    types = cells.obs[label].astype("category").cat.codes.to_numpy()
    test = cells.obs_names.isin(_data.test_cells(name))
    tokens = Cells(cells, model.match(cells).token_ids)

    by_gene, by_type = Means(1, len(model.vocab)), Means(types.max() + 1, len(model.vocab))
    for index in np.array_split(np.flatnonzero(~test), max((~test).sum() // 256, 1)):
        batch = tokens.tokenize(index, model.tokenizer)
        genes, values = batch.gene_ids.numpy(), batch.values.numpy()
        by_gene.add(np.zeros(len(genes), int), genes, values)
        by_type.add(types[index][batch.cell_of_token.numpy()], genes, values)

    squares: dict[str, list[np.ndarray]] = {}
    for index in np.array_split(np.flatnonzero(test), max(test.sum() // 64, 1)):
        batch = mark_unknown(tokens.tokenize(index, model.tokenizer), 0.5)
        unknown = batch.unknown.numpy()
        genes, truth = batch.gene_ids.numpy()[unknown], batch.values.numpy()[unknown]
        with torch.inference_mode():
            out = model.module.network(batch, heads=("gep", "gepc"))
            again = model.module.network(batch, heads=("gep",), cell_prompt=out.cells)
            alone = replace(batch, unknown=torch.ones_like(batch.unknown).index_fill(0, batch.first, False))
            prompt = model.module.network(alone, heads=("gep",), cell_prompt=out.cells)
        known_gene = by_gene.of(np.zeros(len(genes), int), genes)
        type_of_token = types[index][batch.cell_of_token.numpy()[unknown]]
        for predictor, guess in {
            "gene prompt": out.gep.numpy()[unknown],
            "cell embedding and gene (gepc)": out.gepc.numpy()[unknown],
            "cell prompt, with the known genes": again.gep.numpy()[unknown],
            "cell prompt alone": prompt.gep.numpy()[unknown],
            "gene mean": known_gene,
            "type and gene mean": by_type.of(type_of_token, genes, known_gene),
        }.items():
            squares.setdefault(predictor, []).append((guess - truth) ** 2)
    return {name: float(np.concatenate(parts).mean()) for name, parts in squares.items()}


class Means:
    """Mean bin of each gene within groups of cells."""

    def __init__(self, n_groups: int, n_genes: int):
        self.sums, self.counts = np.zeros((n_groups, n_genes)), np.zeros((n_groups, n_genes))

    def add(self, group: np.ndarray, gene: np.ndarray, value: np.ndarray) -> None:
        np.add.at(self.sums, (group, gene), value)
        np.add.at(self.counts, (group, gene), 1)

    def of(self, group: np.ndarray, gene: np.ndarray, otherwise: np.ndarray | float | None = None) -> np.ndarray:
        """Means; of a gene that no cell of the group expresses, those in ``otherwise``, or that of all genes."""
        otherwise = self.sums.sum() / self.counts.sum() if otherwise is None else otherwise
        sums, counts = self.sums[group, gene], self.counts[group, gene]
        return np.where(counts > 0, sums / np.maximum(counts, 1), otherwise)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="what", required=True)
    commands.add_parser("corpus").add_argument("--out", type=Path, default=FOLDER / "corpus.zarr")
    commands.add_parser("score").add_argument("--model", type=Path, default=FOLDER / "run" / "model")
    args = parser.parse_args()
    if args.what == "corpus":
        print(make_corpus(args.out))
        return
    model = SCGPT.from_pretrained(args.model)
    print(pd.DataFrame({name: errors(model, name) for name in TYPED}).round(1).to_markdown())


if __name__ == "__main__":
    main()
