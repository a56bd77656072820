import numpy as np
import pytest
import scipy.sparse as sp
from scipy import stats

from scgpt.metrics._rank_test import mann_whitney


@pytest.fixture
def values(rng) -> np.ndarray:
    x = np.log1p(rng.poisson(0.6, (60, 12)))
    x[:, 3] = 0
    x[:, 4] = 1.5
    x[:, 5] -= 1  # negative, zero and positive
    x[:, 6] = rng.normal(size=60)
    x[:12, 7] = 0
    return x


@pytest.mark.parametrize("kind", [np.asarray, sp.csr_matrix, sp.csr_array])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_scipy_gives_the_same(kind, dtype, values):
    x = values.astype(dtype)
    bounds = [(0, 12), (12, 30), (30, 32), (32, 33)]
    p = mann_whitney([kind(x[a:b]) for a, b in bounds], kind(x[33:]))
    expected = [
        stats.mannwhitneyu(x[a:b].astype(float), x[33:].astype(float), method="asymptotic", axis=0).pvalue
        for a, b in bounds
    ]
    np.testing.assert_allclose(p, np.where(np.isnan(expected), 1, expected), rtol=1e-9)
    assert (p[:, [3, 4]] == 1).all()
    assert p.min() < 0.1


def test_zeros_that_are_stored_are_zeros(values):
    x = sp.csr_matrix(values)
    stored = x.copy()
    stored.data[::3] = 0
    expected = stored.copy()
    expected.eliminate_zeros()
    np.testing.assert_array_equal(mann_whitney([stored[:20]], x[20:]), mann_whitney([expected[:20]], x[20:]))
    assert stored.nnz == x.nnz


def test_dense_and_sparse_may_stand_beside_one_another(values):
    expected = mann_whitney([values[:20], values[20:30]], values[30:])
    np.testing.assert_array_equal(mann_whitney([sp.csr_array(values[:20]), values[20:30]], values[30:]), expected)
