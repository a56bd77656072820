"""A small model pretrained on the cells at hand that are under permissive terms, and what it predicts of unknown genes.

    python benchmarks/mini.py corpus             # write pretraining/corpus.zarr; seconds
    scgpt pretrain --config benchmarks/mini.yaml # an hour on one core
    python benchmarks/mini.py score              # errors on test cells, kept in benchmarks/results/mini.json
    python benchmarks/mini.py pack               # put the model into the package, with its card

The test cells of ``benchmarks/splits`` are not in the corpus, neither to train on nor to validate on. Of the others one in
twenty, by a hash of its name, is held out for validation. Scores of ``gen`` stand beside those of two predictors that know
more than a cell's other genes: the mean bin of each gene over training cells, and that of each gene and cell type.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import tempfile
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import _data
import _runs
import anndata
import numpy as np
import pandas as pd
import torch

import scgpt
from scgpt import hub
from scgpt.corpus import Corpus, build
from scgpt.data import Cells, mark_unknown
from scgpt.model import SCGPT
from scgpt.pretraining import PretrainingConfig

FOLDER = Path("pretraining")
PACKAGED = Path(scgpt.__file__).parent / "hub" / "mini"
SCORES = _runs.RESULTS / "mini.json"
SOURCES = ("pbmc_facs", "pbmc_10k_mosaic", "bmmc_cite_d2", "bmmc_cite_d5", "bmmc_multiome_a", "sc_mixology")
TYPED = ("pbmc_facs", "bmmc_cite_d2", "bmmc_cite_d5", "bmmc_multiome_a", "sc_mixology")  # those with cell types
HELD_OUT = 20  # one cell in so many
ORIGINS = {
    "pbmc_facs": "blood cells sorted by flow cytometry, 10x; Zheng 2017",
    "pbmc_10k_mosaic": "blood cells, 10x Genomics public data (pbmc10k, pbmc5k), CC BY 4.0",
    "bmmc_cite_d2": "bone marrow, CITE-seq; Luecken 2021, GSE194122",
    "bmmc_cite_d5": "bone marrow, CITE-seq; Luecken 2021, GSE194122",
    "bmmc_multiome_a": "bone marrow, 10x Multiome; Luecken 2021, GSE194122",
    "sc_mixology": "five lung-cancer cell lines, CEL-seq2 and Drop-seq; Tian 2019, GSE118767",
}
ABOUT = hub.ModelCard(license="bsd-3-clause", tissues=("blood", "bone marrow", "lung cancer cell lines"))
CARD = """{header}
# scgpt-mini

A small scGPT that is part of the package: `SCGPT.from_pretrained("mini")`. It is for first steps, tests and small data,
and no substitute for the authors' models, which saw thousands of times as many cells. The weights are under the license of
the package.

- Network: {sizes}; pre-norm. It knows {genes:,} genes, by their symbols.
- Objectives: `gen` (gene prompt, `gepc`, cell prompt with all genes unknown) and `zero`.
- {cells:,} cells to train on, {held_out} others for validation; test cells of `benchmarks/splits` are in neither
  (`corpus.json` has a hash of the cells of each file; a test makes it anew).
- {steps:,} steps of {batch} cells, {epochs} epochs, about {minutes:.0f} minutes on one core of {cpu}.
- Made by `scgpt pretrain --config benchmarks/mini.yaml`; `benchmarks/mini.py` makes its corpus and this card.

| data set | what it is | cells to train on |
|:--|:--|--:|
{lines}

Loss on the validation cells at the end (bins of expression, squared error; `zero` in nats a gene):

| objective | loss |
|:--|--:|
{losses}

Squared error of the bins of unknown genes on test cells, half of each cell's genes unknown. The means are over training
cells; that of type and gene knows the true type of the cell:

{scores}

The cells are of few donors and tissues and of four protocols. What it makes of other tissues, other species, or nuclei is
not known. Bins are of expressed genes only: values tell how a gene ranks in its cell, not how much there is of it.
"""


def cells_of(name: str) -> anndata.AnnData:
    """Counts of a data set under gene symbols, without its test cells."""
    cells = _data.load_genes(name)
    cells = cells[~cells.obs_names.isin(_data.test_cells(name))].copy()
    return anndata.AnnData(cells.X, obs=cells.obs[[]], var=cells.var[[]])


def numbers_of(names: Iterable[str]) -> np.ndarray:
    """A number of each cell, by its name."""
    return np.array([int(hashlib.sha256(name.encode()).hexdigest()[:8], 16) for name in names])


def is_held_out(names: Iterable[str]) -> np.ndarray:
    """Which cells are for validation."""
    return numbers_of(names) % HELD_OUT == 0


def make_corpus(out: Path, sources: Iterable[str] = SOURCES, n_cells: int | None = None) -> Corpus:
    """Build the corpus; file ``x.h5ad`` of it has the training cells of data set ``x``, ``x_held_out.h5ad`` the others.

    With ``n_cells`` it has so many training cells: those of a smaller corpus are among those of a larger one.
    """
    data = {name: cells_of(name) for name in sources}
    numbers = {name: numbers_of(cells.obs_names) for name, cells in data.items()}
    of_training = np.sort(np.concatenate([n[n % HELD_OUT != 0] for n in numbers.values()]))
    highest = of_training[-1 if n_cells is None else n_cells - 1]
    with tempfile.TemporaryDirectory() as folder:
        files: dict[bool, list[Path]] = {False: [], True: []}
        for name, cells in data.items():
            held_out = numbers[name] % HELD_OUT == 0
            for part, chosen in ((True, held_out), (False, ~held_out & (numbers[name] <= highest))):
                files[part].append(Path(folder) / f"{name}{'_held_out' * part}.h5ad")
                cells[chosen].copy().write_h5ad(files[part][-1])
        return build(files[False], out, held_out=files[True], overwrite=True)


def cells_in(corpus: Corpus) -> dict[str, dict[str, int | str]]:
    """Number and hash of the cells of each file of a corpus."""
    files = corpus.obs().astype(str).groupby("file")["cell"]
    return {name: {"cells": len(cells), "sha256": _data.digest(cells)} for name, cells in files}


def pack(run: Path, corpus: Corpus) -> None:
    """Put the model of a run into the package, with its card and what it was trained on."""
    shutil.rmtree(PACKAGED, ignore_errors=True)
    shutil.copytree(run / "model", PACKAGED)
    files = cells_in(corpus)
    (PACKAGED / "corpus.json").write_text(json.dumps(files, indent=1) + "\n")
    log = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    last = {key: value for line in log for key, value in line.items()}
    speed = [line["cells_per_s"] for line in log if "cells_per_s" in line]
    settings = PretrainingConfig.from_yaml(run / "config.yaml")
    scores = pd.DataFrame(json.loads(SCORES.read_text())["errors"]).round(1)
    held_out = sum(entry["cells"] for name, entry in files.items() if name.endswith("_held_out.h5ad"))
    minutes = corpus.n_cells() * settings.max_epochs / (len(speed) / sum(1 / s for s in speed)) / 60
    sizes = ", ".join(f"{n} {settings.network[n]}" for n in ("d_model", "n_layers", "n_heads", "d_feed_forward"))
    lines = "\n".join(
        f"| {name.removesuffix('.h5ad')} | {ORIGINS[name.removesuffix('.h5ad')]} | {entry['cells']:,} |"
        for name, entry in files.items()
        if not name.endswith("_held_out.h5ad")
    )
    (PACKAGED / "README.md").write_text(
        CARD.format(
            header=ABOUT.header(hub.read(PACKAGED)), genes=len(corpus.vocab.genes), sizes=sizes, lines=lines, cells=corpus.n_cells(), held_out=held_out,
            steps=last["step"], batch=settings.batch_size, epochs=settings.max_epochs, minutes=minutes,
            cpu=_runs.machine()["cpu"], scores=scores.to_markdown(),
            losses="\n".join(f"| {name.removesuffix('_validation')} | {last[name]:.4g} |" for name in sorted(last)
                             if name.endswith("_validation") or name == "validation_loss"),
        )
    )  # fmt: skip


def errors(model: SCGPT, name: str) -> dict[str, float]:
    """Mean squared error of the bins of unknown genes, over the test cells of a data set that has cell types.

    Half of the genes of each cell are unknown. ``gene mean`` predicts the mean bin of the gene in the training cells that
    express it, ``type and gene mean`` that in those of the cell's own, true, type.
    """
    cells = _data.load_genes(name)
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


def score(model: SCGPT) -> pd.DataFrame:
    """Errors of all predictors on the test cells of all data sets, kept as JSON."""
    table = pd.DataFrame({name: errors(model, name) for name in TYPED})
    _runs.keep(SCORES, {"errors": table.to_dict(), "machine": _runs.machine()})
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="what", required=True)
    commands.add_parser("corpus").add_argument("--out", type=Path, default=FOLDER / "corpus.zarr")
    commands.add_parser("score").add_argument("--model", type=Path, default=FOLDER / "run" / "model")
    commands.add_parser("pack")
    args = parser.parse_args()
    if args.what == "corpus":
        print(make_corpus(args.out))
        return
    if args.what == "pack":
        pack(FOLDER / "run", Corpus(FOLDER / "corpus.zarr"))
        return
    print(score(SCGPT.from_pretrained(args.model)).round(1).to_markdown())


if __name__ == "__main__":
    main()
