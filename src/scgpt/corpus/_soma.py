"""Cells of a TileDB-SOMA experiment, read in portions."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ._sources import Portion

# Cells that are in memory at a time.
_PORTION = 8_192


class SomaSource:
    """Some cells of an experiment, named by their ``soma_joinid``.

    Parameters
    ----------
    experiment
        Open for reading.
    measurement, layer
        Where the expression is.
    joinids
        ``(n,)`` rising, of the cells.
    name
        What they are called in the corpus.
    """

    def __init__(self, experiment: Any, measurement: str, layer: str, joinids: NDArray[np.int64], name: str):
        self.name = name
        self._experiment, self._measurement, self._layer, self._joinids = experiment, measurement, layer, joinids

    def n_cells(self) -> int:
        """Return how many there are."""
        return len(self._joinids)

    def var(self) -> pd.DataFrame:
        """Return the variables."""
        return self._experiment.ms[self._measurement].var.read().concat().to_pandas()

    def portions(self) -> Iterator[Portion]:
        """Yield all cells in the order of their ids."""
        columns = self.var()["soma_joinid"].to_numpy()
        matrix = self._experiment.ms[self._measurement].X[self._layer]
        read = matrix.read((self._joinids, slice(None))).blockwise(axis=0, size=_PORTION, reindex_disable_on_axis=1)
        first = 0
        for rows, (joinids, _) in read.scipy():
            names = np.asarray(joinids).astype(str)
            yield Portion(first, names, rows[: len(names), columns])
            first += len(names)

    def stamp(self) -> list:
        """Return what tells whether the cells are still the same."""
        return [self.sha256()]

    def sha256(self) -> str:
        """Return a hash of which cells they are: those of one experiment do not change."""
        where = [self._experiment.uri, self._measurement, self._layer]
        return hashlib.sha256(json.dumps(where).encode() + self._joinids.astype("<i8").tobytes()).hexdigest()
