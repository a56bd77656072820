"""Genes of a model that form three groups, and cells that express them so."""

import anndata
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import torch

from scgpt.model import SCGPT

N_GROUPS, IN_GROUP, OTHERS = 3, 8, 36


@pytest.fixture(scope="session")
def _grouped_cells() -> anndata.AnnData:
    rng = np.random.default_rng(21)
    types = np.arange(90) % N_GROUPS
    rates = np.full((90, N_GROUPS * IN_GROUP + OTHERS), 0.6)
    for group in range(N_GROUPS):
        rates[types == group, group * IN_GROUP : (group + 1) * IN_GROUP] = 6
    counts = rng.poisson(rates)
    names = [f"{group}{i}" for group in "ABC" for i in range(IN_GROUP)] + [f"X{i}" for i in range(OTHERS)]
    obs = pd.DataFrame({"type": pd.Categorical.from_codes(types, ["a/1", "b", "c"])})
    obs.index = [f"cell{i}" for i in range(90)]
    var = pd.DataFrame({"symbol": [f"S{name}" for name in names]}, index=names)
    return anndata.AnnData(sp.csr_matrix(counts.astype(np.float32)), obs, var)


@pytest.fixture
def grouped_cells(_grouped_cells: anndata.AnnData) -> anndata.AnnData:
    """Counts of 90 cells of three types; genes A0 to A7, B0 to B7 and C0 to C7 are high in one type each, 36 in none."""
    return _grouped_cells.copy()


@pytest.fixture(scope="session")
def grouped_model(_grouped_cells: anndata.AnnData) -> SCGPT:
    """A model in whose embedding A0 to A7 are alike, as are B0 to B7 and C0 to C7, and others are like none."""
    own = _grouped_cells.copy()
    SCGPT.setup_anndata(own)
    model = SCGPT(own, d_model=32, n_layers=1, n_heads=2)
    model.is_trained_ = True
    rng = np.random.default_rng(2)
    with torch.no_grad():
        weight = model.module.network.genes.embedding.weight
        weight.copy_(torch.from_numpy(rng.normal(size=tuple(weight.shape))))
        for group in "ABC":
            centre = rng.normal(size=weight.shape[1])
            for i in range(IN_GROUP):
                row = int(model.vocab.ids([f"{group}{i}"])[0])
                weight[row] = torch.from_numpy(centre + 0.1 * (i + 1) / IN_GROUP * rng.normal(size=len(centre)))
    return model
