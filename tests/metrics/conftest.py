from __future__ import annotations

from collections.abc import Callable

import anndata as ad
import numpy as np
import pandas as pd
import pytest

Maker = Callable[..., ad.AnnData]


@pytest.fixture
def make_cells() -> Maker:
    """Make cells of three types in two batches, 25 and 15 of each, that lie around given centres."""

    def make(batch_shift: float = 0.0, spread: float = 0.1, seed: int = 0) -> ad.AnnData:
        rng = np.random.default_rng(seed)
        labels = np.repeat([0, 1, 2], 40)
        batches = np.tile(np.repeat([0, 1], [25, 15]), 3)
        centres = 10 * np.eye(3, 4)[labels]
        centres[:, 3] += batch_shift * batches
        order = rng.permutation(120)
        x = centres + rng.normal(size=(120, 4)) * spread
        obs = pd.DataFrame(
            {"cell_type": pd.Categorical.from_codes(labels, ["B", "NK", "T"]), "batch": batches},
            index=[f"c{i}" for i in range(120)],
        )
        return ad.AnnData(obs=obs, obsm={"X_emb": x})[order].copy()

    return make
