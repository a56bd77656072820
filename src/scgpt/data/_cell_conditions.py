"""Which cells stand under which conditions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from scgpt._messages import listed

from ._columns import column_of


@dataclass(frozen=True, eq=False)
class CellConditions:
    """Columns of ``.obs`` whose categories are conditions.

    Parameters
    ----------
    categories
        The categories of each column.
    """

    categories: Mapping[str, NDArray[Any]]

    @classmethod
    def read(cls, columns: str | Sequence[str], obs: pd.DataFrame) -> Self:
        """Read what ``setup_anndata`` takes as ``cell_conditions``.

        Raises
        ------
        KeyError
            When a column is not there.
        ValueError
            When no cell has a value in a column.
        """
        columns = [columns] if isinstance(columns, str) else list(dict.fromkeys(columns))
        categories = {}
        for column in columns:
            own = (
                column_of(obs, column, "cell_conditions")
                .astype("category")
                .cat.remove_unused_categories()
                .cat.categories
            )
            if not len(own):
                raise ValueError(f"No cell has a condition in .obs[{column!r}].")
            categories[column] = own.to_numpy(dtype=None if pd.api.types.is_numeric_dtype(own) else object)
        return cls(categories)

    def __len__(self) -> int:
        return sum(len(own) for own in self.categories.values())

    def codes(self, obs: pd.DataFrame, first: int) -> NDArray[np.int64]:
        """Return the condition of each cell in each column.

        Parameters
        ----------
        obs
            ``adata.obs`` of any data set.
        first
            Number of the first condition.

        Returns
        -------
        ``(n_obs, n_columns)``, 0 where a value is missing.

        Raises
        ------
        KeyError
            When a column is not there.
        ValueError
            When a column has a category that is not among those known.
        """
        codes = np.zeros((len(obs), len(self.categories)), np.int64)
        for i, (column, known) in enumerate(self.categories.items()):
            if column not in obs:
                raise KeyError(f"This model has conditions of cells: .obs[{column!r}] must name each cell's.")
            given = obs[column].notna().to_numpy()
            found = pd.Index(known).get_indexer(pd.Index(obs[column][given]))
            if (found < 0).any():
                strange = sorted(set(obs[column][given][found < 0].astype(str)))
                raise ValueError(
                    f".obs[{column!r}] has conditions that the model was not trained on: {listed(strange)}. It knows "
                    f"{listed([str(c) for c in known])}."
                )
            codes[given, i] = first + found
            first += len(known)
        return codes

    def to_dict(self) -> dict[str, list]:
        """Return plain values and arrays."""
        return {"cell_columns": list(self.categories), "cell_categories": list(self.categories.values())}

    @classmethod
    def from_dict(cls, values: Mapping[str, list]) -> Self:
        """Build from what :meth:`to_dict` gave."""
        return cls(dict(zip(values["cell_columns"], values["cell_categories"], strict=True)))
