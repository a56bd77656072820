"""How many examples properties are run on, and what many of them run on."""

from __future__ import annotations

import os

import anndata
import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import settings

from scgpt.model import SCGPT

from ._strategies import VOCAB

# Examples are a function of the test, so that every run has the same.
settings.register_profile("few", derandomize=True, deadline=None, database=None, max_examples=30)
settings.register_profile("many", settings.get_profile("few"), max_examples=500)
settings.load_profile(os.environ.get("SCGPT_PROPERTIES", "few"))


@pytest.fixture(scope="session")
def model() -> SCGPT:
    """A small model of random weights, none at a value that would hide a mistake."""
    adata = anndata.AnnData(np.ones((2, len(VOCAB.genes)), np.float32), var=pd.DataFrame(index=list(VOCAB.genes)))
    SCGPT.setup_anndata(adata)
    model = SCGPT(adata, d_model=16, n_layers=2, n_heads=2)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.module.named_parameters():
            mean = float("norm" in name and name.endswith("weight"))
            parameter.copy_(mean + 0.3 * torch.randn(parameter.shape, generator=generator))
    model.is_trained_ = True
    return model
