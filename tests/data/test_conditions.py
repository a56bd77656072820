import anndata as ad
import numpy as np
import pytest
import scipy.sparse as sp

from scgpt.data import Cells, Conditions, GeneVocab, Tokenizer, conditions_of_genes, mask_values

N_CELLS, N_VARS = 12, 9
VOCAB = GeneVocab.from_genes(f"G{i}" for i in range(N_VARS))
MEMBERS = [np.array([2, 5]), np.array([], np.int64), np.array([0, 2, 8]), np.array([2])]


@pytest.fixture
def counts(rng) -> sp.csr_matrix:
    return sp.csr_matrix(rng.poisson(0.7, (N_CELLS, N_VARS)).astype(np.float32))


def expected(batch, of_cells) -> list[set[int]]:
    """The conditions of each token, by their definition."""
    sets = [{i + 1 for i, own in enumerate(MEMBERS) if gene in own} for gene in batch.gene_ids.tolist()]
    cells = batch.cell_index[batch.cell_of_token].tolist()
    return [own | (set(of_cells[cell].tolist()) - {0}) for own, cell in zip(sets, cells, strict=True)]


def test_sets_of_each_gene():
    table = conditions_of_genes(MEMBERS, len(VOCAB))
    assert table.shape == (len(VOCAB), 3)
    assert {gene: row.tolist() for gene, row in enumerate(table) if row.any()} == {
        0: [3, 0, 0],
        2: [1, 3, 4],
        5: [1, 0, 0],
        8: [3, 0, 0],
    }
    assert conditions_of_genes([], 4).shape == (4, 0)


@pytest.mark.parametrize("n_columns", [0, 1, 2])
@pytest.mark.parametrize("include_zeros", [False, True])
def test_every_token_has_those_of_its_gene_and_its_cell(n_columns, include_zeros, counts, rng):
    of_cells = np.where(rng.random((N_CELLS, n_columns)) < 0.3, 0, 5 + rng.integers(0, 3, (N_CELLS, n_columns)))
    conditions = Conditions(conditions_of_genes(MEMBERS, len(VOCAB)), of_cells)
    cells = Cells(ad.AnnData(counts), np.arange(N_VARS), conditions=conditions)
    tokenizer = Tokenizer(VOCAB, max_length=6, include_zeros=include_zeros)
    batch = cells.tokenize(np.array([3, 0, 3, 11, 7]), tokenizer)
    assert batch.condition_ids.shape == (batch.n_tokens, conditions.width) == (batch.n_tokens, 3 + n_columns)
    assert str(batch.condition_ids.dtype) == "torch.int64"
    found = [set(row) - {0} for row in batch.condition_ids.tolist()]
    assert found == expected(batch, of_cells)
    # A <cls> token stands under the conditions of its cell alone.
    assert [found[i] for i in batch.first.tolist()] == [set(of_cells[c].tolist()) - {0} for c in (3, 0, 3, 11, 7)]
    masked = mask_values(batch, 0.5, mask_value=-1.0, key=1)
    assert masked.condition_ids is batch.condition_ids


def test_without_conditions_there_are_none(counts):
    assert Cells(ad.AnnData(counts), np.arange(N_VARS)).tokenize(np.arange(3), Tokenizer(VOCAB)).condition_ids is None


def test_the_digest_is_that_of_genes_and_of_the_cells_asked_for():
    table, of_cells = conditions_of_genes(MEMBERS, len(VOCAB)), np.array([[5], [6], [5]])
    digest = Conditions(table, of_cells).digest(np.array([0, 1]))
    assert digest == Conditions(table, of_cells + np.array([[0], [0], [1]])).digest(np.array([0, 1]))
    assert digest != Conditions(table, of_cells + 1).digest(np.array([0, 1]))
    assert digest != Conditions(conditions_of_genes(MEMBERS[::-1], len(VOCAB)), of_cells).digest(np.array([0, 1]))
