"""What was logged, in a form that goes into a state of training."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd


class EpochMeans:
    """Means over the cells of an epoch, which can be interrupted.

    Examples
    --------
    >>> from scgpt.train import EpochMeans
    >>> means = EpochMeans()
    >>> means.add({"loss": 1.0}, n_cells=30)
    >>> means.add({"loss": 2.0}, n_cells=10)
    >>> means.means()
    {'loss': 1.25}
    """

    def __init__(self) -> None:
        self._sums: dict[str, float] = {}
        self._n_cells: dict[str, int] = {}  # by name: an objective may begin within the epoch

    def add(self, values: Mapping[str, float], n_cells: int) -> None:
        """Count in the means of a batch."""
        for name, value in values.items():
            self._sums[name] = self._sums.get(name, 0.0) + value * n_cells
            self._n_cells[name] = self._n_cells.get(name, 0) + n_cells

    def means(self) -> dict[str, float]:
        """Return the means so far, rounded to what loggers keep."""
        return {name: float(np.float32(value / self._n_cells[name])) for name, value in self._sums.items()}

    def state_dict(self) -> dict[str, Any]:
        """Return sums and numbers of cells."""
        return {"sums": dict(self._sums), "n_cells": dict(self._n_cells)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from sums."""
        self._sums, self._n_cells = dict(state["sums"]), dict(state["n_cells"])


def history_to_plain(history: Mapping[str, pd.DataFrame]) -> dict[str, dict[int, float]]:
    """Return a history of scvi-tools' logger as values by epoch."""
    return {
        name: dict(zip(frame.index.tolist(), frame[name].astype(float).tolist(), strict=True))
        for name, frame in history.items()
    }


def log_again(logger: Any, history: Mapping[str, Mapping[int, float]]) -> None:
    """Log to a logger of scvi-tools what :func:`history_to_plain` returned."""
    for name, values in history.items():
        for epoch, value in values.items():
            logger.log_metrics({name: value, "epoch": epoch}, step=epoch)
