import anndata as ad
import dask.array
import numpy as np
import pytest
import scipy.sparse as sp

from scgpt.metrics._moments import LogValues, Moments

GROUPS = [np.array([0, 3, 4]), np.array([1]), np.array([2, 5, 6, 7])]


def moments_of(matrix) -> Moments:
    return LogValues(matrix, np.arange(matrix.shape[1])).moments(GROUPS)


@pytest.fixture
def values(rng) -> np.ndarray:
    x = np.log1p(rng.poisson(0.7, (8, 6))).astype(np.float32)
    x[:, 4] = 0
    x[:, 5] = 1.3
    return x


@pytest.mark.parametrize("kind", [np.asarray, sp.csr_matrix, sp.csr_array])
def test_moments_are_numpys_of_each_group(kind, values):
    moments = moments_of(kind(values))
    x = values.astype(np.float64)
    assert moments.n_cells.tolist() == [3, 1, 4]
    assert moments.mean.dtype == moments.variance.dtype == np.float64
    np.testing.assert_allclose(moments.mean, [x[rows].mean(0) for rows in GROUPS], rtol=1e-12)
    np.testing.assert_allclose(moments.variance[[0, 2]], [x[GROUPS[i]].var(0, ddof=1) for i in (0, 2)], atol=1e-15)
    assert np.isnan(moments.variance[1]).all()
    assert (moments.variance[[0, 2]][:, 4] == 0).all()
    assert (moments.variance[[0, 2]][:, 5] < 1e-30).all()
    some = LogValues(kind(values), np.array([3, 1]))
    np.testing.assert_array_equal(some.moments(GROUPS).mean, moments.mean[:, [3, 1]])
    assert some.cells(GROUPS[0]).shape == (3, 2)


@pytest.mark.parametrize("kind", [np.asarray, sp.csr_matrix, sp.csc_matrix, sp.csr_array, dask.array.from_array])
def test_any_matrix_is_read_and_left_as_it_is(kind, values):
    adata = ad.AnnData(np.zeros((8, 6)), layers={"log": kind(values)})
    values_read = LogValues.of(adata, "log")
    read = values_read.matrix
    assert isinstance(read, np.ndarray) or read.format == "csr"
    np.testing.assert_array_equal(read if isinstance(read, np.ndarray) else read.toarray(), values)
    np.testing.assert_allclose(values_read.moments(GROUPS).mean, moments_of(values).mean)


def test_a_matrix_on_disk_is_read(values, tmp_path):
    for name, matrix in (("sparse", sp.csr_matrix(values)), ("dense", values)):
        ad.AnnData(matrix).write_h5ad(tmp_path / f"{name}.h5ad")
        backed = ad.read_h5ad(tmp_path / f"{name}.h5ad", backed="r")
        np.testing.assert_allclose(LogValues.of(backed, None).moments(GROUPS).mean, moments_of(values).mean)


def test_entries_that_are_stored_in_parts_are_added_up():
    parts = sp.csr_matrix((np.array([1.0, 2.0, 1.0]), np.array([0, 0, 1]), np.array([0, 2, 3])), shape=(2, 2))
    adata = ad.AnnData(np.zeros((2, 2)), layers={"log": parts})
    moments = LogValues.of(adata, "log").moments([np.array([0, 1])])
    assert moments.mean.tolist() == [[1.5, 0.5]]
    assert moments.variance.tolist() == [[4.5, 0.5]]
    assert adata.layers["log"].nnz == 3


def test_what_is_not_there_is_an_error():
    adata = ad.AnnData(np.zeros((2, 2)), layers={"log": np.zeros((2, 2))})
    with pytest.raises(KeyError, match="no layer 'counts'; there are \\['log'\\]"):
        LogValues.of(adata, "counts")
    with pytest.raises(ValueError, match="`.X` is empty; pass layer"):
        LogValues.of(ad.AnnData(obs=adata.obs), None)


def test_counts_are_told_from_logs(values):
    def look_like_counts(matrix):
        return LogValues(matrix, np.arange(matrix.shape[1])).look_like_counts

    counts = np.expm1(values[:, :4]).round()
    assert look_like_counts(counts)
    assert look_like_counts(sp.csr_matrix(counts))
    assert not look_like_counts(values)
    assert not look_like_counts(np.minimum(counts, 1))  # may be logs to some base, or marks
    assert not look_like_counts(sp.csr_matrix((3, 3)))
    assert not look_like_counts(-counts)
