import anndata as ad
import numpy as np
import pytest

from scgpt.metrics import integration_scores


def test_batches_and_cells_are_needed(make_cells):
    adata = make_cells()
    with pytest.raises(ValueError, match="benchmarker=True needs batches"):
        integration_scores(adata, None, "cell_type", "X_emb", benchmarker=True)
    with pytest.raises(ValueError, match="looks at 90 neighbours, and there are 80 cells"):
        integration_scores(adata[:80].copy(), "batch", "cell_type", "X_emb", benchmarker=True)


def test_components_of_counts_or_of_nothing_are_refused(make_cells):
    adata = make_cells()
    with pytest.raises(ValueError, match="no `.X`"):
        integration_scores(adata, "batch", "cell_type", "X_emb", benchmarker=True)
    counts = ad.AnnData(np.ones((120, 5), np.float32), obs=adata.obs, obsm=adata.obsm)
    with pytest.raises(ValueError, match="holds counts"):
        integration_scores(counts, "batch", "cell_type", "X_emb", benchmarker=True)


@pytest.mark.slow
def test_the_benchmarkers_metrics_stand_beside_ours(make_cells, rng):
    adata = make_cells(spread=1.0, batch_shift=1.0)
    adata.obsm["X_noise"] = rng.normal(size=(120, 4)).astype(np.float32)
    adata = ad.AnnData(adata.obsm["X_emb"].astype(np.float32), obs=adata.obs, obsm=adata.obsm)
    table = integration_scores(adata, "batch", "cell_type", ["X_emb", "X_noise"], benchmarker=True)
    theirs = table.filter(like="scib-metrics: ").rename(columns=lambda name: name.removeprefix("scib-metrics: "))
    assert {"BRAS", "KBET", "iLISI", "cLISI", "Isolated labels", "KMeans NMI", "PCR comparison"} < set(theirs)
    assert set(theirs.columns[-3:]) == {"Bio conservation", "Batch correction", "Total"}
    np.testing.assert_allclose(theirs["Silhouette label"], table["ASW_label"], atol=1e-5)
    assert theirs["Total"].tolist() == pytest.approx(
        0.6 * theirs["Bio conservation"] + 0.4 * theirs["Batch correction"], abs=1e-9
    )
    assert theirs.loc["X_emb", "Total"] > theirs.loc["X_noise", "Total"]
    assert list(adata.obsm) == ["X_emb", "X_noise"]
    assert set(adata.obs) == {"cell_type", "batch"}
