from importlib.metadata import version

import anndata
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

import scgpt
from scgpt import ReferenceIndex
from scgpt.model import SCGPT

LABEL, CONFIDENCE = "scgpt_mapped_label", "scgpt_mapped_label_confidence"
TYPES = ["T", "B", "NK", "unseen"]


def cells_of(n: int, seed: int) -> anndata.AnnData:
    """Cells of three types with genes of their own; a fourth category has no cell."""
    rng = np.random.default_rng(seed)
    rates = np.random.default_rng(7).gamma(0.4, 3.0, (3, 90))
    types = rng.integers(3, size=n)
    obs = pd.DataFrame({"type": pd.Categorical.from_codes(types, TYPES)}, index=[f"{seed}-{i}" for i in range(n)])
    var = pd.DataFrame(index=[f"G{i:04d}" for i in range(90)])
    return anndata.AnnData(sp.csr_matrix(rng.poisson(rates[types]).astype(np.float32)), obs=obs, var=var)


@pytest.fixture
def reference() -> anndata.AnnData:
    return cells_of(90, 0)


@pytest.fixture
def query() -> anndata.AnnData:
    return cells_of(40, 1)


@pytest.fixture(scope="module")
def model(golden) -> SCGPT:
    return SCGPT.from_pretrained(golden / "checkpoint")


@pytest.fixture(scope="module")
def other_model() -> SCGPT:
    data = cells_of(20, 2)
    SCGPT.setup_anndata(data)
    model = SCGPT(data, d_model=64, n_layers=1)
    model.is_trained_ = True
    return model


def map_reference(query, reference, **kwargs):
    kwargs = {"labels_key": "type", "progress_bar": False} | kwargs
    return scgpt.tl.map_reference(query, reference, **kwargs)


def test_writes_labels_confidence_and_provenance(query, reference, model):
    assert map_reference(query, reference, model=model) is None
    labels = query.obs[LABEL]
    assert list(labels.cat.categories) == TYPES
    assert (labels.astype(str) == query.obs["type"].astype(str)).mean() > 0.9
    assert query.obs[CONFIDENCE].dtype == np.float32
    assert query.obs[CONFIDENCE].between(1 / 3, 1).all()
    record = query.uns["scgpt"][LABEL]
    assert (record["function"], record["version"]) == ("scgpt.tl.map_reference", version("scgpt-tools"))
    assert (record["k"], record["weights"], record["n_reference"], record["labels_key"]) == (10, "uniform", 90, "type")
    assert len(record["checkpoint_sha256"]) == len(record["model_sha256"]) == 64
    assert not reference.obsm.keys() and "scgpt" not in reference.uns


@pytest.mark.parametrize("weights", ["uniform", "distance"])
def test_labels_are_the_votes_of_the_nearest(query, reference, model, weights):
    map_reference(query, reference, model=model, k=5, weights=weights)
    vectors = [model.get_latent_representation(a, progress_bar=False).astype(np.float64) for a in (query, reference)]
    cosines = vectors[0] @ vectors[1].T
    for i, row in enumerate(cosines):
        near = np.argsort(-row)[:5]
        weight = np.ones(5) if weights == "uniform" else 1 / np.sqrt(2 - 2 * row[near])
        votes = pd.Series(weight / weight.sum()).groupby(reference.obs["type"].to_numpy()[near].astype(str)).sum()
        assert votes[query.obs[LABEL].iloc[i]] == pytest.approx(votes.max(), abs=1e-3)
        assert query.obs[CONFIDENCE].iloc[i] == pytest.approx(votes.max(), abs=1e-3)


def test_an_index_and_its_folder_give_the_same(query, reference, model, tmp_path):
    expected = map_reference(query, reference, model=model, copy=True).obs
    scgpt.tl.embed(reference, model, progress_bar=False)
    index = ReferenceIndex.from_anndata(reference, labels=["type"])
    index.save(tmp_path / "index")
    for given in (reference, index, tmp_path / "index", str(tmp_path / "index")):
        found = map_reference(query, given, model=model, copy=True).obs
        pd.testing.assert_frame_equal(found, expected)


def test_a_copy_leaves_the_input_alone(query, reference, model):
    copy = map_reference(query, reference, model=model, copy=True)
    assert LABEL not in query.obs and "X_scGPT" not in query.obsm and "scgpt" not in query.uns
    assert copy.obsm["X_scGPT"].shape == (40, 64)


def test_a_cells_label_depends_on_it_alone(query, reference, model):
    map_reference(query, reference, model=model, weights="distance")
    part = cells_of(40, 1)[[3, 30]].copy()
    map_reference(part, reference, model=model, weights="distance")
    assert part.obs[LABEL].tolist() == query.obs[LABEL].iloc[[3, 30]].tolist()
    assert np.allclose(part.obs[CONFIDENCE], query.obs[CONFIDENCE].iloc[[3, 30]], atol=1e-3)


def test_genes_in_another_order_and_by_other_names(query, reference, model):
    map_reference(query, reference, model=model)
    mapping = {f"ENSG{i:011d}": name for i, name in enumerate(query.var_names)}
    other = cells_of(40, 1)
    other.var_names = [f"{name}.2" for name in mapping]
    other = other[:, np.random.default_rng(0).permutation(90)].copy()
    map_reference(other, reference, model=model, gene_mapping=mapping)
    assert other.obs[LABEL].tolist() == query.obs[LABEL].tolist()


def test_missing_genes_are_absent_and_it_says_how_many(query, reference, model, caplog):
    fewer = query[:, :70].copy()
    map_reference(fewer, reference, model=model)
    assert "The query measured 70 of the 90 genes of the reference that the model knows." in caplog.messages
    assert (fewer.obs[LABEL].astype(str) == fewer.obs["type"].astype(str)).mean() > 0.8


def test_doubtful_cells_are_unknown(query, reference, model):
    map_reference(query, reference, model=model, min_confidence=1, unknown_label="?")
    labels = query.obs[LABEL]
    assert list(labels.cat.categories) == [*TYPES, "?"]
    doubtful = query.obs[CONFIDENCE] < 1
    assert 0 < doubtful.sum() < 40
    assert (labels == "?").tolist() == doubtful.tolist()


def test_embeddings_that_are_there_are_used(query, reference, model, monkeypatch):
    for adata in (query, reference):
        scgpt.tl.embed(adata, model, progress_bar=False)
    map_reference(query, reference, model=model)
    expected = query.obs[LABEL].tolist()
    with monkeypatch.context() as patch:
        patch.setattr(SCGPT, "get_latent_representation", None)
        hvg = query[:, :30].copy()  # genes that were dropped after embedding do not matter
        map_reference(hvg, reference, model=model)
    assert hvg.obs[LABEL].tolist() == expected
    calls = []
    monkeypatch.setattr(
        SCGPT,
        "get_latent_representation",
        lambda self, adata, **kwargs: calls.append(kwargs["max_length"]) or adata.obsm["X_scGPT"],
    )
    map_reference(query, reference, model=model, max_length=20)
    assert calls == [20, 20]


def test_an_embedding_by_another_model_is_neither_used_nor_replaced(query, reference, model, other_model):
    expected = map_reference(query, reference, model=model, copy=True).obs[LABEL]
    for adata in (query, reference):
        scgpt.tl.embed(adata, other_model, progress_bar=False)
    before = query.obsm["X_scGPT"].copy()
    map_reference(query, reference, model=model)
    assert query.obs[LABEL].tolist() == expected.tolist()
    assert np.array_equal(query.obsm["X_scGPT"], before)


def test_a_model_is_known_again_after_saving(query, reference, other_model, tmp_path):
    scgpt.tl.embed(reference, other_model, progress_bar=False)
    index = ReferenceIndex.from_anndata(reference, labels=["type"])
    other_model.save(tmp_path / "model")
    map_reference(query, index, model=tmp_path / "model")
    assert query.uns["scgpt"][LABEL]["model_sha256"] == index.settings["model_sha256"]


def test_an_index_of_another_model_is_refused(query, reference, model, other_model):
    scgpt.tl.embed(reference, other_model, progress_bar=False)
    index = ReferenceIndex.from_anndata(reference, labels=["type"])
    with pytest.raises(ValueError, match="of the query is by another model"):
        map_reference(query, index, model=model)
    narrow = ReferenceIndex.from_embeddings(np.eye(90, 8) + 1, reference.obs[["type"]])
    with pytest.raises(ValueError, match="have 64 dimensions, those in the reference 8"):
        map_reference(query, narrow, model=model)


def test_labels_that_cannot_be_transferred(query, reference, model):
    with pytest.raises(KeyError, match="labels_key='celltype' is not a column"):
        map_reference(query, reference, model=model, labels_key="celltype")
    reference.obs["one"] = "T"
    with pytest.raises(ValueError, match="have one label in 'one'"):
        map_reference(query, reference, model=model, labels_key="one")
    reference.obs.loc[reference.obs_names[:3], "type"] = np.nan
    with pytest.raises(ValueError, match=r"3 of 90 cells have no label in reference\.obs\['type'\]"):
        map_reference(query, reference, model=model)
    reference = reference[reference.obs["type"].notna()].copy()
    map_reference(query, reference, model=model)
    index = ReferenceIndex.from_embeddings(np.eye(90, 64) + 1)
    with pytest.raises(KeyError, match="no labels 'type'"):
        map_reference(query, index, model=model)


def test_what_is_empty_or_asked_wrongly(query, reference, model):
    with pytest.raises(ValueError, match="The query has no cells"):
        map_reference(query[:0].copy(), reference, model=model)
    with pytest.raises(ValueError, match="The reference has no cells"):
        map_reference(query, reference[:0].copy(), model=model)
    with pytest.raises(ValueError, match="k=91: it must be at least 1 and at most 90"):
        map_reference(query, reference, model=model, k=91)
    with pytest.raises(ValueError, match="weights must be"):
        map_reference(query, reference, model=model, weights="gaussian")
    with pytest.raises(ValueError, match=r"min_confidence=1\.5"):
        map_reference(query, reference, model=model, min_confidence=1.5)
    with pytest.raises(TypeError, match="model must be a model, or the folder or name of a checkpoint, not None"):
        map_reference(query, reference, model=None)
    with pytest.raises(TypeError, match="Expected an AnnData"):
        map_reference("query.h5ad", reference, model=model)
    with pytest.raises(FileNotFoundError, match="no folder"):
        map_reference(query, "nowhere", model=model)


def test_a_query_without_a_gene_of_the_reference(query, reference, model):
    with pytest.raises(ValueError, match="none of the 40 genes of the reference"):
        map_reference(query[:, 40:].copy(), reference[:, :40].copy(), model=model)
    query.var_names = [f"OTHER{i}" for i in range(90)]
    with pytest.raises(ValueError, match="None of the 90 genes is in the vocabulary"):
        map_reference(query, reference, model=model)


def test_results_can_be_written_to_a_file(query, reference, model, tmp_path):
    map_reference(query, reference, model=model)
    query.write_h5ad(tmp_path / "query.h5ad")
    backed = anndata.read_h5ad(tmp_path / "query.h5ad", backed="r")
    assert backed.obs[LABEL].tolist() == query.obs[LABEL].tolist()
    del backed.obs[LABEL]
    copy = map_reference(backed, reference, model=model, copy=True)
    assert copy.obs[LABEL].tolist() == query.obs[LABEL].tolist()
    with pytest.raises(ValueError, match="view of a file"):
        map_reference(backed[:3], reference, model=model)
    backed.file.close()
