import json
from pathlib import Path

import anndata
import numpy as np
import pytest
import torch

import scgpt
from scgpt.hub import read_official
from scgpt.model import SCGPT

from ._bytes import damage_bytes, fresh_copy
from ._json import damage_json
from ._oracle import Case, content
from ._tensors import change_tensors, damage_safetensors


@pytest.fixture(scope="module")
def saved(model: SCGPT, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("saved") / "model"
    model.save(folder)
    return folder


def test_own_checkpoint(fuzz, saved: Path, cells: anndata.AnnData, tmp_path: Path):
    folder, right = tmp_path / "model", SCGPT.load(saved).get_latent_representation(cells, progress_bar=False)

    def make(rng: np.random.Generator) -> Case:
        fresh_copy(saved, folder)
        file = rng.choice(["model.safetensors", "config.json", "vocab.json", "registry.json"])
        if file != "model.safetensors":
            name = damage_json(rng, folder / file)
        elif rng.random() < 0.4:
            name = damage_bytes(rng, folder / file)
        else:
            _forget_hash(folder)
            name = damage_safetensors(rng, folder / file)
        load = SCGPT.load if rng.random() < 0.5 else SCGPT.from_pretrained
        return Case(
            name,
            lambda: _embedded(load, folder, cells),
            lambda answer: _is_right(answer, right),
            lambda: content(folder),
        )

    fuzz(make, 40)


def test_official_checkpoint(fuzz, golden: Path, tmp_path: Path):
    folder = tmp_path / "official"

    def make(rng: np.random.Generator) -> Case:
        fresh_copy(golden / "checkpoint", folder)
        file = rng.choice(["best_model.pt", "best_model.pt", "args.json", "vocab.json"])
        if file != "best_model.pt":
            name = damage_json(rng, folder / file)
        elif rng.random() < 0.4:
            name = damage_bytes(rng, folder / file)
        else:
            weights = torch.load(folder / file, weights_only=True)
            name = change_tensors(rng, weights) if rng.random() < 0.7 else "as torch wrote before 1.6"
            old = name.startswith("as torch")
            torch.save(weights, folder / file, _use_new_zipfile_serialization=not old)
            name += f", {damage_bytes(rng, folder / file)}" if old else ""
        return Case(name, lambda: read_official(folder), _is_whole, lambda: content(folder))

    fuzz(make, 15)


def _forget_hash(folder: Path) -> None:
    """Make of a folder one that was written before weights had a hash."""
    config = json.loads((folder / "config.json").read_text())
    config.pop("sha256", None)
    (folder / "config.json").write_text(json.dumps(config))


def _embedded(load, folder: Path, cells: anndata.AnnData) -> anndata.AnnData | None:
    return scgpt.tl.embed(cells, load(folder), progress_bar=False, copy=True)


def _is_right(answer, right: np.ndarray) -> None:
    assert answer.obsm["X_scGPT"].shape[0] == len(right)
    assert np.isfinite(answer.obsm["X_scGPT"]).all()


def _is_whole(checkpoint) -> None:
    assert checkpoint.state_dict["genes.embedding.weight"].shape == (len(checkpoint.vocab), checkpoint.config.d_model)
    assert all(tensor.isfinite().all() for tensor in checkpoint.state_dict.values())
