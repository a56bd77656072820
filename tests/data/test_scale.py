import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from scgpt.data import check_log_normalised, expression_of, scale_of
from scgpt.data._scale import scale_of_values

COUNTS = np.array([[0, 3, 1], [2, 0, 40]], dtype=np.float32)
SCALES = {"counts": COUNTS, "normalised": COUNTS * 97.3, "log-normalised": np.log1p(COUNTS)}


@pytest.mark.parametrize("kind", [np.asarray, sp.csr_matrix, sp.csc_matrix, np.float16])
@pytest.mark.parametrize("scale", SCALES)
def test_scales_are_told_apart(scale, kind):
    assert scale_of(ad.AnnData(kind(SCALES[scale]))) == scale


def test_whole_numbers_of_any_type_are_counts_and_layers_have_their_own_scale():
    adata = ad.AnnData(COUNTS.astype(np.int32), layers={"log": SCALES["log-normalised"]})
    assert scale_of(adata) == "counts"
    assert scale_of(adata, "log") == "log-normalised"
    with pytest.raises(KeyError, match="There is no layer 'raw'; there are \\['log'\\]"):
        scale_of(adata, "raw")


def test_the_highest_logarithm_is_30():
    assert scale_of_values(np.array([0.5, 30], np.float32)) == "log-normalised"
    assert scale_of_values(np.array([0.5, 30.5], np.float32)) == "normalised"


def test_cells_in_which_nothing_is_expressed_hold_counts():
    assert scale_of(ad.AnnData(sp.csr_matrix((3, 2), dtype=np.float32))) == "counts"


def test_cells_all_over_the_data_set_are_looked_at(tmp_path):
    """Here the last ones alone are no counts; they are found in a file, too."""
    values = np.ones((5000, 1), np.float32)
    values[-1] = 0.5
    adata = ad.AnnData(values, obs=pd.DataFrame(index=[f"cell{i}" for i in range(5000)]))
    assert scale_of(adata) == "log-normalised"
    assert scale_of(adata[:-1]) == "counts"
    adata.write_h5ad(tmp_path / "cells.h5ad")
    assert scale_of(ad.read_h5ad(tmp_path / "cells.h5ad", backed="r")) == "log-normalised"


def test_what_is_no_logarithm_is_refused_by_what_it_is():
    adata = ad.AnnData(COUNTS, layers=SCALES)
    check_log_normalised(adata, "log-normalised")
    with pytest.raises(ValueError, match="The values are raw counts, .*normalize_total and .*log1p"):
        check_log_normalised(adata)
    with pytest.raises(ValueError, match="The target's values are not log-transformed"):
        check_log_normalised(adata, "normalised", "The target's")


def test_no_cell():
    with pytest.raises(ValueError, match="has no cell"):
        scale_of(ad.AnnData(np.ones((0, 2), np.float32)))


def test_expression_is_log_normalised_by_what_its_values_tell():
    counts = ad.AnnData(sp.csr_matrix(np.array([[1, 3, 0], [2, 0, 6]], np.float32)))
    expected = np.log1p(np.array([[1.5, 4.5, 0], [1.5, 0, 4.5]]))  # the median total is 6
    np.testing.assert_allclose(expression_of(counts).toarray(), expected, rtol=1e-6)
    to_10 = expression_of(counts, target_sum=10).toarray()
    np.testing.assert_allclose(np.expm1(to_10).sum(1), 10, rtol=1e-5)
    logs = ad.AnnData(sp.csr_matrix(expected.astype(np.float32)))
    np.testing.assert_allclose(expression_of(logs).toarray(), expected, rtol=1e-6)
    logs.layers["scaled"] = sp.csr_matrix(expected - 1)
    with pytest.raises(ValueError, match="holds negative values"):
        expression_of(logs, "scaled")


@pytest.mark.parametrize("kind", [np.asarray, sp.csr_matrix])
@pytest.mark.parametrize("value", [np.nan, np.inf, 1e39])
def test_expression_is_finite(value, kind):
    with pytest.raises(ValueError, match=r"NaN or infinite.*rows \[1\]"):
        expression_of(ad.AnnData(kind(np.array([[1.0, 0], [2, value]]))))


def test_entries_that_are_stored_twice_are_summed_before_their_logarithm():
    twice = sp.csr_matrix((np.array([100, 100, 50], np.int8), [0, 0, 1], [0, 2, 3]), shape=(2, 2))
    expected = expression_of(ad.AnnData(sp.csr_matrix(np.array([[200, 0], [0, 50]]))), target_sum=1e4)
    assert np.array_equal(expression_of(ad.AnnData(twice), target_sum=1e4).toarray(), expected.toarray())
