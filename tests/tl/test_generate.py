import anndata
import numpy as np
import pandas as pd
import pytest

import scgpt
from scgpt.model import SCGPT

ASKED = [f"GENE{i}" for i in range(0, 60, 6)]


@pytest.fixture
def model(counts) -> SCGPT:
    data = counts.copy()
    SCGPT.setup_anndata(data)
    model = SCGPT(data, d_model=8, n_layers=1, n_heads=2, n_flags=2)
    model.is_trained_ = True
    return model


def generate(adata, **kwargs):
    return scgpt.tl.generate(adata, progress_bar=False, **kwargs)


def state(adata) -> tuple:
    return adata.X.toarray().tobytes(), adata.obs.copy(), list(adata.obsm), list(adata.layers), dict(adata.uns)


@pytest.mark.parametrize(
    "how",
    [{"genes": ASKED}, {"genes": ASKED, "prompt": "both"}, {"prompt": "cell"}, {"groupby": "cell_type", "n_cells": 3}],
)
def test_gives_a_new_data_set_and_leaves_its_input_alone(counts, model, how):
    before = state(counts)
    got = generate(counts, model=model, **how)
    after = state(counts)
    pd.testing.assert_frame_equal(after[1], before[1])
    assert (after[0], *after[2:]) == (before[0], *before[2:])
    assert np.array_equal(got.X, model.generate(counts, progress_bar=False, **how).X)
    got.obs["cell_type"] = "changed"
    got.obs["more"] = 1
    pd.testing.assert_frame_equal(counts.obs, before[1])


def test_provenance_and_files(counts, model, tmp_path):
    model.save(tmp_path / "model")
    how = {"groupby": "cell_type", "n_cells": 2, "n_averaged": 4, "n_rounds": 3, "seed": 7, "genes": ASKED}
    got = generate(counts, model=tmp_path / "model", **how)
    assert np.array_equal(got.X, generate(counts, model=model, **how).X)
    got.write_h5ad(tmp_path / "generated.h5ad")
    read = anndata.read_h5ad(tmp_path / "generated.h5ad")
    assert np.array_equal(read.X, got.X) and np.array_equal(read.layers["bins"], got.layers["bins"])
    record = read.uns["scgpt"]["X"]
    assert record["function"] == "scgpt.tl.generate"
    assert (record["prompt"], record["groupby"], record["embeddings"]) == ("cell", "cell_type", "")
    assert (record["n_cells"], record["n_averaged"], record["n_rounds"], record["seed"]) == (2, 4, 3, 7)
    assert len(record["model_sha256"]) == len(record["checkpoint_sha256"]) == 64
    assert record["n_genes_matched"] == 60


def test_embeddings_by_key(counts, model):
    counts.obsm["X_raw"] = model.get_latent_representation(counts, normalize=False, progress_bar=False)
    got = generate(counts, model=model, embeddings="X_raw")
    assert np.array_equal(got.X, generate(counts, model=model, prompt="cell").X)
    assert got.uns["scgpt"]["X"]["embeddings"] == "X_raw"
    with pytest.raises(KeyError, match=r"no embedding 'X_umap' in .obsm; there are \['X_raw'\]"):
        generate(counts, model=model, embeddings="X_umap")
    scgpt.tl.embed(counts, model, progress_bar=False)
    with pytest.raises(ValueError, match="scaled to length 1, as scgpt.tl.embed writes them"):
        generate(counts, model=model, embeddings="X_scGPT")


def test_layers_names_and_storage(counts, model, tmp_path):
    expected = generate(counts, model=model, genes=ASKED)
    other = counts.copy()
    other.layers["counts"], other.X = other.X, None
    other.var["feature_name"] = other.var_names
    other.var_names = [f"ENSG{i:011d}" for i in range(60)]
    assert np.array_equal(generate(other, model=model, genes=ASKED, layer="counts").X, expected.X)
    pseudo = {"groupby": "cell_type", "n_cells": 50, "n_averaged": 2}
    counts.write_h5ad(tmp_path / "cells.h5ad")
    backed = anndata.read_h5ad(tmp_path / "cells.h5ad", backed="r")
    for adata in (backed, backed[:], counts[:, ::-1]):
        np.testing.assert_allclose(generate(adata, model=model, genes=ASKED).X, expected.X, atol=1e-4)
        again = generate(adata, model=model, **pseudo)  # of which some cells are drawn twice
        np.testing.assert_allclose(again.X, generate(counts, model=model, **pseudo)[:, again.var_names].X, atol=1e-4)
    backed.file.close()


def test_what_is_no_anndata_or_no_expression(counts, model):
    with pytest.raises(TypeError, match="read_h5ad"):
        generate("cells.h5ad", model=model)
    counts.X.data[0] = -1
    with pytest.raises(ValueError, match="negative"):
        generate(counts, model=model, genes=ASKED)
