"""Name the test cells of every data set in ``benchmarks/splits/``. Done once: a split is never changed after.

    python benchmarks/_make_splits.py             # or: ... _make_splits.py FOLDER

Files that are there already are compared, never overwritten; one that differs is an error. No random number generator
is used, but the order of hashes of the ids: neither the version of a library nor the order of rows plays a part.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from dataclasses import dataclass
from pathlib import Path

import _data
import anndata
import mudata
import numpy as np
import pandas as pd
import sklearn.model_selection

SEED = 0


@dataclass(frozen=True)
class Fifth:
    """A fifth of the cells, drawn within strata."""

    by: tuple[str, ...]
    shared_with: str | None = None  # a data set with some of the same cells

    def draw(self, obs: pd.DataFrame, folder: Path) -> pd.Index:
        twins = _cells_of(self.shared_with, folder) if self.shared_with else set()
        return draw_fifth(obs[list(self.by)], twins)

    def describe(self) -> dict:
        rule = "a fifth of the cells of every stratum"
        if self.shared_with:
            rule += f"; cells that {self.shared_with} holds too are for training"
        return {"rule": rule, "stratified_by": list(self.by), "seed": SEED}


@dataclass(frozen=True)
class AllBut:
    """Every cell, except those with one of some values in a column."""

    column: str
    values: tuple[str, ...]

    def draw(self, obs: pd.DataFrame, folder: Path) -> pd.Index:
        return obs.index[~obs[self.column].isin(self.values)]

    def describe(self) -> dict:
        return {"rule": f"every cell whose {self.column} is not {' or '.join(self.values)}"}


@dataclass(frozen=True)
class AsInDemo:
    """The cells that benchmarks/demo.py has held out since its first version."""

    by: str

    def draw(self, obs: pd.DataFrame, folder: Path) -> pd.Index:
        _, test = sklearn.model_selection.train_test_split(
            np.arange(len(obs)), test_size=0.2, stratify=obs[self.by], random_state=SEED
        )
        return obs.index[test]

    def describe(self) -> dict:
        rule = "sklearn.model_selection.train_test_split(test_size=0.2), as in benchmarks/demo.py"
        return {"rule": rule, "stratified_by": [self.by], "seed": SEED}


RULES = {
    "asap_pbmc_protein": Fifth(("coarse_cluster", "batch")),
    "bmmc_cite_d2": Fifth(("cell_type", "batch"), shared_with="bmmc_cite_d5"),
    "bmmc_cite_d5": Fifth(("cell_type", "batch"), shared_with="bmmc_cite_d2"),
    "bmmc_multiome_a": Fifth(("cell_type", "batch")),
    "kang_8donors": Fifth(("cell_type", "donor"), shared_with="kang_ifnb"),
    # Each cell type is left out in turn when its response is predicted.
    "kang_ifnb": AllBut("condition", ("control",)),
    # Each perturbation is left out in some split.
    "papalexi_thp1": AllBut("perturbation_multi", ("non-targeting", "unassigned")),
    "pbmc68k_reduced": AsInDemo("bulk_labels"),
    "pbmc_10k_mosaic": Fifth(("batch",)),
    "pbmc_facs": Fifth(("cell_type",)),
    "sc_mixology": Fifth(("cell_line", "batch")),
    "schraivogel_tapseq": AllBut("perturbation_multi", ("non-targeting", "unassigned")),
}


def draw_fifth(strata: pd.DataFrame, for_training: set[str] = frozenset()) -> pd.Index:
    """Draw every fifth cell, counted through the sorted strata; strata of five cells or more give at least one.

    Counting on from one stratum to the next pools those that are too small to be split: with the first column as the
    main one, every value of it gives a fifth of its cells too.
    """
    drawn, seen = [], 0
    for _, cells in strata.groupby(list(strata), observed=True, dropna=False):
        quota = _fifth(seen + len(cells)) - _fifth(seen)
        seen += len(cells)
        drawn += sorted(cells.index.difference(list(for_training)), key=_lot)[:quota]
    return pd.Index(drawn)


def _fifth(n: int) -> int:
    return (n + 2) // 5


def _lot(name: str) -> str:
    return hashlib.sha256(f"{SEED} {name}".encode()).hexdigest()


def _cells_of(name: str, folder: Path) -> set[str]:
    """Names of the cells of a data set; kang_ifnb appends the condition to those of kang_8donors."""
    return {cell.removesuffix("-control") for cell in _data.load(name, folder).obs_names}


def labels(data: anndata.AnnData | mudata.MuData) -> pd.DataFrame:
    """Return the labels of all cells; in MuData those of RNA, which every cell has."""
    return data["rna"].obs.reindex(data.obs_names) if isinstance(data, mudata.MuData) else data.obs


def make(name: str, folder: Path) -> dict:
    """Make the split of one data set."""
    obs, rule = labels(_data.load(name, folder)), RULES[name]
    if not obs.index.is_unique:
        raise ValueError(f"Cells of {name} share a name; a split needs names that identify a cell.")
    test = sorted(rule.draw(obs, folder))
    about = {"data": name, "n_cells": len(obs), "n_test": len(test), "sha256_of_ids": _data.digest(obs.index)}
    return about | rule.describe() | {"test_cells": test}


def write(split: dict, splits: Path) -> str:
    """Write a split where there is none yet, and say what was done."""
    path, text = splits / f"{split['data']}.json", json.dumps(split, indent=1) + "\n"
    if not path.exists():
        path.write_text(text)
        return "written"
    if (old := path.read_text()) == text:
        return "unchanged"
    other = "the data hold other cells" if json.loads(old)["sha256_of_ids"] != split["sha256_of_ids"] else "same cells"
    raise ValueError(
        f"{path.name} is there already and differs ({other}). Splits are never changed: it was left alone."
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, nargs="?", default=_data.FOLDER, help="where the data sets lie")
    parser.add_argument("--out", type=Path, default=_data.SPLITS, help="folder for the splits")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    wrong = [
        f"{name} has no rule in {Path(__file__).name}" for name in _data.available(args.folder) if name not in RULES
    ]
    for name in RULES:
        try:
            split = make(name, args.folder)
            print(
                f"{name:<20} {split['n_test']:>6} of {split['n_cells']:>6} cells  {write(split, args.out)}", flush=True
            )
        except (FileNotFoundError, ValueError) as error:
            wrong.append(f"{name}: {error}")
    print(*wrong, sep="\n", file=sys.stderr, end="\n" if wrong else "")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
