import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scanpy as sc
import scipy.sparse as sp

from scgpt.data._features import StudyExpression, variable_genes


def study(matrix, batches=None, genes=None) -> StudyExpression:
    rows = sp.csr_matrix(np.asarray(matrix, np.float32))
    genes = [f"G{i:03d}" for i in range(rows.shape[1])] if genes is None else genes
    return StudyExpression(genes, rows, np.zeros(rows.shape[0], np.int64) if batches is None else np.asarray(batches))


@pytest.fixture
def matrix(rng) -> np.ndarray:
    """Counts of 90 cells; each gene has its own mean and spread."""
    return rng.negative_binomial(rng.uniform(0.2, 3, 80), rng.uniform(0.1, 0.8, 80), (90, 80)).astype(np.float32)


@pytest.mark.parametrize(
    ("values", "scale"),
    [
        ([[0, 1], [7, 300]], "counts"),
        ([[0, 0.5], [3.2, 7.9]], "log-normalised"),
        ([[0, 0.5], [31.2, 250.7]], "normalised"),
        ([[0, 0], [0, 0]], "counts"),
    ],
)
def test_scale_is_told_by_the_values(values, scale):
    assert study(values).scale == scale


@pytest.mark.parametrize("n_batches", [1, 3])
def test_genes_of_one_study_are_those_of_scanpy(matrix, n_batches):
    batches = np.arange(90) % n_batches
    cells = ad.AnnData(
        sp.csr_matrix(matrix), obs=pd.DataFrame({"batch": pd.Categorical(batches)}, index=names("c", 90))
    )
    cells.var_names = names("G", 80)
    sc.pp.normalize_total(cells)
    sc.pp.log1p(cells)
    genes = variable_genes([study(matrix, batches, list(cells.var_names))], 20)
    sc.pp.highly_variable_genes(cells, n_top_genes=20, batch_key="batch")
    assert genes == sorted(cells.var_names[cells.var["highly_variable"]])


def names(letter: str, n: int) -> list[str]:
    return [f"{letter}{i:03d}" for i in range(n)]


def test_counts_and_log_normalised_values_give_the_same_genes(matrix):
    logged = ad.AnnData(matrix.copy())
    sc.pp.normalize_total(logged)
    normalised = logged.X.copy()
    sc.pp.log1p(logged)
    forms = [study(matrix), study(normalised), study(logged.X)]
    assert [form.scale for form in forms] == ["counts", "normalised", "log-normalised"]
    a, b, c = (variable_genes([form], 20) for form in forms)
    assert a == b == c
    assert len(a) == 20


def test_genes_that_vary_in_most_batches_of_all_studies_come_first(matrix):
    """Of two studies the second calls the genes from the fortieth by other names."""
    one = study(matrix)
    two = study(matrix, genes=names("G", 80)[:40] + names("H", 80)[40:])
    alone = set(variable_genes([one], 20))
    shared = {gene for gene in alone if gene < "G040"}
    assert 0 < len(shared) < 20
    both = set(variable_genes([one, two], 20))
    assert shared <= both
    assert {gene.replace("H", "G") for gene in both} <= alone


def test_batches_of_a_few_cells_have_no_say(matrix):
    alone = variable_genes([study(matrix)], 20)
    few = np.zeros((4, 80), np.float32)
    few[0, 40:] = 500
    assert variable_genes([study(np.vstack([matrix, few]), [0] * 90 + [1] * 3 + [2])], 20) == alone


def test_batches_that_are_all_small_have_one(matrix):
    assert len(variable_genes([study(matrix[:12], np.arange(12) // 4)], 20)) == 20
    assert len(variable_genes([study(matrix[:3], [0, 1, 2])], 20)) == 20  # one cell each: all genes tie


def test_ties_do_not_depend_on_the_order_of_genes(matrix):
    matrix[:, 1:60:2] = matrix[:, :60:2]  # pairs of genes that are the same
    order = np.arange(80)[::-1]
    forwards = study(matrix, genes=names("G", 80))
    backwards = study(matrix[:, order], genes=[names("G", 80)[i] for i in order])
    for n_genes in (5, 20, 33):
        assert variable_genes([forwards], n_genes) == variable_genes([backwards], n_genes)


@pytest.mark.parametrize("n_genes", [40, 41, 80])
def test_genes_that_no_cell_expresses_come_last(matrix, n_genes):
    matrix[:, ::2] = 0
    genes = variable_genes([study(matrix), study(matrix)], n_genes)
    assert len(genes) == n_genes
    assert set(genes) >= set(names("G", 80)[1::2])


def test_more_genes_than_there_are_is_all(matrix):
    assert variable_genes([study(matrix), study(matrix, genes=names("H", 80))], 1000) == names("G", 80) + names("H", 80)


def test_a_study_without_any_value_has_no_favourites(matrix):
    empty = study(np.zeros((20, 80)))
    assert len(variable_genes([empty], 10)) == 10
    assert variable_genes([study(matrix), empty], 80) == names("G", 80)


def test_no_gene_at_all_is_refused(matrix):
    with pytest.raises(ValueError, match="must be a whole number of at least 1"):
        variable_genes([study(matrix)], 0)


def test_cells_and_batches_without_counts_do_no_harm(matrix):
    matrix[:30] = 0
    genes = variable_genes([study(matrix, np.arange(90) // 30)], 20)
    assert genes == variable_genes([study(matrix[30:], np.arange(60) // 30)], 20)
