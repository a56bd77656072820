import json
import pickletools
import shutil

import anndata
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import torch

from scgpt.model import SCGPT, SCGPTAnnotator

FILES = {"model.safetensors", "config.json", "vocab.json", "registry.json"}


def embed(model, adata=None):
    return model.get_latent_representation(adata, progress_bar=False)


@pytest.fixture
def model(counts) -> SCGPT:
    counts.layers["counts"] = counts.X.copy()
    counts.X = sp.csr_matrix(counts.shape, dtype=np.float32)  # the layer counts, not .X
    SCGPT.setup_anndata(counts, layer="counts", batch_key="batch", labels_key="cell_type")
    model = SCGPT(counts, d_model=8, n_layers=1, n_heads=2, n_batches=2, input_norm="domain", n_bins=21, max_length=40)
    model.train(1, enable_progress_bar=False)
    return model


def test_a_checkpoint_embeds_saves_and_loads(golden, tmp_path, rng):
    """A data set never seen, of other genes, through from_pretrained, save and load."""
    names = [f"G{i:04d}" for i in rng.permutation(200)[:80]] + [f"OTHER{i}" for i in range(40)]
    cells = anndata.AnnData(rng.poisson(0.5, (30, 120)).astype(np.float32), var=pd.DataFrame(index=names))
    model = SCGPT.from_pretrained(golden / "checkpoint")
    model.save(tmp_path / "model")
    assert {p.name for p in (tmp_path / "model").iterdir()} == FILES
    for again in (SCGPT.load(tmp_path / "model"), SCGPT.from_pretrained(tmp_path / "model")):
        assert np.array_equal(embed(again, cells), embed(model, cells))
        assert again.module.network.config == model.module.network.config
        assert again.vocab == model.vocab


def test_a_trained_model_loads_with_its_settings(model, counts, tmp_path):
    model.save(tmp_path / "model")
    alone = SCGPT.load(tmp_path / "model")
    assert alone.adata is None
    assert alone.is_trained
    assert alone.tokenizer.settings() == model.tokenizer.settings()
    assert np.array_equal(embed(alone, counts), embed(model))  # layer and batches come from the registry
    attached = SCGPT.load(tmp_path / "model", counts.copy())
    assert np.array_equal(embed(attached), embed(model))
    attached.train(1, enable_progress_bar=False)


def test_integer_batches_survive(counts, tmp_path):
    counts.obs["batch"] = np.arange(counts.n_obs) % 3 + 10
    SCGPT.setup_anndata(counts, batch_key="batch")
    model = SCGPT(counts, d_model=8, n_layers=1, n_heads=2, n_batches=3, input_norm="domain")
    model.is_trained_ = True
    model.save(tmp_path / "model")
    assert np.array_equal(embed(SCGPT.load(tmp_path / "model"), counts), embed(model))


def test_a_model_attaches_to_data_of_other_genes(model, counts, tmp_path):
    model.save(tmp_path / "model")
    fewer = counts[:, 10:].copy()
    attached = SCGPT.load(tmp_path / "model", fewer)
    assert attached.adata is fewer
    assert np.array_equal(embed(attached), embed(model, fewer))


def test_batches_that_the_model_was_not_trained_on_are_named(model, counts, tmp_path):
    model.save(tmp_path / "model")
    counts.obs["batch"] = ["a", "c"] * 60
    with pytest.raises(ValueError, match=r"names batches that the model was not trained on: \['c'\]\. load_query_data"):
        SCGPT.load(tmp_path / "model", counts)


def test_data_can_be_saved_with_the_model(model, counts, tmp_path):
    model.save(tmp_path / "model", save_anndata=True)
    loaded = SCGPT.load(tmp_path / "model")
    assert np.array_equal(embed(loaded), embed(model))
    assert SCGPT.load(tmp_path / "model", adata=False).adata is None
    # Both AnnData live on in one process, each with its own model.
    SCGPT.setup_anndata(counts, layer="counts")
    SCGPT(counts, d_model=8, n_layers=1, n_heads=2)
    with pytest.raises(ValueError, match="no data to save"):
        SCGPT.load(tmp_path / "model", adata=False).save(tmp_path / "other", save_anndata=True)


def test_nothing_saved_is_a_pickle(model, tmp_path):
    model.save(tmp_path / "model")
    for path in (tmp_path / "model").iterdir():
        if path.suffix == ".json":
            json.loads(path.read_text())
        else:
            with pytest.raises(ValueError):
                list(pickletools.genops(path.read_bytes()))


def test_an_existing_folder_is_kept_unless_asked(model, tmp_path):
    model.save(tmp_path / "model")
    before = (tmp_path / "model" / "model.safetensors").read_bytes()
    with torch.no_grad():
        model.module.network.genes.embedding.weight.add_(1)
    with pytest.raises(FileExistsError, match="overwrite=True"):
        model.save(tmp_path / "model")
    assert (tmp_path / "model" / "model.safetensors").read_bytes() == before
    model.save(tmp_path / "model", overwrite=True)
    assert (tmp_path / "model" / "model.safetensors").read_bytes() != before
    assert [p.name for p in tmp_path.iterdir()] == ["model"]


def test_registry_can_be_read_alone(model, tmp_path):
    model.save(tmp_path / "model")
    registry = SCGPT.load_registry(tmp_path / "model")
    assert registry["setup_args"]["layer"] == "counts"
    assert not {"argument", "name"} & set(registry["setup_args"])  # variables of the method itself
    assert registry["field_registries"]["batch"]["state_registry"]["categorical_mapping"].tolist() == ["a", "b"]


def test_setup_arguments_can_be_viewed(model, tmp_path, capsys):
    model.save(tmp_path / "model")
    SCGPT.view_setup_args(tmp_path / "model")
    assert "counts" in capsys.readouterr().out


def test_data_that_cannot_be_written_leave_what_was_there(model, tmp_path, monkeypatch):
    def fail(*args, **kwargs):
        raise OSError("No space left on device")

    monkeypatch.setattr(anndata.AnnData, "write_h5ad", fail)
    with pytest.raises(OSError, match="The disk that holds .*model is full"):
        model.save(tmp_path / "model", save_anndata=True)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(TypeError, match="prefix"):
        model.save(tmp_path / "model", prefix="run1_")


def test_a_model_of_another_class_is_refused(model, tmp_path):
    model.save(tmp_path / "model")
    with pytest.raises(ValueError, match="saved by SCGPT, not SCGPTAnnotator"):
        SCGPTAnnotator.load(tmp_path / "model")


@pytest.mark.parametrize("name", sorted(FILES - {"registry.json"}))
def test_a_missing_file_is_named(model, tmp_path, name):
    model.save(tmp_path / "model")
    (tmp_path / "model" / name).unlink()
    with pytest.raises(FileNotFoundError, match=name):
        SCGPT.load(tmp_path / "model")
    shutil.rmtree(tmp_path / "model")
    with pytest.raises(FileNotFoundError, match="no folder"):
        SCGPT.load(tmp_path / "model")
