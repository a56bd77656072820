from importlib.metadata import version

import anndata
import numpy as np
import pytest
import scipy.sparse as sp

import scgpt
from scgpt.model import SCGPT

pytestmark = pytest.mark.usefixtures("auto_is_float32")


@pytest.fixture
def cells(rng) -> anndata.AnnData:
    matrix = sp.csr_matrix(rng.poisson(0.5, (40, 120)).astype(np.float32))
    adata = anndata.AnnData(matrix)
    adata.var_names = [f"G{i:04d}" if i < 90 else f"OTHER{i}" for i in range(120)]
    return adata


@pytest.fixture(scope="module")
def model(golden) -> SCGPT:
    return SCGPT.from_pretrained(golden / "checkpoint")


def embed(adata, model, **kwargs):
    return scgpt.tl.embed(adata, model, progress_bar=False, **kwargs)


def test_writes_unit_vectors_and_provenance(cells, golden):
    assert embed(cells, golden / "checkpoint") is None
    embedding = cells.obsm["X_scGPT"]
    assert embedding.dtype == np.float32
    assert embedding.shape == (40, 64)
    assert np.allclose(np.linalg.norm(embedding, axis=1), 1, atol=1e-6)
    record = cells.uns["scgpt"]["X_scGPT"]
    assert record["version"] == version("scgpt-tools")
    assert len(record["checkpoint_sha256"]) == 64
    assert record["n_genes_matched"] == 90
    assert record["genes_unmatched"] == [f"OTHER{i}" for i in range(90, 120)]


def test_provenance_of_a_fine_tuned_model(cells, golden):
    SCGPT.setup_anndata(cells)
    model = SCGPT.from_pretrained(golden / "checkpoint", cells)
    model.train(1, enable_progress_bar=False)
    embed(cells, model)
    record = cells.uns["scgpt"]["X_scGPT"]
    assert (record["checkpoint"], record["checkpoint_sha256"]) == ("fine-tuned from checkpoint", "")
    assert (record["layer"], record["precision"]) == ("X", "float32")


def test_a_copy_leaves_the_input_alone(cells, model):
    copy = embed(cells, model, copy=True)
    assert "X_scGPT" not in cells.obsm
    assert "scgpt" not in cells.uns
    embed(cells, model)
    assert np.array_equal(copy.obsm["X_scGPT"], cells.obsm["X_scGPT"])


def test_keys_layers_and_gene_columns(cells, model):
    embed(cells, model)
    other = cells.copy()
    other.layers["counts"] = other.X
    other.X = None
    other.var["feature_name"] = other.var_names
    other.var_names = [f"ENSG{i:011d}" for i in range(120)]
    embed(other, model, layer="counts", key_added="X_one")
    embed(other, model, layer="counts", gene_key="feature_name", key_added="X_two")
    assert np.array_equal(other.obsm["X_one"], cells.obsm["X_scGPT"])
    assert np.array_equal(other.obsm["X_two"], cells.obsm["X_scGPT"])
    assert set(other.uns["scgpt"]) == {"X_scGPT", "X_one", "X_two"}
    assert other.uns["scgpt"]["X_one"]["layer"] == "counts"


def test_a_mapping_renames_genes(cells, model):
    embed(cells, model)
    mapping = {f"ENSG{i:011d}": name for i, name in enumerate(cells.var_names)}
    cells.var_names = [f"{name}.3" for name in mapping]
    embed(cells, model, gene_mapping=mapping, key_added="X_mapped")
    assert np.array_equal(cells.obsm["X_mapped"], cells.obsm["X_scGPT"])


def test_results_can_be_written_to_a_file(cells, model, tmp_path):
    embed(cells, model)
    cells.write_h5ad(tmp_path / "cells.h5ad")
    read = anndata.read_h5ad(tmp_path / "cells.h5ad")
    assert np.array_equal(read.obsm["X_scGPT"], cells.obsm["X_scGPT"])
    assert list(read.uns["scgpt"]["X_scGPT"]["genes_unmatched"]) == cells.uns["scgpt"]["X_scGPT"]["genes_unmatched"]


@pytest.mark.parametrize("storage", ["csr", "csc", "dense"])
def test_every_storage_gives_the_same(cells, model, tmp_path, storage):
    embed(cells, model)
    stored = anndata.AnnData(
        {"csr": cells.X, "csc": cells.X.tocsc(), "dense": cells.X.toarray()}[storage], var=cells.var
    )
    expected = cells.obsm["X_scGPT"]
    in_memory = stored.copy()
    embed(in_memory, model)
    assert np.allclose(in_memory.obsm["X_scGPT"], expected, atol=1e-5)
    stored.write_h5ad(tmp_path / "cells.h5ad")
    backed = anndata.read_h5ad(tmp_path / "cells.h5ad", backed="r")
    embed(backed, model)
    assert np.allclose(backed.obsm["X_scGPT"], expected, atol=1e-5)
    backed.file.close()


@pytest.mark.filterwarnings("ignore::anndata.ImplicitModificationWarning")  # what anndata says of writing to a view
def test_views(cells, model, tmp_path):
    embed(cells, model)
    view = cells[5:15]
    embed(view, model, key_added="X_view")
    assert np.allclose(view.obsm["X_view"], cells.obsm["X_scGPT"][5:15], atol=1e-5)

    cells.write_h5ad(tmp_path / "cells.h5ad")
    backed = anndata.read_h5ad(tmp_path / "cells.h5ad", backed="r")
    with pytest.raises(ValueError, match="copy=True"):
        embed(backed[5:15], model)
    copy = embed(backed[5:15], model, copy=True)
    assert np.allclose(copy.obsm["X_scGPT"], cells.obsm["X_scGPT"][5:15], atol=1e-5)
    backed.file.close()


def test_progress_is_shown(cells, model, capsys):
    scgpt.tl.embed(cells, model)
    assert "40/40" in capsys.readouterr().err


def test_an_unknown_checkpoint_is_named(cells):
    with pytest.raises(ValueError, match="neither a folder nor a known checkpoint"):
        embed(cells, "whole-humam")


@pytest.mark.real
def test_real_cells_by_symbol_and_by_ensembl_id(shared):
    """Both columns of one data set lead to the same embedding."""
    adata = anndata.read_h5ad(shared / "data" / "pbmc_facs.h5ad")[:200].copy()
    adata = adata[:, ~adata.var["symbol"].duplicated()].copy()
    scratch = adata.copy()
    SCGPT.setup_anndata(scratch, gene_key="symbol")
    model = SCGPT(scratch, d_model=8, n_layers=1, n_heads=2)
    model.is_trained_ = True
    mapping = dict(zip(adata.var["ensembl"], adata.var["symbol"], strict=True))
    by_symbol, by_id = adata.copy(), adata.copy()
    by_id.var_names = [f"{name}.1" for name in adata.var["ensembl"]]
    by_id.var = by_id.var[[]]
    embed(by_symbol, model)
    embed(by_id, model, gene_mapping=mapping)
    assert np.array_equal(by_symbol.obsm["X_scGPT"], by_id.obsm["X_scGPT"])
