"""Data sets with odd matrices, names, columns and shapes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import anndata
import numpy as np
import pandas as pd

from ._matrices import OTHER, SAME


class Changed(NamedTuple):
    """A data set that was changed.

    Parameters
    ----------
    name
        What was changed.
    adata
        The data set.
    same
        Whether it is still the same cells with the same expression, in the same order.
    """

    name: str
    adata: anndata.AnnData
    same: bool


def change_cells(rng: np.random.Generator, adata: anndata.AnnData, folder: Path) -> Changed:
    """Change the matrix, the names, a column, the shape or the place of a data set; it may stand in a file of a folder."""
    while True:
        adata_ = adata.copy()
        kind = rng.random()
        try:
            if kind < 0.5:
                same = rng.random() < 0.4
                changes = SAME if same else OTHER
                name = list(changes)[rng.integers(len(changes))]
                matrix = changes[name](rng, adata_.X.copy())
                changed = anndata.AnnData(matrix, obs=adata_.obs, var=adata_.var, layers=dict(adata_.layers))
                return Changed(name, changed, same)
            if kind < 0.65:
                name = list(_NAMES)[rng.integers(len(_NAMES))]
                names = _NAMES[name](rng, adata_.var_names)
                adata_.var_names = names
                return Changed(f"genes: {name}", adata_, False)
            if kind < 0.75:
                name = list(_NAMES)[rng.integers(len(_NAMES))]
                adata_.obs_names = _NAMES[name](rng, adata_.obs_names)
                return Changed(f"cells: {name}", adata_, True)
            if kind < 0.9:
                name = list(_SHAPES)[rng.integers(len(_SHAPES))]
                return Changed(name, _SHAPES[name](rng, adata_), False)
            mode = str(rng.choice(["r", "r+"]))
            path = folder / f"{rng.integers(2**62)}.h5ad"
            adata_.write_h5ad(path)
            return Changed(f"backed {mode}", anndata.read_h5ad(path, backed=mode), True)
        except (ValueError, TypeError, AttributeError, NotImplementedError, KeyError):
            pass  # anndata does not hold such data, so nobody can have them: another change


def change_column(rng: np.random.Generator, adata: anndata.AnnData, key: str) -> Changed:
    """Change a column of ``.obs``."""
    adata = adata.copy()
    name = list(COLUMNS)[rng.integers(len(COLUMNS))]
    column = COLUMNS[name](rng, adata.obs[key].astype(str))
    if column is None:
        del adata.obs[key]
    else:
        adata.obs[key] = column
    return Changed(f".obs[{key!r}]: {name}", adata, False)


def _some(rng: np.random.Generator, values: pd.Series | pd.Index, other: Any) -> list[Any]:
    return [other if rng.random() < 0.2 else value for value in values]


_NAMES: dict[str, Callable[[np.random.Generator, pd.Index], Any]] = {
    "all twice": lambda rng, names: [names[i // 2] for i in range(len(names))],
    "all the same": lambda rng, names: [names[0]] * len(names),
    "numbers": lambda rng, names: np.arange(len(names)),
    "fractions": lambda rng, names: np.arange(len(names)) + 0.5,
    "None": lambda rng, names: pd.Index(_some(rng, names, None), dtype=object),
    "NaN": lambda rng, names: pd.Index(_some(rng, names, np.nan), dtype=object),
    "NA": lambda rng, names: pd.Index(_some(rng, names, pd.NA), dtype="string"),
    "empty": lambda rng, names: _some(rng, names, ""),
    "mixed": lambda rng, names: pd.Index(_some(rng, names, 7), dtype=object),
    "bytes": lambda rng, names: pd.Index([name.encode() for name in names], dtype=object),
    "categories": lambda rng, names: pd.CategoricalIndex(names),
    "Arrow text": lambda rng, names: pd.Index(names, dtype="string[pyarrow]"),
    "Python text": lambda rng, names: pd.Index(names, dtype="string[python]"),
    "objects": lambda rng, names: pd.Index(names, dtype=object),
    "special tokens": lambda rng, names: ["<cls>", "<pad>", "<eoc>", *names[3:]],
    "long": lambda rng, names: [name * 10_000 for name in names],
    "lower case": lambda rng, names: names.str.lower(),
}

_SHAPES: dict[str, Callable[[np.random.Generator, anndata.AnnData], anndata.AnnData]] = {
    "no cells": lambda rng, adata: adata[:0].copy(),
    "no genes": lambda rng, adata: adata[:, :0].copy(),
    "nothing": lambda rng, adata: adata[:0, :0].copy(),
    "a view of no cells": lambda rng, adata: adata[:0],
    "one cell": lambda rng, adata: adata[5].copy(),
    "one gene": lambda rng, adata: adata[:, 5].copy(),
    "a view": lambda rng, adata: adata[rng.permutation(adata.n_obs)[:9], rng.random(adata.n_vars) < 0.7],
    "a view of a view": lambda rng, adata: adata[::2][1:, ::3],
    "cells twice": lambda rng, adata: anndata.concat([adata, adata]),
    "no matrix": lambda rng, adata: anndata.AnnData(obs=adata.obs, var=adata.var),
    "matrix in a layer alone": lambda rng, adata: anndata.AnnData(obs=adata.obs, var=adata.var, layers={"log": adata.X}),
    "text in uns": lambda rng, adata: _with(adata, "uns", "scgpt", "text"),
    "a number in uns": lambda rng, adata: _with(adata, "uns", "scgpt", {"X_scGPT": 3}),
    "another embedding": lambda rng, adata: _with(adata, "obsm", "X_scGPT", np.full((adata.n_obs, 3), np.nan)),
    "an embedding of text": lambda rng, adata: _with(adata, "obsm", "X_scGPT", np.full((adata.n_obs, 8), "a")),
    "an embedding as a table": lambda rng, adata: _with(
        adata, "obsm", "X_scGPT", pd.DataFrame(np.ones((adata.n_obs, 8)), index=adata.obs_names)
    ),
    "columns without names": lambda rng, adata: anndata.AnnData(adata.X, var=pd.DataFrame({0: adata.var_names}, adata.var_names)),
}  # fmt: skip

COLUMNS: dict[str, Callable[[np.random.Generator, pd.Series], Any]] = {
    "missing": lambda rng, column: None,
    "NaN in some": lambda rng, column: pd.Series(_some(rng, column, np.nan), column.index, dtype=object),
    "None in some": lambda rng, column: pd.Series(_some(rng, column, None), column.index, dtype=object),
    "all NaN": lambda rng, column: np.full(len(column), np.nan),
    "one value": lambda rng, column: "a",
    "each cell another": lambda rng, column: column.index,
    "mixed types": lambda rng, column: pd.Series(_some(rng, column, 1), column.index, dtype=object),
    "1 and '1'": lambda rng, column: pd.Series([1, "1"] * (len(column) // 2), column.index, dtype=object),
    "numbers": lambda rng, column: pd.factorize(column)[0],
    "fractions": lambda rng, column: rng.random(len(column)),
    "bools": lambda rng, column: rng.random(len(column)) < 0.5,
    "nullable numbers": lambda rng, column: pd.Series(_some(rng, pd.Index([1, 2] * (len(column) // 2)), pd.NA), column.index, dtype="Int64"),
    "nullable bools": lambda rng, column: pd.Series(_some(rng, pd.Index([True, False] * (len(column) // 2)), pd.NA), column.index, dtype="boolean"),
    "nullable text": lambda rng, column: column.astype("string[python]"),
    "Arrow text": lambda rng, column: column.astype("string[pyarrow]"),
    "Arrow text, missing in some": lambda rng, column: pd.Series(_some(rng, column, pd.NA), column.index, dtype="string[pyarrow]"),
    "unused categories": lambda rng, column: pd.Categorical(column, categories=[*column.unique(), "unused", ""]),
    "categories of numbers": lambda rng, column: pd.Categorical(pd.factorize(column)[0]),
    "categories, missing in some": lambda rng, column: pd.Categorical(_some(rng, column, None)),
    "ordered categories": lambda rng, column: pd.Categorical(column, ordered=True),
    "dates": lambda rng, column: pd.to_datetime(pd.factorize(column)[0]),
    "tuples": lambda rng, column: pd.Series([(1, value) for value in column], column.index),
    "empty text": lambda rng, column: pd.Series(_some(rng, column, ""), column.index, dtype=object),
    "slashes": lambda rng, column: "a/" + column,
}  # fmt: skip


def _with(adata: anndata.AnnData, where: str, key: str, value: Any) -> anndata.AnnData:
    getattr(adata, where)[key] = value
    return adata
