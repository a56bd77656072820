"""Exact search is a search of all cells, of equals the first."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from scgpt import ReferenceIndex
from scgpt.index._voting import vote


@st.composite
def references(draw):
    """Cells and queries, many of them equal, at corners of a cube whose lengths are whole: cosines are exact."""
    n_dims = draw(st.integers(1, 3))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    cells, queries = (rng.choice([-1.0, 1.0], (draw(st.integers(1, most)), 4**n_dims)) for most in (30, 6))
    return cells, queries, draw(st.integers(1, len(cells)))


@given(references(), st.integers(-100, 100), st.sampled_from([np.float16, np.float32, np.float64]))
def test_exact_search_is_brute_force_of_equals_the_first(reference, exponent, dtype):
    cells, queries, k = reference
    factor = 1.0 if dtype == np.float16 else 2.0**exponent
    found = ReferenceIndex.from_embeddings((cells * factor).astype(dtype)).query(queries.astype(dtype), k=k)
    products = queries @ cells.T  # whole numbers
    expected = np.argsort(-products, axis=1, kind="stable")[:, :k]
    assert np.array_equal(found.rows, expected)
    cosines = np.take_along_axis(products, expected, axis=1) / cells.shape[1]
    np.testing.assert_allclose(found.similarities, cosines, atol=1e-6)


@given(references(), st.data())
def test_an_index_that_grows_is_that_of_all_cells(reference, data):
    from anndata import AnnData

    cells, queries, k = reference
    cut = data.draw(st.integers(1, len(cells)))
    index = ReferenceIndex.from_embeddings(cells[:cut])
    index.add(AnnData(obsm={"X_scGPT": cells[cut:]}))
    whole = ReferenceIndex.from_embeddings(cells)
    assert len(index) == len(whole)
    assert np.array_equal(index.query(queries, k=k).rows, whole.query(queries, k=k).rows)


@given(st.integers(1, 5), st.integers(1, 8), st.integers(0, 2**32 - 1), st.sampled_from(["uniform", "distance"]))
def test_votes_are_shares_and_the_order_of_neighbours_does_not_count(n, k, seed, weights):
    rng = np.random.default_rng(seed)
    codes, cosines = rng.integers(0, 3, (n, k)), rng.choice([-0.5, 0.0, 0.5, 1.0], (n, k)).astype(np.float32)
    votes = vote(codes, cosines, ("A", "B", "C"), weights)
    np.testing.assert_allclose(votes.probabilities.sum(1), 1, atol=1e-6)
    assert ((votes.probabilities >= 0) & (votes.probabilities <= 1)).all()
    np.testing.assert_allclose(votes.confidence, votes.probabilities.max(1), atol=1e-6)
    order = rng.permutation(k)
    other = vote(codes[:, order], cosines[:, order], ("A", "B", "C"), weights)
    np.testing.assert_allclose(other.probabilities, votes.probabilities, atol=1e-6)
    assert other.labels.tolist() == votes.labels.tolist()
