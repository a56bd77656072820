import anndata
import numpy as np
import scanpy as sc
import scipy.sparse as sp
from scipy.stats import rankdata

from scgpt.tl._program_scores import program_scores


def test_is_the_mean_above_that_of_genes_expressed_as_much(rng):
    values = rng.gamma(0.5, rng.gamma(2, 1, 200), (30, 200)) * (rng.random((30, 200)) < 0.4)
    members = [np.array([3, 50, 120, 199]), np.arange(10, 40), np.array([0, 1, 2, 3, 4])]
    scores = program_scores(sp.csr_matrix(values), members)
    bins = (rankdata(values.mean(0), method="min").astype(int) - 1) * 25 // 200
    for own, score in zip(members, scores.T, strict=True):
        others = np.setdiff1d(np.arange(200), own)
        compared = []
        for gene in own:
            alike = others[bins[others] == bins[gene]]
            compared.append(values[:, alike].mean(1) if len(alike) else np.zeros(30))
        np.testing.assert_allclose(score, values[:, own].mean(1) - np.mean(compared, axis=0), atol=1e-5)


def test_a_program_of_all_genes_of_its_bin_is_compared_with_nothing():
    values = np.zeros((2, 50))
    values[:, :2] = [[1, 3], [2, 2]]
    assert np.allclose(program_scores(sp.csr_matrix(values), [np.array([0, 1])]).ravel(), [2, 2])


def test_is_nearly_that_of_scanpy(rng):
    values = rng.gamma(0.5, rng.gamma(2, 1, 3000), (80, 3000)) * (rng.random((80, 3000)) < 0.4)
    values[:40, 100:120] += 1
    cells = anndata.AnnData(sp.csr_matrix(values))
    sc.tl.score_genes(cells, [str(i) for i in range(100, 120)], ctrl_size=100)
    scores = program_scores(sp.csr_matrix(values), [np.arange(100, 120)]).ravel()
    assert np.corrcoef(scores, cells.obs["score"])[0, 1] > 0.99
