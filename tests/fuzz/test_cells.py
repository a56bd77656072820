import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anndata
import mudata
import numpy as np
import pandas as pd
import pytest

import scgpt
from scgpt.data import Cells, Tokenizer
from scgpt.model import SCGPT, SCGPTPerturbation

from ._arguments import odd_arguments
from ._cells import change_cells, change_column
from ._oracle import Case, keys_of

TINY: dict[str, Any] = {
    "max_epochs": 1,
    "network_kwargs": {"d_model": 8, "n_layers": 1, "n_heads": 2},
    "train_kwargs": {"accelerator": "cpu", "batch_size": 12},
    "progress_bar": False,
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], Path]:
    """An empty folder for each case; odd arguments may name files, which would stand there."""

    def make() -> Path:
        shutil.rmtree(tmp_path / "case", ignore_errors=True)
        (tmp_path / "case").mkdir()
        monkeypatch.chdir(tmp_path / "case")
        return tmp_path / "case"

    return make


def test_embed(fuzz, cells: anndata.AnnData, model: SCGPT, folder: Callable[[], Path]):
    right = model.get_latent_representation(cells, progress_bar=False)
    names = (
        "model",
        "layer",
        "gene_key",
        "gene_mapping",
        "max_length",
        "precision",
        "key_added",
        "store",
        "lazy",
        "copy",
    )

    def make(rng: np.random.Generator) -> Case:
        where, given = folder(), {"model": model, "progress_bar": False}
        if rng.random() < 0.65:
            name, adata, same = change_cells(rng, cells, where)
        elif rng.random() < 0.3:
            name, adata, same = change_column(rng, cells, "batch")
        else:
            adata, same = cells.copy(), False
            name, given = odd_arguments(rng, names, given)
        key = str(given.get("key_added", "X_scGPT"))

        def call() -> anndata.AnnData:
            return scgpt.tl.embed(adata, **given) or adata

        def is_right(answer: anndata.AnnData) -> None:
            embedding = np.asarray(answer.obsm[key])
            assert embedding.shape == (adata.n_obs, right.shape[1])
            assert np.isfinite(embedding).all()
            if same:
                np.testing.assert_allclose(embedding, right, atol=1e-5)

        return Case(name, call, is_right, lambda: keys_of(adata))

    fuzz(make, 50)


def test_tokens(fuzz, cells: anndata.AnnData, model: SCGPT, folder: Callable[[], Path]):
    token_ids, rows = model.match(cells).token_ids, np.arange(cells.n_obs)
    tokenizer = Tokenizer(model.vocab, n_bins=None, cls_value=0.0)
    right = tokenizer(cells.X, token_ids)

    def make(rng: np.random.Generator) -> Case:
        name, adata, same = change_cells(rng, cells, folder())
        ids = token_ids[: adata.n_vars]

        def call() -> Any:
            return Cells(adata, ids).tokenize(rows[: adata.n_obs], tokenizer)

        def is_right(batch: Any) -> None:
            assert batch.values.isfinite().all()
            assert (batch.values >= 0).all()
            if same:
                assert batch.gene_ids.tolist() == right.gene_ids.tolist()
                np.testing.assert_allclose(batch.values, right.values, rtol=1e-3)

        return Case(name, call, is_right)

    fuzz(make, 25)


def test_train(fuzz, cells: anndata.AnnData, folder: Callable[[], Path]):
    names = ("layer", "batch_key", "labels_key", "gene_key", "gene_mapping", "gene_conditions", "cell_conditions")

    def make(rng: np.random.Generator) -> Case:
        given: dict[str, Any] = {"batch_key": "batch", "labels_key": "cell_type"}
        name, adata, given = _change(rng, cells, folder(), given, names, ("batch", "cell_type"))

        def call() -> np.ndarray:
            SCGPT.setup_anndata(adata, **given)
            model = SCGPT(adata, **TINY["network_kwargs"], batch_embedding=bool(given["batch_key"]))
            model.train(1, enable_progress_bar=False, batch_size=12, accelerator="cpu", max_steps=1)
            return model.get_latent_representation(progress_bar=False)

        return Case(name, call, lambda answer: _is_embedding(answer, adata.n_obs))

    fuzz(make, 5)


def test_annotate(fuzz, cells: anndata.AnnData, folder: Callable[[], Path]):
    names = (
        "labels_key", "reference", "unlabeled_category", "model", "layer", "gene_key", "gene_mapping", "class_weight",
        "min_confidence", "unknown_label", "max_epochs", "seed", "network_kwargs", "train_kwargs", "save", "key_added", "copy",
    )  # fmt: skip

    def make(rng: np.random.Generator) -> Case:
        name, adata, given = _change(rng, cells, folder(), {"labels_key": "cell_type", **TINY}, names, ("cell_type",))
        key = f"{given.get('key_added', 'scgpt')}_label"

        def is_right(answer: anndata.AnnData) -> None:
            assert answer.obs[key].notna().all()
            assert answer.obs[key.replace("_label", "_confidence")].between(0, 1.0001).all()

        return Case(name, lambda: scgpt.tl.annotate(adata, **given) or adata, is_right, lambda: keys_of(adata))

    fuzz(make, 5)


def test_integrate(fuzz, cells: anndata.AnnData, folder: Callable[[], Path]):
    names = (
        "batch_key", "model", "n_top_genes", "include_zeros", "layer", "gene_key", "gene_mapping", "prepare_kwargs", "max_epochs",
        "seed", "network_kwargs", "train_kwargs", "save", "key_added", "copy",
    )  # fmt: skip

    def make(rng: np.random.Generator) -> Case:
        name, adata, given = _change(rng, cells, folder(), {"batch_key": "batch", **TINY}, names, ("batch",))
        key = str(given.get("key_added", "X_scGPT"))

        def is_right(answer: anndata.AnnData) -> None:
            _is_embedding(answer.obsm[key], adata.n_obs)

        return Case(name, lambda: scgpt.tl.integrate(adata, **given) or adata, is_right, lambda: keys_of(adata))

    fuzz(make, 5)


def test_map_reference(fuzz, cells: anndata.AnnData, model: SCGPT, folder: Callable[[], Path]):
    names = (
        "reference", "labels_key", "model", "k", "weights", "min_confidence", "unknown_label", "use_rep", "layer", "gene_key",
        "gene_mapping", "max_length", "precision", "key_added", "copy",
    )  # fmt: skip

    def make(rng: np.random.Generator) -> Case:
        given = {"labels_key": "cell_type", "model": model, "k": 3, "progress_bar": False, "reference": cells}
        query = cells.copy()
        if rng.random() < 0.5:
            name, query, given = _change(rng, cells, folder(), given, names, ("batch",))
        else:
            name, given["reference"], given = _change(rng, cells, folder(), given, names, ("cell_type",))
        key = str(given.get("key_added", "scgpt_mapped_label"))

        def is_right(answer: anndata.AnnData) -> None:
            assert answer.obs[key].notna().all()
            assert answer.obs[f"{key}_confidence"].between(0, 1).all()

        return Case(name, lambda: scgpt.tl.map_reference(query, **given) or query, is_right)

    fuzz(make, 20)


def test_perturb(fuzz, perturbed: anndata.AnnData, perturbation_model: SCGPTPerturbation, folder: Callable[[], Path]):
    names = (
        "perturbations", "model", "pairs", "perturbation_key", "control", "sep", "treatments", "direction_key", "direction",
        "paired_within", "per_cell", "n_cells", "layer", "gene_key", "gene_mapping", "max_epochs", "seed", "network_kwargs",
        "train_kwargs", "save", "precision",
    )  # fmt: skip

    def make(rng: np.random.Generator) -> Case:
        given = {"perturbations": ["A", "A+B"], "progress_bar": False}
        if rng.random() < 0.85:
            given |= {"model": perturbation_model}
        else:
            given |= {"perturbation_key": "perturbation", **TINY}
        name, adata, given = _change(rng, perturbed, folder(), given, names, ("perturbation",))

        def is_right(answer: anndata.AnnData) -> None:
            assert np.isfinite(answer.X).all()
            assert np.isfinite(answer.layers["delta"]).all()

        return Case(name, lambda: scgpt.tl.perturb(adata, **given), is_right, lambda: keys_of(adata))

    fuzz(make, 15)


def test_join_modalities(fuzz, cells: anndata.AnnData, folder: Callable[[], Path]):
    names = (
        "modalities",
        "layers",
        "batch_key",
        "n_top_genes",
        "n_top_peaks",
        "peaks",
        "values",
        "gene_key",
        "gene_mapping",
    )
    proteins = cells[:, :6].copy()
    proteins.var_names = [f"P{i}" for i in range(6)]

    def make(rng: np.random.Generator) -> Case:
        name, changed, given = _change(rng, cells, folder(), {"batch_key": "batch"}, names, ("batch",))
        kind = rng.random()
        modalities = {"rna": changed, "prot": proteins} if kind < 0.6 else {"rna": cells, "prot": changed}
        try:
            data = _mudata(modalities) if kind < 0.9 else [changed, cells]
        except (ValueError, TypeError, NotImplementedError, AttributeError):  # mudata does not hold such data
            data = [changed, cells]

        def call() -> mudata.MuData:
            return scgpt.pp.join_modalities(data, **given)

        def is_right(joint: mudata.MuData) -> None:
            assert joint.n_obs > 0
            for part in joint.mod.values():
                values = part.X.data if hasattr(part.X, "nnz") else part.X
                assert np.isfinite(np.asarray(values, float)).all()

        return Case(name, call, is_right)

    fuzz(make, 10)


def _mudata(modalities: dict[str, anndata.AnnData]) -> mudata.MuData:
    return mudata.MuData({name: part.copy() if part.is_view else part for name, part in modalities.items()})


def _change(
    rng: np.random.Generator,
    adata: anndata.AnnData,
    folder: Path,
    given: dict[str, Any],
    names: tuple[str, ...],
    columns: tuple[str, ...],
) -> tuple[str, anndata.AnnData, dict[str, Any]]:
    """Change the data set, one of its columns, or an argument."""
    kind = rng.random()
    if kind < 0.4:
        name, changed, _ = change_cells(rng, adata, folder)
        return name, changed, given
    if kind < 0.7:
        name, changed, _ = change_column(rng, adata, str(rng.choice(columns)))
        return name, changed, given
    name, odd = odd_arguments(rng, names, given)
    return name, adata.copy(), odd


def _is_embedding(embedding: Any, n_obs: int) -> None:
    values = np.asarray(embedding if not isinstance(embedding, pd.DataFrame) else embedding.to_numpy())
    assert values.shape[0] == n_obs
    assert np.isfinite(values).all()
