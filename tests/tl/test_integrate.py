import logging

import anndata as ad
import numpy as np
import pytest
import scanpy as sc
import scipy.sparse as sp

import scgpt
from scgpt.model import SCGPT

SMALL = {"d_model": 16, "n_layers": 1, "n_heads": 2}


@pytest.fixture
def cells(rng) -> ad.AnnData:
    """Counts of 40 cells in two batches; the golden checkpoint knows 60 of the 80 genes."""
    rates = rng.gamma(0.5, 2.0, (3, 80))
    types = np.arange(40) % 3
    adata = ad.AnnData(sp.csr_matrix(rng.poisson(rates[types]).astype(np.float32)))
    adata.var_names = [f"G{i:04d}" if i < 60 else f"OTHER{i}" for i in range(80)]
    adata.obs["batch"] = ["a", "b"] * 20
    return adata


def integrate(data, **kwargs):
    given = {"max_epochs": 1, "n_top_genes": 30, "progress_bar": False} | kwargs
    if given.get("model") is None:
        given["network_kwargs"] = SMALL | given.get("network_kwargs", {})
    given["train_kwargs"] = {"accelerator": "cpu"} | given.get("train_kwargs", {})
    return scgpt.tl.integrate(data, **given)


def weights_of(model: SCGPT) -> dict[str, np.ndarray]:
    return {name: tensor.numpy().copy() for name, tensor in model.module.state_dict().items()}


def assert_unit(embedding: np.ndarray, shape: tuple[int, int]) -> None:
    assert embedding.shape == shape
    assert embedding.dtype == np.float32
    assert np.allclose(np.linalg.norm(embedding, axis=1), 1, atol=1e-5)


def test_writes_unit_vectors_and_provenance_that_a_file_can_hold(cells, tmp_path):
    assert integrate(cells) is None
    assert_unit(cells.obsm["X_scGPT"], (40, 16))
    cells.write_h5ad(tmp_path / "cells.h5ad")
    read = ad.read_h5ad(tmp_path / "cells.h5ad")
    assert np.array_equal(read.obsm["X_scGPT"], cells.obsm["X_scGPT"])
    record = read.uns["scgpt"]["X_scGPT"]
    assert record["function"] == "scgpt.tl.integrate"
    assert (record["checkpoint"], record["checkpoint_sha256"]) == ("trained from scratch", "")
    assert (record["batch_key"], record["layer"], record["scale"]) == ("batch", "X", "counts")
    assert (record["n_studies"], record["max_epochs"], record["seed"]) == (1, 1, 0)
    assert list(record["batches"]) == ["a", "b"]
    assert len(record["genes"]) == 30
    assert "'drop_share': 0.5" in record["training"]
    assert "d_model=16" in record["network"]
    sc.pp.neighbors(cells, use_rep="X_scGPT", n_neighbors=5)
    assert cells.obsp["connectivities"].nnz > 40


def test_a_seed_decides_everything(cells):
    integrate(cells)
    integrate(cells, key_added="again")
    integrate(cells, key_added="other", seed=1)
    assert np.array_equal(cells.obsm["X_scGPT"], cells.obsm["again"])
    assert not np.allclose(cells.obsm["X_scGPT"], cells.obsm["other"], atol=1e-3)
    assert set(cells.uns["scgpt"]) == {"X_scGPT", "again", "other"}


def test_counts_and_log_normalised_values_are_told_apart_and_give_the_same(cells, caplog):
    caplog.set_level(logging.INFO, logger="scgpt")
    logged = cells.copy()
    logged.layers["logged"] = logged.X.copy()
    sc.pp.normalize_total(logged, layer="logged")
    sc.pp.log1p(logged, layer="logged")
    logged.X = None
    integrate(cells)
    assert "The data set holds counts." in caplog.messages
    assert "Integrating 2 batches of 40 cells over 30 genes, 30 of them measured in all." in caplog.messages
    integrate(logged, layer="logged")
    assert "The data set holds log-normalised values." in caplog.messages
    a, b = (x.uns["scgpt"]["X_scGPT"] for x in (cells, logged))
    assert a["genes"] == b["genes"]
    assert (b["layer"], b["scale"]) == ("logged", "log-normalised")
    assert np.array_equal(cells.obsm["X_scGPT"], logged.obsm["X_scGPT"])


@pytest.fixture
def studies(cells) -> dict[str, ad.AnnData]:
    """Two studies of other genes; the second lacks the column of batches."""
    one, two = cells[:25, :70].copy(), cells[25:, 10:].copy()
    del two.obs["batch"]
    return {"one": one, "two": two}


def test_studies_of_different_genes(studies, caplog):
    caplog.set_level(logging.INFO, logger="scgpt")
    integrate(studies, n_top_genes=80)
    assert_unit(studies["one"].obsm["X_scGPT"], (25, 16))
    assert_unit(studies["two"].obsm["X_scGPT"], (15, 16))
    for study in studies.values():
        assert study.uns["scgpt"]["X_scGPT"]["batches"] == ["one:a", "one:b", "two"]
        assert study.uns["scgpt"]["X_scGPT"]["n_studies"] == 2
    assert "Study 'two' holds counts." in caplog.messages
    assert "Integrating 3 batches of 40 cells over 80 genes, 60 of them measured in all." in caplog.messages


def test_copies_come_in_the_shape_of_the_data(cells, studies):
    one = integrate(cells, copy=True)
    many = integrate(studies, copy=True)
    listed = integrate(list(studies.values()), copy=True)
    assert isinstance(one, ad.AnnData)
    assert list(many) == ["one", "two"]
    assert isinstance(listed, list)
    assert listed[0].uns["scgpt"]["X_scGPT"]["batches"] == ["0:a", "0:b", "1"]
    for copy, given in zip((one, *many.values(), *listed), (cells, *studies.values(), *studies.values()), strict=True):
        assert_unit(copy.obsm["X_scGPT"], (given.n_obs, 16))
        assert "X_scGPT" not in given.obsm
        assert "scgpt" not in given.uns
        assert "_scvi_batch" not in given.obs


def test_a_saved_model_embeds_new_cells(cells, tmp_path):
    integrate(cells, save=tmp_path / "model")
    model = SCGPT.load(tmp_path / "model", adata=False)
    new = cells[[7, 2, 30]].copy()
    new.obs["batch"] = "c"  # the encoder knows no batches
    embedding = model.get_latent_representation(new, progress_bar=False)
    np.testing.assert_allclose(embedding, cells.obsm["X_scGPT"][[7, 2, 30]], atol=1e-5)


def test_a_saved_model_with_a_norm_of_batches_embeds_new_cells_of_these(cells, tmp_path):
    integrate(cells, save=tmp_path / "model", network_kwargs={"input_norm": "domain"})
    model = SCGPT.load(tmp_path / "model", adata=False)
    new = cells[[7, 2, 30]].copy()
    embedding = model.get_latent_representation(new, progress_bar=False)
    np.testing.assert_allclose(embedding, cells.obsm["X_scGPT"][[7, 2, 30]], atol=1e-5)
    new.obs["batch"] = ["a", None, "b"]
    with pytest.raises(ValueError, match=r"1 of \d+ cells have no batch in \.obs\['batch'\]"):
        model.get_latent_representation(new, progress_bar=False)
    new.obs["batch"] = "c"
    with pytest.raises(ValueError, match=r"not trained on: \['c'\]"):
        model.get_latent_representation(new, progress_bar=False)
    one, other = (
        SCGPT.load_query_data(new.copy(), tmp_path / "model", mask_share=0.0, drop_share=share) for share in (0.75, 0.0)
    )
    of_query = one.get_latent_representation(progress_bar=False)
    assert_unit(of_query, (3, 16))
    # The statistics of the new batch are those of cells with dropped genes.
    assert not np.allclose(of_query, other.get_latent_representation(progress_bar=False), atol=1e-3)
    # On from the folder, for other batches.
    integrate(cells[:, ::-1].copy(), model=tmp_path / "model")
    with pytest.raises(FileExistsError, match="already exists"):
        integrate(cells, save=tmp_path / "model")


def test_measured_zeros_as_tokens(studies, tmp_path):
    integrate(studies, include_zeros=True, save=tmp_path / "model")
    record = studies["one"].uns["scgpt"]["X_scGPT"]
    assert "'mask_share': 0.5" in record["training"]  # of dropped genes nothing would be asked
    model = SCGPT.load(tmp_path / "model", adata=False)
    two = studies["two"]
    two.obs["batch"] = "two"
    embedding = model.get_latent_representation(two, progress_bar=False)
    np.testing.assert_allclose(embedding, two.obsm["X_scGPT"], atol=1e-5)


def test_on_from_the_authors_checkpoint(cells, golden, tmp_path):
    integrate(cells, model=golden / "checkpoint", save=tmp_path / "model")
    assert_unit(cells.obsm["X_scGPT"], (40, 64))
    record = cells.uns["scgpt"]["X_scGPT"]
    assert record["checkpoint"] == "fine-tuned from checkpoint"
    assert len(record["genes"]) == 30
    assert all(gene.startswith("G") for gene in record["genes"])  # others are not in the vocabulary
    model = SCGPT.load(tmp_path / "model", adata=False)
    assert model.module.network.config.input_norm == "domain"
    embedding = model.get_latent_representation(cells[:, record["genes"]], progress_bar=False)
    np.testing.assert_allclose(embedding, cells.obsm["X_scGPT"], atol=1e-5)


def test_a_pre_norm_model_goes_on_as_from_scratch(cells, golden, tmp_path):
    first = integrate(cells, save=tmp_path / "first", copy=True)
    second = integrate(cells, model=tmp_path / "first", save=tmp_path / "second", copy=True)
    authors = integrate(cells, model=golden / "checkpoint", copy=True)
    trained = [adata.uns["scgpt"]["X_scGPT"]["training"] for adata in (first, second, authors)]
    assert trained[0] == trained[1] != trained[2]
    config = SCGPT.load(tmp_path / "second", adata=False).module.network.config
    assert (config.norm, config.input_norm, config.d_model) == ("pre", None, 16)


def test_a_model_that_is_given_stays_as_it_is(cells, golden):
    model = SCGPT.from_pretrained(golden / "checkpoint")
    before, config = weights_of(model), model.module.network.config
    integrate(cells, model=model)
    assert model.module.network.config == config
    assert model.adata is None
    after = weights_of(model)
    assert before.keys() == after.keys()
    assert all(np.array_equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize("changes", [{"batch_embedding": False}, {"adversary": False}, {"input_norm": "domain"}])
def test_parts_can_be_switched(cells, changes):
    integrate(cells, network_kwargs=changes)
    assert_unit(cells.obsm["X_scGPT"], (40, 16))


def test_batches_may_be_numbers_small_and_cells_of_one_name(cells):
    cells.obs["batch"] = [0, 1] * 19 + [1, 7]
    cells.obs_names = ["cell"] * 40
    integrate(cells, n_top_genes=1000)
    assert_unit(cells.obsm["X_scGPT"], (40, 16))
    record = cells.uns["scgpt"]["X_scGPT"]
    assert record["batches"] == ["0", "1", "7"]
    assert len(record["genes"]) == 80


def test_a_batch_of_one_cell(cells):
    cells.obs["batch"] = ["c"] + ["a", "b"] * 19 + ["a"]
    for input_norm in (None, "domain"):
        integrate(cells, network_kwargs={"input_norm": input_norm})
        assert_unit(cells.obsm["X_scGPT"], (40, 16))
        assert cells.uns["scgpt"]["X_scGPT"]["batches"] == ["a", "b", "c"]


def test_gene_names_from_a_column(cells):
    integrate(cells)
    cells.var["symbol"] = cells.var_names
    cells.var_names = [f"ENSG{i:011d}" for i in range(80)]
    integrate(cells, gene_key="symbol", key_added="by_column")
    assert np.array_equal(cells.obsm["by_column"], cells.obsm["X_scGPT"])
    with pytest.raises(KeyError, match="gene_key='name' is not a column"):
        integrate(cells, gene_key="name")


def with_value(cells: ad.AnnData, value: float) -> ad.AnnData:
    cells.X[3, int(cells.X[3].indices[0])] = value
    return cells


def without_expression(cells: ad.AnnData) -> ad.AnnData:
    cells.X = sp.csr_matrix(cells.shape, dtype=np.float32)
    return cells


def without_batch(cells: ad.AnnData) -> ad.AnnData:
    cells.obs["batch"] = cells.obs["batch"].mask(np.arange(40) < 2)
    return cells


@pytest.mark.parametrize(
    ("make", "kwargs", "error", "message"),
    [
        (lambda x: x, {"batch_key": "donor"}, KeyError, r"batch_key='donor' is not a column of \.obs; .*'batch'"),
        (lambda x: x[::2].copy(), {}, ValueError, "one batch alone"),
        (without_batch, {}, ValueError, r"2 of 40 cells have no batch in \.obs\['batch'\]"),
        (lambda x: with_value(x, -2), {}, ValueError, r"negative values(.|\n)*rows \[3\]"),
        (lambda x: with_value(x, np.nan), {}, ValueError, r"NaN or infinite values(.|\n)*rows \[3\]"),
        (without_expression, {}, ValueError, "No cell expresses any gene"),
        (lambda x: x, {"train_kwargs": {"seed": 1}}, ValueError, "Pass seed to integrate itself"),
        (lambda x: x, {"layer": "counts"}, KeyError, "no layer 'counts'"),
        (lambda x: [], {}, ValueError, "no data set to integrate"),
        (lambda x: {1: x, "1": x}, {}, ValueError, "Two studies have one name"),
        (lambda x: "cells.h5ad", {}, TypeError, "read the file"),
        (lambda x: [x, "cells.h5ad"], {}, TypeError, "read the file"),
    ],
)
def test_bad_input_is_named(cells, make, kwargs, error, message):
    with pytest.raises(error, match=message):
        integrate(make(cells), **kwargs)


def test_numbered_batches_are_known_again(cells, tmp_path):
    cells.obs["batch"] = (cells.obs["batch"] == "a").astype(int)
    integrate(cells, save=tmp_path / "model")
    model = SCGPT.load(tmp_path / "model", adata=False)
    chosen = cells[:, list(cells.uns["scgpt"]["X_scGPT"]["genes"])].copy()
    again = model.get_latent_representation(chosen, progress_bar=False)
    np.testing.assert_allclose(again, cells.obsm["X_scGPT"], atol=1e-5)


def test_genes_that_no_vocabulary_has_are_an_error(cells, golden):
    cells.var_names = [f"x{i}" for i in range(80)]
    with pytest.raises(ValueError, match="None of the 80 genes"):
        integrate(cells, model=golden / "checkpoint")


def test_files(cells, tmp_path):
    cells.write_h5ad(tmp_path / "cells.h5ad")
    backed = ad.read_h5ad(tmp_path / "cells.h5ad", backed="r")
    with pytest.raises(ValueError, match="copy=True"):
        integrate(backed[:20])
    integrate(backed)
    integrate(cells)
    assert np.array_equal(backed.obsm["X_scGPT"], cells.obsm["X_scGPT"])
    copy = integrate(backed[:20], copy=True)
    assert_unit(copy.obsm["X_scGPT"], (20, 16))
    backed.file.close()


@pytest.mark.real
@pytest.mark.slow
def test_real_cells(shared):
    adata = ad.read_h5ad(shared / "data" / "sc_mixology.h5ad")
    adata = adata[np.random.default_rng(0).permutation(adata.n_obs)[:300]].copy()
    integrate(adata, n_top_genes=300, max_epochs=3)
    assert_unit(adata.obsm["X_scGPT"], (300, 16))
    sc.pp.neighbors(adata, use_rep="X_scGPT")
