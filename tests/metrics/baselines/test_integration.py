import sys

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scanpy as sc
import scipy.sparse as sp
import torch

from scgpt.metrics import baselines

QUICK = {"max_epochs": 1, "accelerator": "cpu", "progress_bar": False}
FIT = {
    "pca": lambda adata, **kwargs: baselines.pca(adata, key_added="X", **kwargs),
    "harmony": lambda adata, **kwargs: baselines.harmony(adata, "batch", key_added="X", **kwargs),
    "scvi": lambda adata, **kwargs: baselines.scvi(adata, "batch", key_added="X", **QUICK, **kwargs),
    "scanvi": lambda adata, **kwargs: baselines.scanvi(adata, "batch", "cell_type", key_added="X", **QUICK, **kwargs),
}
LEARNT = ["pca", "scvi", "scanvi"]


def embed(name: str, adata: ad.AnnData, **kwargs) -> np.ndarray:
    if name == "harmony":
        pytest.importorskip("harmonypy")
    FIT[name](adata, **kwargs)
    return adata.obsm.pop("X")


@pytest.fixture
def train(counts) -> np.ndarray:
    return np.arange(counts.n_obs) < 80


# All of them


@pytest.mark.parametrize("name", FIT)
def test_it_writes_an_embedding_and_a_note_and_nothing_else(name, counts):
    before = counts.copy()
    assert embed(name, counts).shape == (120, 10 if "vi" in name else 50)
    assert counts.uns["X"]["method"] == name
    assert counts.uns["X"]["params"]["seed"] == 0
    assert (counts.X != before.X).nnz == 0
    assert counts.obs.equals(before.obs)
    assert (list(counts.uns), list(counts.obsm), list(counts.var)) == (["X"], [], [])


@pytest.mark.parametrize("name", FIT)
def test_it_is_that_of_its_seed_and_leaves_other_random_numbers_alone(name, counts):
    np.random.seed(3)
    torch.manual_seed(3)
    numpy_state, torch_state = np.random.get_state()[1], torch.get_rng_state()
    first = embed(name, counts, seed=1)
    assert (np.random.get_state()[1] == numpy_state).all()
    assert torch.equal(torch.get_rng_state(), torch_state)
    assert first.dtype == np.float32
    assert np.isfinite(first).all()
    np.testing.assert_array_equal(embed(name, counts, seed=1), first)
    if "vi" in name:
        assert np.abs(embed(name, counts, seed=2) - first).max() > 0.01


@pytest.mark.parametrize("name", ["pca", "harmony", "scvi"])
def test_a_layer_is_read_in_place_of_x(name, counts):
    expected = embed(name, counts)
    counts.layers["counts"] = sp.csc_matrix(counts.X)
    counts.X = np.zeros(counts.shape, np.float32)
    np.testing.assert_allclose(embed(name, counts, layer="counts"), expected, atol=1e-4)


@pytest.mark.parametrize("name", LEARNT)
def test_cells_outside_training_have_no_influence(name, counts, train):
    expected = embed(name, counts, train=train)
    assert counts.uns["X"]["params"]["n_train"] == 80
    other = counts.copy()
    other.X = sp.vstack([counts.X[:80], counts.X[80:, ::-1]]).tocsr()
    other.obs["batch"] = np.where(train, other.obs["batch"], "not seen in training")
    other.obs["cell_type"] = other.obs["cell_type"].astype(str).where(train, "not seen either")
    embedding = embed(name, other, train=train)
    np.testing.assert_allclose(embedding[:80], expected[:80], atol=1e-4)
    assert np.abs(embedding[80:] - expected[80:]).max() > 0.01


def test_the_batch_of_a_cell_outside_training_is_not_read(counts, train):
    expected = embed("scanvi", counts, train=train)
    counts.obs["batch"] = np.where(train, counts.obs["batch"], "not seen in training")
    np.testing.assert_array_equal(embed("scanvi", counts, train=train), expected)


@pytest.mark.parametrize("name", FIT)
def test_wrong_input_is_an_error_that_says_what(name, counts):
    with pytest.raises(KeyError, match="no layer 'raw'"):
        embed(name, counts, layer="raw")
    if name != "pca":
        with pytest.raises(KeyError, match="no column 'batch' in .obs"):
            embed(name, ad.AnnData(counts.X))
    counts.X = counts.X * 0.5
    with pytest.raises(ValueError, match="`.X` does not hold counts: pass"):
        embed(name, counts)


@pytest.mark.parametrize(
    ("train", "error", "message"),
    [
        ([True] * 5, ValueError, "train has 5 entries for 120 cells"),
        ([False] * 120, ValueError, "train holds no cell"),
        (["cell1", "cell999"], KeyError, "1 of 2 names in train"),
    ],
    ids=["length", "none", "names"],
)
def test_a_wrong_choice_of_training_cells(train, error, message, counts):
    with pytest.raises(error, match=message):
        baselines.pca(counts, train=train)


# Principal components


def test_components_are_those_of_scanpy(counts):
    dense = ad.AnnData(counts.X.toarray(), obs=counts.obs)
    ours = embed("pca", dense, n_top_genes=30, n_comps=10, batch_key="batch")
    assert dense.uns["X"]["params"]["n_genes"] == 30
    theirs = dense.copy()
    sc.pp.normalize_total(theirs, target_sum=1e4)
    sc.pp.log1p(theirs)
    logs = theirs.copy()
    sc.pp.highly_variable_genes(theirs, n_top_genes=30, batch_key="batch")
    sc.pp.pca(theirs, n_comps=10)
    np.testing.assert_allclose(np.abs(ours), np.abs(theirs.obsm["X_pca"]), atol=1e-3)
    same = embed("pca", logs, normalize=False, n_top_genes=30, n_comps=10, batch_key="batch")
    np.testing.assert_allclose(same, ours, atol=1e-4)


def test_sparse_and_dense_counts_give_the_same(counts):
    sparse = embed("pca", counts)
    counts.X = counts.X.toarray()
    np.testing.assert_allclose(np.abs(embed("pca", counts)), np.abs(sparse), atol=1e-3)


def test_cells_without_counts_are_let_through(counts):
    counts.X = sp.vstack([counts.X[:-1], sp.csr_matrix((1, 60), dtype=np.float32)]).tocsr()
    assert np.isfinite(embed("pca", counts)).all()


def test_training_cells_are_named_or_masked(counts, train):
    expected = embed("pca", counts, train=train)
    for same in (
        train.tolist(),
        pd.Series(train, counts.obs_names),
        counts.obs_names[:80],
        iter(counts.obs_names[:80]),
    ):
        np.testing.assert_array_equal(embed("pca", counts, train=same), expected)


# Harmony


def test_harmony_mixes_batches(rng):
    pytest.importorskip("harmonypy")
    batches = rng.integers(0, 2, 300)
    x = 10 * np.eye(3, 8)[rng.integers(0, 3, 300)] + rng.normal(size=(300, 8))
    x[:, 5] += 3 * batches
    adata = ad.AnnData(obs=pd.DataFrame({"batch": batches}, [str(i) for i in range(300)]), obsm={"X_before": x})

    def distance(x: np.ndarray) -> float:
        return float(np.linalg.norm(x[batches == 0].mean(0) - x[batches == 1].mean(0)))

    corrected = embed("harmony", adata, use_rep="X_before")
    assert distance(corrected) < 0.3 * distance(x)
    adata.obs["batch"] = np.where(batches == 0, "a", "b")
    np.testing.assert_array_equal(embed("harmony", adata, use_rep="X_before"), corrected)


def test_harmony_makes_its_own_components(counts):
    own = embed("harmony", counts)
    counts.obsm["X_before"] = embed("pca", counts, batch_key="batch")
    np.testing.assert_allclose(embed("harmony", counts, use_rep="X_before"), own, atol=1e-4)


def test_harmony_of_early_versions_has_cells_as_columns(counts, monkeypatch):
    class Module:
        @staticmethod
        def run_harmony(data, meta_data, vars_use, verbose, random_state):
            class Result:
                Z_corr = 2 * data.T

            return Result

    monkeypatch.setitem(sys.modules, "harmonypy", Module)
    monkeypatch.setattr("scgpt.metrics.baselines._notes.version", lambda name: "0.0.10")
    counts.obsm["X_before"] = np.ones((120, 3))
    assert embed("harmony", counts, use_rep="X_before").shape == (120, 3)


def test_harmony_has_to_be_there(counts, monkeypatch):
    monkeypatch.setitem(sys.modules, "harmonypy", None)
    with pytest.raises(ImportError, match="pip install harmonypy"):
        baselines.harmony(counts, "batch")


def test_harmony_needs_two_batches_and_the_components_it_is_told_of(counts):
    pytest.importorskip("harmonypy")
    with pytest.raises(KeyError, match="no 'X_before' in .obsm"):
        baselines.harmony(counts, "batch", use_rep="X_before")
    counts.obs["batch"] = 1
    with pytest.raises(ValueError, match="All cells are of one batch"):
        baselines.harmony(counts, "batch")


# scVI and scANVI


def test_cells_of_unknown_label_train_too(counts):
    labels = counts.obs["cell_type"].astype(str)
    labels.iloc[::4] = "not known"
    counts.obs["cell_type"] = labels
    assert np.isfinite(embed("scanvi", counts, unlabeled_category="not known")).all()
    counts.obs["cell_type"] = "not known"
    with pytest.raises(ValueError, match="No training cell has a label"):
        embed("scanvi", counts, unlabeled_category="not known")


def test_names_of_cells_need_not_be_unique(counts):
    expected = embed("scanvi", counts)
    counts.obs_names = ["same"] * 120
    np.testing.assert_array_equal(embed("scanvi", counts), expected)


def test_progress_is_shown_on_request(counts, capsys):
    embed("scvi", counts)
    assert "Epoch" not in "".join(capsys.readouterr())
    baselines.scvi(counts, "batch", max_epochs=1, accelerator="cpu")
    assert "Epoch" in "".join(capsys.readouterr())


@pytest.mark.parametrize("name", FIT)
def test_values_that_are_not_finite_are_told_in_one_message(name, counts):
    counts.X = counts.X.astype(np.float32)
    counts.X.data[0] = np.nan
    with pytest.raises(ValueError, match="NaN or infinite values in the cells"):
        embed(name, counts)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"n_comps": 0}, "n_comps has to be at least 1, and is 0"),
        ({"n_top_genes": 0}, "n_top_genes has to be at least 1, or None for all genes, and is 0"),
        ({"n_top_genes": 1}, "need two cells and two genes"),
        ({"train": ["c0"]}, "need two cells and two genes"),
    ],
)
def test_components_that_cannot_be_are_told(counts, settings, message):
    counts.obs_names = [f"c{i}" for i in range(counts.n_obs)]
    with pytest.raises(ValueError, match=message):
        baselines.pca(counts, **{"n_top_genes": None} | settings)
    assert "X_pca" not in counts.obsm
