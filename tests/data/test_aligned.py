import numpy as np
import pytest
import scipy.sparse as sp

from scgpt.data import aligned, profiles_of


def test_columns_are_moved_and_of_several_the_highest_value_stays():
    rows = sp.csr_matrix(np.array([[1, 2, 3, 4], [0, 5, 0, 6]], np.uint8))
    moved = aligned(rows, np.array([3, -1, 0, 3]), 5, np.arange(2))
    assert moved.toarray().tolist() == [[3, 0, 0, 4, 0], [0, 0, 0, 6, 0]]
    assert moved.dtype == np.float32
    assert moved.has_canonical_format
    assert moved.nnz == 3
    assert rows.nnz == 6  # what came in is left alone


def test_values_that_cannot_be_expression_name_the_cell():
    rows = sp.csr_matrix(np.array([[1.0, 0], [0, -1]]))
    with pytest.raises(ValueError, match=r"negative values.*rows \[11\]"):
        aligned(rows, np.array([0, 1]), 2, np.array([10, 11]))


def test_profiles_tell_the_order_of_expression_alone(rng):
    counts = rng.poisson(2, (40, 30)).astype(np.float32)
    profiles = profiles_of(sp.csr_matrix(counts))
    assert np.array_equal(profiles, profiles_of(sp.csr_matrix(np.log1p(counts))))
    assert len(set(profiles.tolist())) == 40
    shuffled = sp.csr_matrix(counts)
    for a, b in zip(shuffled.indptr[:-1], shuffled.indptr[1:], strict=True):
        order = rng.permutation(b - a) + a
        shuffled.data[a:b], shuffled.indices[a:b] = shuffled.data[order], shuffled.indices[order]
    assert np.array_equal(profiles, profiles_of(shuffled))
    other = counts.copy()
    other[:, 4] += 10
    assert not (profiles_of(sp.csr_matrix(other)) == profiles).any()
