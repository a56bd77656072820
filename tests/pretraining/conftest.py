from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import anndata
import numpy as np
import pytest
import scipy.sparse as sp

from scgpt.corpus import Corpus, build
from scgpt.pretraining import PretrainingConfig

GENES = [f"G{i}" for i in range(40)]
SMALL = {"d_model": 8, "n_heads": 2, "n_layers": 2, "d_feed_forward": 8, "dropout": 0.0}


@pytest.fixture(scope="session")
def corpus(tmp_path_factory) -> Corpus:
    """256 cells of two files, of which the second lacks some genes, and 24 held out."""
    folder = tmp_path_factory.mktemp("pretraining")
    rng = np.random.default_rng(0)
    paths = []
    for name, n_cells, genes in (("a", 156, GENES), ("b", 100, GENES[10:]), ("v", 24, GENES)):
        counts = rng.poisson(rng.gamma(0.6, 2, (n_cells, len(genes)))).astype(np.float32)
        adata = anndata.AnnData(sp.csr_matrix(counts))
        adata.obs_names, adata.var_names = [f"{name}{i}" for i in range(n_cells)], genes
        paths.append(folder / f"{name}.h5ad")
        adata.write_h5ad(paths[-1])
    return build(paths[:2], folder / "c.zarr", held_out=paths[2:], min_genes=1, cells_per_dataset=100)


@pytest.fixture
def settings(corpus, tmp_path) -> Callable[..., PretrainingConfig]:
    """Settings of a run of 2 epochs of 8 steps, with changes."""

    def make(**changes) -> PretrainingConfig:
        small = {
            "corpus": str(corpus.path),
            "out": str(tmp_path / "run"),
            "network": SMALL,
            "objectives": {"gen": {"warmup_steps": 4}},
            "max_epochs": 2,
            "batch_size": 32,
            "lr": 1e-3,
            "warmup_steps": 4,
            "batches_per_read": 4,
            "checkpoint_every": 5,
            "validate_every": 6,
            "log_every": 1,
            "loggers": [],
            "accelerator": "cpu",
            "devices": 1,
        }
        return PretrainingConfig.from_dict(small | changes)

    return make


@pytest.fixture
def log_of() -> Callable[[Path], list[dict]]:
    """Read the log of a run."""
    return lambda run: [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
