from pathlib import Path

import anndata
import numpy as np
import pytest

import scgpt
from scgpt.model import SCGPT

from ._bytes import damage_folder, fresh_copy
from ._json import damage_json
from ._oracle import Case, content


@pytest.fixture(scope="module")
def saved(_cells: anndata.AnnData, model: SCGPT, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("saved") / "embedding.zarr"
    scgpt.tl.embed(_cells.copy(), model, store=path, progress_bar=False)
    return path


def test_embedding_store(fuzz, saved: Path, cells: anndata.AnnData, model: SCGPT, tmp_path: Path):
    folder = tmp_path / "embedding.zarr"
    right = model.get_latent_representation(cells, progress_bar=False)

    def make(rng: np.random.Generator) -> Case:
        fresh_copy(saved, folder)
        # Bits of the values may flip unseen: a shard has no hash, as the arrays of zarr have none.
        name = damage_json(rng, folder / "zarr.json") if rng.random() < 0.7 else damage_folder(rng, folder)
        return Case(name, call, is_right, lambda: content(tmp_path))

    def call() -> np.ndarray:
        own = cells.copy()
        scgpt.tl.embed(own, model, store=folder, progress_bar=False)
        return own.obsm["X_scGPT"].compute()

    def is_right(answer: np.ndarray) -> None:
        assert answer.shape == right.shape
        assert (np.isclose(answer, right).mean(1) > 0.5).sum() >= len(right) - 1

    fuzz(make, 8)
