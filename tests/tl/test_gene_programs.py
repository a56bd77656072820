import anndata
import numpy as np
import pandas as pd
import pytest
import scanpy as sc
import scipy.sparse as sp

import scgpt

GROUPS = [[f"{group}{i}" for i in range(8)] for group in "ABC"]

DEFAULTS = {"genes": "all", "n_neighbors": 6, "resolution": 1.0, "progress_bar": False}


def programs(adata, model, **kwargs):
    return scgpt.tl.gene_programs(adata, model, **(DEFAULTS | kwargs))


def test_finds_the_genes_that_are_alike(grouped_cells, grouped_model):
    assert programs(grouped_cells, grouped_model, groupby="type") is None
    found = grouped_cells.var["scgpt_program"]
    own = [set(found.index[found == name]) for name in found.cat.categories]
    for group in GROUPS:  # by themselves, but for a few of those that are like none
        assert len(next(genes for genes in own if group[0] in genes) ^ set(group)) <= 2
    table = grouped_cells.uns["scgpt_programs"]["table"]
    assert list(table.index) == list(found.cat.categories)
    assert list(table["n_genes"]) == sorted(table["n_genes"], reverse=True) == [len(genes) for genes in own]
    for group in GROUPS:
        name = found[group[0]]
        genes = table.loc[name, "genes"].split(", ")
        assert set(genes) >= set(group)
        assert genes.index(f"{group[0][0]}0") < 4  # nearest to the centre by construction
        assert table.loc[name, "stability"] > 0.8
    rand = grouped_cells.uns["scgpt_programs"]["adjusted_rand"]
    assert rand.shape == (5, 5)
    assert np.array_equal(rand.diagonal(), np.ones(5))
    embedding = grouped_cells.varm["scgpt_gene"]
    assert embedding.shape == (60, 32)
    np.testing.assert_allclose(np.linalg.norm(embedding, axis=1), 1, atol=1e-6)


def test_activity_is_high_in_the_cells_that_express_a_program(grouped_cells, grouped_model):
    programs(grouped_cells, grouped_model, groupby="type")
    scores = grouped_cells.obsm["scgpt_program_scores"]
    activity = grouped_cells.uns["scgpt_programs"]["activity"]
    assert list(activity.index) == ["a/1", "b", "c"]
    for group, of_type in zip(GROUPS, activity.index, strict=True):
        name = grouped_cells.var.loc[group[0], "scgpt_program"]
        assert activity[name].idxmax() == of_type
        expected = scores.loc[(grouped_cells.obs["type"] == of_type).to_numpy(), name].mean()
        assert activity.loc[of_type, name] == pytest.approx(expected, abs=1e-6)
        assert activity.loc[of_type, name] > 0.7 > activity[name].drop(of_type).max()


def test_counts_and_log_normalised_values_give_the_same(grouped_cells, grouped_model):
    logs = grouped_cells.copy()
    sc.pp.normalize_total(logs)
    sc.pp.log1p(logs)
    logs.layers["logs"] = logs.X
    logs.X = None
    programs(grouped_cells, grouped_model)
    programs(logs, grouped_model, layer="logs")
    own = grouped_cells.obsm["scgpt_program_scores"].to_numpy()
    np.testing.assert_allclose(logs.obsm["scgpt_program_scores"].to_numpy(), own, atol=1e-5)


def test_chosen_genes(grouped_cells, grouped_model):
    grouped_cells.var["highly_variable"] = [name[0] in "AB" for name in grouped_cells.var_names]
    programs(grouped_cells, grouped_model, genes="hvg")
    assert grouped_cells.var["scgpt_program"].notna().sum() == 16
    assert set(grouped_cells.uns["scgpt_programs"]["background"]) == {*GROUPS[0], *GROUPS[1]}
    assert np.isfinite(grouped_cells.varm["scgpt_gene"]).all(1).sum() == 16
    del grouped_cells.var["highly_variable"]
    programs(grouped_cells, grouped_model, genes="hvg", n_top_genes=24)
    assert len(grouped_cells.uns["scgpt_programs"]["background"]) == 24
    programs(grouped_cells, grouped_model, genes=[f"S{gene}" for gene in GROUPS[2]])  # by the column of symbols
    assert set(grouped_cells.uns["scgpt_programs"]["background"]) == set(GROUPS[2])


def test_contextual_embeddings_leave_out_genes_that_no_cell_expresses(grouped_cells, grouped_model):
    grouped_cells.X = grouped_cells.X.toarray()
    grouped_cells.X[:, 3] = 0
    programs(grouped_cells, grouped_model, embedding="contextual")
    background = grouped_cells.uns["scgpt_programs"]["background"]
    assert len(background) == 59
    assert "A3" not in background
    assert np.isnan(grouped_cells.varm["scgpt_gene"][3]).all()
    assert grouped_cells.uns["scgpt"]["scgpt_programs"]["embedding"] == "contextual"


def test_a_copy_a_key_and_a_file(grouped_cells, grouped_model, tmp_path):
    copy = programs(grouped_cells, grouped_model, groupby="type", key_added="mine", copy=True)
    assert "mine_program" not in grouped_cells.var
    copy.write_h5ad(tmp_path / "cells.h5ad")
    again = anndata.read_h5ad(tmp_path / "cells.h5ad")
    pd.testing.assert_frame_equal(again.uns["mine_programs"]["activity"], copy.uns["mine_programs"]["activity"])
    assert again.uns["scgpt"]["mine_programs"]["resolution"] == 1
    backed = anndata.read_h5ad(tmp_path / "cells.h5ad", backed="r")
    own = programs(backed, grouped_model, copy=True)
    backed.file.close()
    np.testing.assert_allclose(
        own.obsm["scgpt_program_scores"].to_numpy(), copy.obsm["mine_program_scores"].to_numpy(), atol=1e-6
    )


def test_bad_input(grouped_cells, grouped_model):
    with pytest.raises(ValueError, match=r"No program has 30 genes: 60 genes fall into \d+ clusters of at most"):
        programs(grouped_cells, grouped_model, min_genes=30)
    with pytest.raises(KeyError, match=r"groupby='kind' is not a column of \.obs; there are \['type'\]"):
        programs(grouped_cells, grouped_model, groupby="kind")
    with pytest.raises(KeyError, match="a0, b1 are not among the genes of adata; .* told apart by case: A0, B1"):
        programs(grouped_cells, grouped_model, genes=["a0", "b1", "C1"])
    with pytest.raises(ValueError, match="There are 1 genes to work on"):
        programs(grouped_cells, grouped_model, genes=["A0"])
    with pytest.raises(ValueError, match="embedding must be 'input' or 'contextual'"):
        programs(grouped_cells, grouped_model, embedding="output")
    with pytest.raises(ValueError, match="n_runs must be a whole number of at least 1"):
        programs(grouped_cells, grouped_model, n_runs=0)
    strange = grouped_cells.copy()
    strange.var_names = [*strange.var_names[:-1], "NOT_KNOWN"]
    with pytest.warns(UserWarning, match="1 genes are not known to the model and left out: NOT_KNOWN"):
        programs(strange, grouped_model, genes=[*GROUPS[0], "NOT_KNOWN"])
    grouped_cells.X = sp.csr_matrix(grouped_cells.X.toarray() - 1)
    with pytest.raises(ValueError, match="holds negative values"):
        programs(grouped_cells, grouped_model)
    assert "scgpt_program" not in grouped_cells.var
