"""A loop over malformed inputs."""

from __future__ import annotations

import os
import zlib
from collections import Counter
from collections.abc import Callable

import anndata
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from scgpt.model import SCGPT

from ._oracle import Case, judge

MakeCase = Callable[[np.random.Generator], Case]


@pytest.fixture(params=[pytest.param(False, id="fast"), pytest.param(True, id="many", marks=pytest.mark.slow)])
def fuzz(request: pytest.FixtureRequest) -> Callable[[MakeCase, int], None]:
    """Judge cases that are made from seeds, ten times as many in the slow run.

    A case depends on the name of its test and its seed alone; ``FUZZ_SEED=17`` runs that one.
    """
    name = request.node.originalname

    def run(make: MakeCase, n: int) -> None:
        alone = os.environ.get("FUZZ_SEED")
        seeds = [int(alone)] if alone else range(n, 11 * n) if request.param else range(n)
        counted: Counter[str] = Counter()
        wrong = []
        for seed in seeds:
            case = make(np.random.default_rng([zlib.crc32(name.encode()), seed]))
            try:
                counted[judge(case)] += 1
            except AssertionError as error:
                if alone:
                    raise
                wrong.append(f"FUZZ_SEED={seed} {case.name}: {error}")
        request.node.user_properties.append(("fuzz", dict(counted)))
        assert not wrong, f"{len(wrong)} of {len(seeds)} malformed inputs of {name}:\n" + "\n".join(wrong)

    return run


@pytest.fixture(scope="session")
def _cells() -> anndata.AnnData:
    rng = np.random.default_rng(5)
    n_obs, n_vars = 24, 30
    types = np.arange(n_obs) % 3
    counts = sp.csr_matrix(rng.poisson(rng.gamma(0.5, 2.0, (3, n_vars))[types]).astype(np.float32))
    obs = pd.DataFrame(
        {
            "cell_type": pd.Categorical.from_codes(types, ["B", "NK", "T"]),
            "batch": np.where(np.arange(n_obs) % 2, "a", "b"),
            "age": np.arange(n_obs),
        },
        index=[f"cell{i}" for i in range(n_obs)],
    )
    var = pd.DataFrame({"symbol": [f"S{i}" for i in range(n_vars)]}, index=[f"GENE{i}" for i in range(n_vars)])
    return anndata.AnnData(counts, obs=obs, var=var, layers={"log": counts.log1p()})


@pytest.fixture
def cells(_cells: anndata.AnnData) -> anndata.AnnData:
    """Counts of 24 cells of three types in two batches, 30 genes."""
    return _cells.copy()


@pytest.fixture(scope="session")
def model(_cells: anndata.AnnData) -> SCGPT:
    """A model of these cells, as if it were trained; tests leave it as it is."""
    own = _cells.copy()
    SCGPT.setup_anndata(own, batch_key="batch", labels_key="cell_type")
    model = SCGPT(own, d_model=8, n_layers=1, n_heads=2)
    model.is_trained_ = True
    return model
