import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scanpy as sc
import scipy.sparse as sp
from scipy import stats

from scgpt.metrics._moments import LogValues
from scgpt.metrics._significance import significant_genes, welch_t

SIZES = {"control": 40, "A": 30, "B": 9, "C": 2}


@pytest.fixture
def screen(rng) -> ad.AnnData:
    names = np.repeat(list(SIZES), list(SIZES.values()))
    rates = rng.gamma(1, 1, 50) * np.where(rng.random((4, 50)) < 0.3, rng.gamma(2, 1, (4, 50)), 1)
    x = rng.poisson(rates[np.repeat(range(4), list(SIZES.values()))])
    x[:, 7] = 0
    obs = pd.DataFrame({"perturbation": pd.Categorical(names)}, index=[f"c{i}" for i in range(len(names))])
    return ad.AnnData(sp.csr_matrix(np.log1p(x).astype(np.float32)), obs=obs)


def t_of(matrix, groups, others) -> np.ndarray:
    values = LogValues(matrix, np.arange(matrix.shape[1]))
    return welch_t(values.moments(groups), values.moments([others]))


def test_t_is_that_of_scanpy(screen):
    sc.tl.rank_genes_groups(screen, "perturbation", reference="control", method="t-test", rankby_abs=True)
    table = sc.get.rank_genes_groups_df(screen, None).set_index(["group", "names"])
    rows = {name: np.flatnonzero(screen.obs["perturbation"] == name) for name in SIZES}
    t = t_of(screen.X.tocsr(), [rows[name] for name in "ABC"], rows["control"])
    for i, name in enumerate("ABC"):
        expected = table.loc[name].loc[screen.var_names]
        np.testing.assert_allclose(t[i], expected["scores"], rtol=1e-4, atol=1e-5)
    assert (t[:, 7] == 0).all()


def test_t_of_single_cells_and_of_all_or_nothing():
    x = np.array([[0, 1, 0.0], [0, 0, 0], [0, 1, 0], [2, 1, 0], [2, 1, 0], [2, 0, 0]])
    assert t_of(x, [np.arange(3, 6)], np.arange(3)).tolist() == [[np.inf, 0, 0]]
    assert t_of(x, [np.arange(3)], np.arange(3, 6)).tolist() == [[-np.inf, 0, 0]]
    assert t_of(x, [np.array([3])], np.arange(3)).tolist() == [[0, 0, 0]]
    assert t_of(x, [np.arange(3)], np.array([3])).tolist() == [[0, 0, 0]]


def test_genes_are_significant_after_correction_over_the_genes_of_a_group(screen):
    blocks = [screen.X[(screen.obs["perturbation"] == name).to_numpy()] for name in ("A", "B", "control")]
    found = significant_genes(blocks[:2], blocks[2])
    for i in range(2):
        p = stats.mannwhitneyu(blocks[i].toarray(), blocks[2].toarray(), method="asymptotic", axis=0).pvalue
        expected = stats.false_discovery_control(np.where(np.isnan(p), 1, p)) < 0.05
        np.testing.assert_array_equal(found[i], expected)
    assert 0 < found.sum() < found.size


def test_a_single_cell_tells_nothing(screen):
    x = screen.X.tocsr()
    found = significant_genes([x[40:70], x[:1]], x[1:40])
    assert found[0].any()
    assert not found[1].any()
    assert not significant_genes([x[40:70]], x[:1]).any()


def test_no_expression_in_few_cells_is_no_sign_of_a_difference(rng):
    """Four cells of a sparse gene: Welch's t calls their zeros significant."""
    x = np.log1p(rng.poisson(0.4, (200, 20)))
    x[:4] = 0
    assert np.abs(t_of(x, [np.arange(4)], np.arange(4, 200))).min() > 5
    assert not significant_genes([x[:4]], x[4:]).any()
