from __future__ import annotations

from collections.abc import Callable

import anndata
import numpy as np
import pandas as pd
import pytest

TYPES = ["B", "NK", "T", "monocyte"]
MADE = {"checkpoint": "folder/one", "checkpoint_sha256": "aa" * 32, "model_sha256": "bb" * 32, "max_length": 1200}


@pytest.fixture(scope="session")
def embedded() -> Callable[..., anndata.AnnData]:
    """Make cells with an embedding of noise around a centre for each type, of any length."""

    def make(n: int, seed: int = 0, n_dims: int = 32, made: dict | None = MADE, first_type: int = 0) -> anndata.AnnData:
        rng = np.random.default_rng(seed)
        centres = np.random.default_rng(first_type).standard_normal((len(TYPES), n_dims))
        types = rng.integers(len(TYPES), size=n)
        vectors = (centres[types] + 0.7 * rng.standard_normal((n, n_dims))) * rng.uniform(0.5, 2, (n, 1))
        obs = pd.DataFrame(
            {"type": pd.Categorical.from_codes(types, TYPES), "donor": rng.choice(["d1", "d2"], n)},
            index=[f"{seed}-{i}" for i in range(n)],
        )
        uns = {} if made is None else {"scgpt": {"X_scGPT": made}}
        return anndata.AnnData(obs=obs, obsm={"X_scGPT": vectors.astype(np.float32)}, uns=uns, shape=(n, 0))

    return make
