"""The data sets of the benchmarks and their test cells; every benchmark reads both from here.

``python benchmarks/x.py`` puts this folder on the path, so ``import _data`` works in every script beside this one.
"""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Iterable
from pathlib import Path

import anndata
import mudata
import numpy as np
import pandas as pd
import scanpy as sc

HERE = Path(__file__).parent
FOLDER = HERE.parents[1] / "shared" / "data"
SPLITS = HERE / "splits"
IN_SCANPY = "pbmc68k_reduced"


def available(folder: Path = FOLDER) -> list[str]:
    """Names of the data sets that can be loaded."""
    return sorted([IN_SCANPY, *(path.stem for path in folder.glob("*.h5[am][du]"))])


def load(name: str, folder: Path = FOLDER) -> anndata.AnnData | mudata.MuData:
    """Read a data set: MuData if it has several modalities."""
    if name == IN_SCANPY:
        return _pbmc68k_reduced()
    if (path := folder / f"{name}.h5ad").exists():
        return anndata.read_h5ad(path)
    if (path := folder / f"{name}.h5mu").exists():
        with warnings.catch_warnings():
            # A gene and a protein may have one name; they are told apart by their modality.
            warnings.filterwarnings("ignore", message="var_names are not unique")
            return mudata.read_h5mu(path)
    raise FileNotFoundError(
        f"There is no data set {name!r} in {folder}, where the benchmarks look for it. "
        f"At hand: {', '.join(available(folder))}."
    )


def load_genes(name: str, folder: Path = FOLDER) -> anndata.AnnData:
    """Read the genes of a data set, under their symbols where it tells these."""
    cells = load(name, folder)
    cells = cells if isinstance(cells, anndata.AnnData) else cells.mod["rna"]
    if "symbol" in cells.var:
        cells.var_names = cells.var["symbol"].astype(str)
    cells.var_names_make_unique()
    return cells


def test_cells(name: str, splits: Path = SPLITS) -> pd.Index:
    """Ids of the cells that no training may see, in sorted order."""
    return pd.Index(read_split(name, splits)["test_cells"])


def is_test(name: str, cells: anndata.AnnData | mudata.MuData, splits: Path = SPLITS) -> np.ndarray:
    """Which cells of a whole data set, in its order, are test cells."""
    check_ids(cells.obs_names, split := read_split(name, splits))
    return cells.obs_names.isin(split["test_cells"])


def read_split(name: str, splits: Path = SPLITS) -> dict:
    """Read all that the split file of a data set says."""
    path = splits / f"{name}.json"
    if not path.exists():
        known = ", ".join(sorted(path.stem for path in splits.glob("*.json")))
        raise ValueError(f"The data set {name!r} has no split. Those that have one: {known}.")
    return json.loads(path.read_text())


def check_ids(ids: pd.Index, split: dict) -> None:
    """Raise if these are not all the cells that the split was made for."""
    if not ids.is_unique or digest(ids) != split["sha256_of_ids"]:
        raise ValueError(
            f"These are not the cells that the split of {split['data']!r} was made for ({len(ids)} here, "
            f"{split['n_cells']} there; their names differ). Ask for the test cells before cells are filtered or renamed."
        )


def digest(ids: Iterable[str]) -> str:
    """Sha256 of the sorted ids, one a line."""
    return hashlib.sha256("\n".join(sorted(ids)).encode()).hexdigest()


def _pbmc68k_reduced() -> anndata.AnnData:
    # .X of the data set is scaled, and its PCA has seen all cells: keep the log-normalised values and the types.
    whole = sc.datasets.pbmc68k_reduced()
    cells = anndata.AnnData(whole.raw.X, obs=whole.obs[["bulk_labels"]].copy(), var=whole.raw.var.copy())
    cells.uns["bulk_labels_colors"] = whole.uns["bulk_labels_colors"]
    return cells
