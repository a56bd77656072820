"""The inner loops by themselves; what they add up to is tested through the functions that call them."""

import numpy as np
import scipy.sparse as sp

from scgpt.data._kernels import NEGATIVE, NOT_FINITE, merge, survey

SLOTS = np.array([0, -1, 1, 0])  # columns 0 and 3 carry one gene, column 1 none


def csr(rows):
    matrix = sp.csr_matrix(np.array(rows, dtype=np.float32))
    return matrix.indptr.astype(np.int64), matrix.indices.astype(np.int32), matrix.data


def test_survey_counts_known_genes_and_flags_every_column():
    n_genes, flags = survey(*csr([[1, 5, 2, 0], [0, 0, 0, 0], [0, np.nan, 1, 0], [0, -1, np.inf, 3]]), SLOTS)
    assert n_genes.tolist() == [2, 0, 1, 1]
    assert flags.tolist() == [0, 0, NOT_FINITE, NOT_FINITE | NEGATIVE]


def test_merge_keeps_the_highest_value_of_each_gene_within_a_cell():
    indptr, indices, data = merge(*csr([[1, 9, 2, 4], [7, 0, 0, 3], [0, 9, 0, 0], [0, 0, 5, 6]]), SLOTS, 2)
    rows = [
        dict(zip(indices[a:b].tolist(), data[a:b].tolist(), strict=True))
        for a, b in zip(indptr, indptr[1:], strict=False)
    ]
    assert rows == [{0: 4.0, 1: 2.0}, {0: 7.0}, {}, {0: 6.0, 1: 5.0}]
