import numpy as np
import pytest
import scipy.sparse as sp

import scgpt
from scgpt.tl._gene_graph import coexpression_of

SETS = {group: [f"{group}{i}" for i in range(8)] for group in "ABC"} | {"X": [f"X{i}" for i in range(9)]}


def compare(adata, model, **kwargs):
    defaults = {"genes": "all", "n_neighbors": 6, "resolutions": (1.0, 4.0), "progress_bar": False}
    return scgpt.tl.compare_pathways(adata, model, SETS, **(defaults | kwargs))


def test_counts_what_each_finds(grouped_cells, grouped_model):
    assert compare(grouped_cells, grouped_model) is None
    result = grouped_cells.uns["scgpt_pathways"]
    counts = result["counts"]
    assert list(counts["resolution"]) == [1.0, 4.0]
    assert counts.loc[0, ["model", "coexpression", "shared"]].tolist() == [3, 3, 3]  # both hold the groups
    assert (counts["model"] == counts["shared"] + counts["only_model"]).all()
    assert (counts["coexpression"] == counts["shared"] + counts["only_coexpression"]).all()
    pathways = result["pathways"].set_index("gene_set")
    assert pathways["found_by"].to_dict() == {"A": "both", "B": "both", "C": "both"}
    assert (pathways[["pvalue_model", "pvalue_coexpression"]] < 0.05).all(axis=None)


def test_what_cells_do_not_tell_only_the_model_finds(grouped_cells, grouped_model):
    values = grouped_cells.X.toarray()
    rng = np.random.default_rng(0)
    for column in range(8):  # the genes of A no longer go together in cells
        values[:, column] = rng.permutation(values[:, column])
    grouped_cells.X = sp.csr_matrix(values)
    copy = compare(grouped_cells, grouped_model, copy=True)
    assert "scgpt_pathways" not in grouped_cells.uns
    pathways = copy.uns["scgpt_pathways"]["pathways"].set_index("gene_set")
    assert pathways.loc["A", "found_by"] == "model"
    assert pathways.loc["B", "found_by"] == "both"
    assert copy.uns["scgpt_pathways"]["counts"].loc[0, "only_model"] == 1


def test_the_clusters_are_those_of_gene_programs(grouped_cells, grouped_model):
    compare(grouped_cells, grouped_model, resolutions=[2.0])
    scgpt.tl.gene_programs(grouped_cells, grouped_model, genes="all", n_neighbors=6, resolution=2.0, progress_bar=False)
    table = grouped_cells.uns["scgpt_programs"]["table"]
    assert grouped_cells.uns["scgpt_pathways"]["counts"].loc[0, "programs_model"] == len(table)


def test_cosines_of_points_are_correlations(rng):
    values = rng.poisson(2.0, (50, 12)).astype(float)
    values[:, 3] = 1
    points = coexpression_of(sp.csr_matrix(values)).astype(float)
    cosines = points @ points.T
    with np.errstate(invalid="ignore"):
        expected = np.nan_to_num(np.corrcoef(values.T))
    expected[3, 3] = 1
    np.testing.assert_allclose(cosines, expected, atol=1e-5)


def test_bad_input(grouped_cells, grouped_model):
    with pytest.raises(ValueError, match="resolutions= is empty"):
        compare(grouped_cells, grouped_model, resolutions=())
    with pytest.raises(ValueError, match="No program has 50 genes"):
        compare(grouped_cells, grouped_model, min_genes=50)


def test_a_resolution_at_which_no_program_is_large_enough_counts_none(grouped_cells, grouped_model):
    compare(grouped_cells, grouped_model, resolutions=(1.0, 200.0))
    counts = grouped_cells.uns["scgpt_pathways"]["counts"]
    assert counts.loc[1, ["programs_model", "programs_coexpression", "model", "coexpression"]].tolist() == [0, 0, 0, 0]
    assert counts.loc[0, "model"] == 3
