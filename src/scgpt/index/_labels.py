"""The labels of reference cells: codes that can stay on disk, and the names that they stand for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Labels:
    """One column of labels.

    Parameters
    ----------
    codes
        ``(n,)`` int32, places in ``categories``; may be mapped from a file.
    categories
        The names of all labels, also of those that no cell has.
    """

    codes: NDArray[np.int32]
    categories: tuple[str, ...]

    @classmethod
    def of_column(cls, column: pd.Series, name: str, where: str) -> Self:
        """Read a column of ``.obs``; ``where`` it stands goes into messages.

        Raises
        ------
        ValueError
            When a cell has no label, or two labels read the same as text.
        """
        if missing := int(column.isna().sum()):
            raise ValueError(
                f"{missing} of {len(column)} cells have no label in .obs[{name!r}] of {where}. Leave them out, "
                f"adata[adata.obs[{name!r}].notna()], or give them one."
            )
        # Categories keep their order and those that no cell has; other values come sorted.
        values = column.astype("category").cat
        names = tuple(map(str, values.categories))
        if len(set(names)) < len(names):
            raise ValueError(
                f"Labels in .obs[{name!r}] of {where} read the same as text, such as 1 and '1'; rename them."
            )
        return cls(np.asarray(values.codes, np.int32), names)

    @classmethod
    def joined(cls, parts: Sequence[Labels]) -> Self:
        """Join columns, one after the other; categories come in the order in which they first appear."""
        categories = tuple(dict.fromkeys(name for part in parts for name in part.categories))
        places = {name: i for i, name in enumerate(categories)}
        codes = [np.array([places[name] for name in p.categories], np.int32)[p.codes] for p in parts]
        return cls(np.concatenate(codes), categories)
