import anndata as ad
import numpy as np
import pandas as pd
import pytest

import scgpt


@pytest.fixture
def space() -> ad.AnnData:
    names = ["A", "A+B", "C+A", "B", "D+C", "C+B", "ctrl", "A+ctrl", "ctrl", "D"]
    clusters = [*"xxxyyyzz", *"w", None]
    obs = pd.DataFrame({"perturbation": names, "leiden": clusters}, index=[f"row{i}" for i in range(10)])
    return ad.AnnData(np.ones((10, 2), np.float32), obs=obs)


@pytest.mark.parametrize("kind", ["object", "category"])
def test_the_gene_that_most_perturbations_of_a_cluster_share(space, kind, tmp_path):
    space.obs = space.obs.astype(kind)
    assert scgpt.tl.dominant_genes(space, control="ctrl") is None
    # Of B and C in cluster y, equally frequent, the first; w holds control alone, and the last row is in no cluster.
    assert space.obs["dominant_gene"].astype(object).iloc[:8].tolist() == [*"AAABBBAA"]
    assert space.obs["dominant_gene"].isna().tolist() == [False] * 8 + [True] * 2
    assert space.obs["dominant_gene"].cat.categories.tolist() == ["A", "B"]
    share = space.obs["dominant_gene_share"]
    assert share.dtype == np.float64
    np.testing.assert_allclose(share, [1] * 3 + [2 / 3] * 3 + [0.5] * 2 + [np.nan] * 2)
    space.write_h5ad(tmp_path / "space.h5ad")


def test_other_columns_and_a_copy(space):
    space.obs = space.obs.rename(columns={"perturbation": "name", "leiden": "group"})
    space.obs["name"] = space.obs["name"].str.replace("+", "|")
    settings = {"perturbation_key": "name", "control": "ctrl", "sep": "|", "key_added": "top"}
    copied = scgpt.tl.dominant_genes(space, "group", copy=True, **settings)
    assert space.obs.columns.tolist() == ["name", "group"]
    assert copied.obs["top"].iloc[0] == "A" and copied.obs["top_share"].iloc[3] == pytest.approx(2 / 3)


def test_predictions_are_read_as_they_are(perturbation_model, perturbed):
    space = scgpt.tl.perturb(perturbed, ["A", "C", "D"], model=perturbation_model, pairs=True, progress_bar=False)
    space.obs["leiden"] = [0, 1, 1, 0, 0, 1]  # A, C, D, A+C, A+D, C+D
    scgpt.tl.dominant_genes(space)
    assert space.obs["dominant_gene"].tolist() == [*"ACCAAC"]
    np.testing.assert_allclose(space.obs["dominant_gene_share"], [1, 2 / 3, 2 / 3, 1, 1, 2 / 3])


def test_wrong_input(space):
    with pytest.raises(KeyError, match="groupby='louvain' is not a column of .obs"):
        scgpt.tl.dominant_genes(space, "louvain")
    with pytest.raises(KeyError, match="perturbation_key='gene' is not a column of .obs"):
        scgpt.tl.dominant_genes(space, perturbation_key="gene")
    with pytest.raises(TypeError, match="Expected an AnnData"):
        scgpt.tl.dominant_genes(space.obs)
