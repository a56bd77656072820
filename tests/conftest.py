"""Fixtures for all tests."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

_HERE = Path(__file__).parent


@pytest.fixture(scope="session")
def golden() -> Path:
    """Folder with reference outputs of the authors' implementation."""
    return _HERE / "golden"


@pytest.fixture(scope="session")
def shared() -> Path:
    """Data folder beside the checkout; for tests marked ``real``."""
    folder = _HERE.parents[1] / "shared"
    if not folder.is_dir():
        pytest.skip("the data folder ../shared is not beside this checkout")
    return folder


@pytest.fixture(scope="session")
def find_golden(golden: Path, request: pytest.FixtureRequest) -> Callable[[str], Path]:
    """Path of reference outputs: the small ones are in the repository, the others in the data folder."""

    def find(name: str) -> Path:
        return golden / name if (golden / name).exists() else request.getfixturevalue("shared") / "golden" / name

    return find


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.fixture(scope="session")
def _counts() -> anndata.AnnData:
    rng = np.random.default_rng(7)
    n_obs, n_vars, n_types = 120, 60, 3
    types = np.arange(n_obs) % n_types
    rates = rng.gamma(0.4, 2.0, (n_types, n_vars))
    matrix = sp.csr_matrix(rng.poisson(rates[types] * rng.gamma(5, 0.2, (n_obs, 1))).astype(np.float32))
    obs = pd.DataFrame(
        {
            "cell_type": pd.Categorical.from_codes(types, ["B", "NK", "T"]),
            "batch": np.where(rng.random(n_obs) < 0.5, "a", "b"),
        },
        index=[f"cell{i}" for i in range(n_obs)],
    )
    return anndata.AnnData(matrix, obs=obs, var=pd.DataFrame(index=[f"GENE{i}" for i in range(n_vars)]))


@pytest.fixture
def counts(_counts: anndata.AnnData) -> anndata.AnnData:
    """Counts of 120 cells of three types in two batches, 60 genes: enough to run everything on."""
    return _counts.copy()
