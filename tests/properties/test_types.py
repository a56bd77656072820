"""The type of a matrix changes nothing that is computed of it: nothing overflows, nothing is summed in too little."""

import warnings

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import assume, given

from scgpt.data import expression_of, scale_of
from scgpt.metrics._moments import LogValues
from scgpt.metrics.baselines._cells import log_values

from ._strategies import DTYPES, FORMS, expressions, to_adata

HIGHEST = {"b1": 1, "f2": 2**15, "f4": 2.0**40, "f8": 2.0**40}


def dense(matrix) -> np.ndarray:
    return matrix.toarray() if sp.issparse(matrix) else np.asarray(matrix)


def logged(counts: np.ndarray, target: float) -> np.ndarray:
    totals = counts.sum(1, keepdims=True, dtype=np.float64)
    return np.log1p(counts * np.divide(target, totals, out=np.zeros_like(totals), where=totals > 0))


@given(expressions())
def test_expression_is_log_normalised_as_in_double_precision(cells):
    assume(scale_of(cells.adata()) == "counts")
    expected = logged(cells.dense.astype(np.float64), 1e4)
    np.testing.assert_allclose(dense(expression_of(cells.adata(), target_sum=1e4)), expected, rtol=1e-5)
    np.testing.assert_allclose(dense(log_values(cells.adata(), None, normalize=True)), expected, rtol=1e-5)


@given(expressions())
def test_means_and_variances_are_those_of_double_precision(cells):
    exact, rows = cells.dense.astype(np.float64), np.arange(len(cells.dense))
    moments = LogValues.of(cells.adata(), None).moments([rows])
    np.testing.assert_allclose(moments.mean[0], exact.mean(0), rtol=1e-12)
    if len(exact) > 1:
        scale = (exact**2).mean(0)
        np.testing.assert_allclose(moments.variance[0], exact.var(0, ddof=1), rtol=1e-9, atol=1e-12 * scale.max())


@pytest.mark.parametrize("form", sorted(FORMS))
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_the_highest_counts_of_a_type_do_not_overflow(dtype, form):
    """Totals of a cell are 2,000 times what the type holds."""
    highest = HIGHEST.get(dtype.str[1:]) or np.iinfo(dtype).max
    counts = np.full((3, 2000), highest, dtype)
    counts[1, ::2], counts[2, 1:] = 0, 0
    adata = to_adata(FORMS[form](counts), [f"G{i}" for i in range(2000)])
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        values = dense(expression_of(adata, target_sum=1e4))
        of_baselines = dense(log_values(adata, None, normalize=True))
        mean = LogValues.of(adata, None).moments([np.arange(3)]).mean[0]
    expected = logged(counts.astype(np.float64), 1e4)
    np.testing.assert_allclose(values, expected, rtol=1e-5)
    np.testing.assert_allclose(of_baselines, expected, rtol=1e-5)
    np.testing.assert_allclose(mean, counts.mean(0, dtype=np.float64), rtol=1e-12)
