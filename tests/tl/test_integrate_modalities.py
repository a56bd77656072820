import logging

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from mudata import MuData, read_h5mu

import scgpt
from scgpt.model import SCGPT, MultiSCGPT

SMALL = {"d_model": 16, "n_heads": 2}


def part(rng, names, n_vars: int, prefix: str, rate: float, **obs) -> ad.AnnData:
    counts = rng.poisson(rng.gamma(0.5, 2 * rate, (2, n_vars))[np.arange(len(names)) % 2]).astype(np.float32)
    var = pd.DataFrame(index=[f"{prefix}{i}" for i in range(n_vars)])
    return ad.AnnData(sp.csr_matrix(counts), obs=pd.DataFrame(obs, index=names), var=var)


@pytest.fixture
def cite(rng) -> MuData:
    names = [f"c{i}" for i in range(30)]
    donors = ["x", "y"] * 15
    return MuData({"rna": part(rng, names, 20, "G", 2, donor=donors), "adt": part(rng, names[:25], 5, "P", 20)})


@pytest.fixture
def multiome(rng) -> MuData:
    names = [f"m{i}" for i in range(20)]
    return MuData({"rna": part(rng, names, 20, "G", 2), "atac": part(rng, names, 12, "chr1-", 0.5)})


def integrate(data, **kwargs):
    given = {"max_epochs": 1, "progress_bar": False, "network_kwargs": SMALL} | kwargs
    given["train_kwargs"] = {"accelerator": "cpu"} | given.get("train_kwargs", {})
    return scgpt.tl.integrate(data, **given)


def test_one_embedding_of_all_modalities(cite, tmp_path, caplog):
    caplog.set_level(logging.INFO, logger="scgpt")
    assert integrate(cite, batch_key="donor") is None
    embedding = cite.obsm["X_scGPT"]
    assert embedding.shape == (30, 16) and embedding.dtype == np.float32
    assert np.allclose(np.linalg.norm(embedding, axis=1), 1, atol=1e-5)
    assert (
        "Integrating 30 cells of 2 batches over 20 features of rna, 5 features of protein; 25 cells have all modalities."
        in caplog.messages
    )
    cite.write_h5mu(tmp_path / "cells.h5mu")
    record = read_h5mu(tmp_path / "cells.h5mu").uns["scgpt"]["X_scGPT"]
    assert (record["function"], record["checkpoint"]) == ("scgpt.tl.integrate", "trained from scratch")
    assert (record["max_epochs"], list(record["batches"])) == (1, ["x", "y"])
    assert "'drop_modality': 0.3" in record["training"] and "'dar'" not in record["training"]
    assert "input_norm=None" in record["network"]  # no batch lacks a modality
    assert "donor" not in cite.obs  # nothing else is written
    integrate(cite, batch_key="donor", key_added="again")
    assert np.array_equal(cite.obsm["again"], embedding)


def test_a_mosaic_of_studies(cite, multiome):
    copies = integrate({"cite": cite, "multiome": multiome}, batch_key="donor", copy=True)
    assert list(copies) == ["cite", "multiome"]
    assert "X_scGPT" not in cite.obsm
    for copy, n in zip(copies.values(), (30, 20), strict=True):
        assert copy.obsm["X_scGPT"].shape == (n, 16)
        assert list(copy.uns["scgpt"]["X_scGPT"]["batches"]) == ["cite:x", "cite:y", "multiome"]
    # Tokens of different features, and of modalities that only one study has, must not tell the studies apart.
    assert "input_norm='domain'" in copies["cite"].uns["scgpt"]["X_scGPT"]["network"]


def test_an_adversary_on_request(cite, multiome):
    asked = {"network_kwargs": SMALL | {"adversary": True}, "train_kwargs": {"objectives": {"zero": 1000, "dar": 10}}}
    copies = integrate({"cite": cite, "multiome": multiome}, batch_key="donor", copy=True, **asked)
    assert "'dar': 10" in copies["cite"].uns["scgpt"]["X_scGPT"]["training"]


def test_genes_alone_stand_beside_modalities(cite, multiome):
    rna = multiome["rna"].copy()
    integrate([cite, rna], batch_key=None)
    assert cite.obsm["X_scGPT"].shape == (30, 16) and rna.obsm["X_scGPT"].shape == (20, 16)


def test_a_cell_that_has_nothing_has_no_embedding(cite):
    counts = cite["rna"].X.toarray()
    counts[28] = np.nan
    cite["rna"].X = counts
    integrate(cite, batch_key=None)
    assert np.flatnonzero(np.isnan(cite.obsm["X_scGPT"]).any(1)).tolist() == [28]


def test_a_saved_model_embeds_and_translates(cite, tmp_path):
    integrate(cite, batch_key="donor", save=tmp_path / "model", max_epochs=2)
    model = MultiSCGPT.load(tmp_path / "model", adata=False)
    joint = scgpt.pp.join_modalities(cite, batch_key="donor")
    embedding = model.get_latent_representation(joint, progress_bar=False)
    np.testing.assert_allclose(embedding, cite.obsm["X_scGPT"], atol=1e-5)
    proteins = model.predict_modality("protein", joint, progress_bar=False)
    assert proteins.shape == (30, 5) and proteins.notna().all(axis=None)


def test_from_pretrained_weights(cite, tmp_path):
    rna = cite["rna"].copy()
    SCGPT.setup_anndata(rna)
    pretrained = SCGPT(rna, norm="pre", **SMALL)
    pretrained.train(1, enable_progress_bar=False)
    pretrained.save(tmp_path / "pretrained")
    integrate(cite, batch_key="donor", model=tmp_path / "pretrained", network_kwargs=None)
    assert cite.obsm["X_scGPT"].shape == (30, 16)
    assert cite.uns["scgpt"]["X_scGPT"]["checkpoint"].endswith("pretrained")


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"layer": "counts"}, ValueError, "prepare_kwargs={'layers'"),
        ({"include_zeros": True}, ValueError, "include_zeros=True is not for them"),
        ({"batch_key": "lane"}, KeyError, "'lane' is a column neither"),
        ({"prepare_kwargs": {"values": {"protein": "log"}}}, ValueError, "'protein': 'log'"),
    ],
)
def test_wrong_settings(cite, settings, error, message):
    with pytest.raises(error, match=message):
        integrate(cite, **{"batch_key": "donor"} | settings)


def test_settings_of_mudata_alone(cite):
    with pytest.raises(ValueError, match="prepare_kwargs= is for MuData"):
        integrate(cite["rna"], batch_key="donor", prepare_kwargs={"n_top_peaks": 5})
    with pytest.raises(ValueError, match="batch_key=None is for MuData"):
        integrate(cite["rna"], batch_key=None)
