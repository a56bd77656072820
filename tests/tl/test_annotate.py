import logging

import anndata as ad
import numpy as np
import pandas as pd
import pytest

import scgpt
from scgpt.model import SCGPT, SCGPTAnnotator

SMALL = {"d_model": 16, "n_layers": 1, "n_heads": 2}


def annotate(adata, *args, **kwargs):
    given = {"max_epochs": 1, "progress_bar": False} | kwargs
    if given.get("model") is None:
        given["network_kwargs"] = SMALL | given.get("network_kwargs", {})
    given["train_kwargs"] = {"accelerator": "cpu", "lr": 3e-3} | given.get("train_kwargs", {})
    return scgpt.tl.annotate(adata, *args, **given)


@pytest.fixture
def halves(counts) -> tuple[ad.AnnData, ad.AnnData]:
    """A query without labels and a reference with them."""
    query, reference = counts[:40].copy(), counts[40:].copy()
    query.obs["truth"] = query.obs.pop("cell_type")
    return query, reference


def test_unlabelled_cells_of_one_data_set(counts, tmp_path):
    counts.obs["known"] = counts.obs["cell_type"].astype(object)
    counts.obs.loc[counts.obs_names[::4], "known"] = "Unknown"
    counts.obs.loc[counts.obs_names[1::8], "known"] = np.nan
    assert annotate(counts, "known", max_epochs=40) is None
    hidden = ((counts.obs["known"] == "Unknown") | counts.obs["known"].isna()).to_numpy()
    assert hidden.sum() == 45
    label = counts.obs["scgpt_label"]
    assert list(label.cat.categories) == ["B", "NK", "T"]
    assert (label == counts.obs["cell_type"])[hidden].mean() > 0.8
    probabilities = counts.obsm["scgpt_probabilities"]
    assert list(probabilities.columns) == ["B", "NK", "T"]
    assert (probabilities.max(axis=1) == counts.obs["scgpt_confidence"]).all()
    counts.write_h5ad(tmp_path / "cells.h5ad")
    record = ad.read_h5ad(tmp_path / "cells.h5ad").uns["scgpt"]["scgpt_label"]
    assert record["function"] == "scgpt.tl.annotate"
    assert sum(record["support"].values()) == 75
    assert record["labels_key"] == "known" and record["temperature"] > 0


def test_a_reference_of_other_genes_and_names(halves):
    query, reference = halves
    reference = reference[:, 10:].copy()
    reference.var["feature_name"] = reference.var_names
    other = ad.AnnData(np.ones((query.n_obs, 3), np.float32), query.obs, pd.DataFrame(index=list("xyz")))
    query = ad.concat([query[:, :50], other], axis=1, merge="same")
    aligned = query[:, reference.var_names[:40]].copy()
    annotate(query, "cell_type", reference=reference, max_epochs=30)
    annotate(aligned, "cell_type", reference=reference[:, :40].copy(), max_epochs=30)
    assert (query.obs["scgpt_label"] == query.obs["truth"]).mean() > 0.6  # a third by chance
    np.testing.assert_allclose(query.obsm["scgpt_probabilities"], aligned.obsm["scgpt_probabilities"], atol=1e-5)
    # In another order, under Ensembl-like ids that a mapping translates.
    mapping = {name: f"ENSG{i:011d}" for i, name in enumerate(query.var_names)}
    renamed = query[:, ::-1].copy()
    renamed.var_names = [mapping[name] for name in renamed.var_names]
    annotate(renamed, "cell_type", reference=reference, max_epochs=30, gene_mapping={v: k for k, v in mapping.items()})
    np.testing.assert_allclose(renamed.obsm["scgpt_probabilities"], query.obsm["scgpt_probabilities"], atol=1e-5)


def test_unsure_cells_are_called_unknown(halves):
    query, reference = halves
    annotate(query, "cell_type", reference=reference, max_epochs=10)
    bar = float(query.obs["scgpt_confidence"].median())
    label, probabilities = query.obs["scgpt_label"].astype(str), query.obsm["scgpt_probabilities"]
    annotate(query, "cell_type", reference=reference, max_epochs=10, min_confidence=bar, unknown_label="none of them")
    unsure = query.obs["scgpt_confidence"] < bar
    assert 0 < unsure.sum() < query.n_obs
    assert (query.obs["scgpt_label"][unsure] == "none of them").all()
    assert (query.obs["scgpt_label"][~unsure] == label[~unsure]).all()
    pd.testing.assert_frame_equal(query.obsm["scgpt_probabilities"], probabilities)
    assert query.uns["scgpt"]["scgpt_label"]["n_unknown"] == unsure.sum()


def test_a_saved_annotator_names_further_cells(halves, tmp_path):
    query, reference = halves
    annotate(query, "cell_type", reference=reference, save=tmp_path / "model")
    model = SCGPTAnnotator.load(tmp_path / "model", adata=False)
    copied = scgpt.tl.annotate(query, model=model, key_added="again", copy=True, progress_bar=False)
    assert "again_label" not in query.obs
    assert (copied.obs["again_label"] == query.obs["scgpt_label"]).all()
    with pytest.raises(FileExistsError):
        annotate(query, "cell_type", reference=reference, save=tmp_path / "model")
    with pytest.raises(ValueError, match="trained already"):
        scgpt.tl.annotate(query, "cell_type", reference=reference, model=model)


def test_pretrained_weights_are_fine_tuned(halves, tmp_path):
    query, reference = halves
    SCGPT.setup_anndata(reference)
    pretrained = SCGPT(reference, **SMALL)
    pretrained.train(1, enable_progress_bar=False)
    pretrained.save(tmp_path / "pretrained")
    for model in (pretrained, tmp_path / "pretrained"):
        annotate(query, "cell_type", reference=reference, model=model, train_kwargs={"lr": 1e-4})
        record = query.uns["scgpt"]["scgpt_label"]
        assert record["checkpoint"].startswith("fine-tuned from")
        assert record["n_genes"] == 60


def test_it_says_what_it_learns_and_warns_of_few_cells(halves, caplog):
    query, reference = halves
    reference = reference[(reference.obs["cell_type"] != "NK") | (np.arange(80) < 12)].copy()
    with caplog.at_level(logging.INFO), pytest.warns(UserWarning, match="fewer than 10 cells are hard to learn: NK"):
        annotate(query, "cell_type", reference=reference)
    assert "Learning 3 types from 57 cells over 56 genes" in caplog.text
    assert "NK (4)" in caplog.text


class TestWrongInput:
    def test_labels(self, halves):
        query, reference = halves
        with pytest.raises(KeyError, match="labels_key='type' is not a column of reference.obs"):
            annotate(query, "type", reference=reference)
        with pytest.raises(ValueError, match="labels_key must name"):
            annotate(query, reference=reference)
        reference.obs["cell_type"] = ["T", "Unknown"] * 40
        with pytest.raises(ValueError, match=r"reference.obs\['cell_type'\] names 1 cell types in 40 cells"):
            annotate(query, "cell_type", reference=reference)
        reference.obs["cell_type"] = np.nan
        with pytest.raises(ValueError, match="names 0 cell types in 0 cells"):
            annotate(query, "cell_type", reference=reference)
        assert not [key for key in query.obs if key.startswith("scgpt")]

    def test_no_gene_in_common(self, halves):
        query, reference = halves
        query.var_names = [f"OTHER{i}" for i in range(query.n_vars)]
        with pytest.raises(ValueError, match="None of the"):
            annotate(query, "cell_type", reference=reference)

    def test_values_that_are_no_expression(self, halves):
        query, reference = halves
        reference.X.data[:] = -1
        with pytest.raises(ValueError, match="negative"):
            annotate(query, "cell_type", reference=reference)

    def test_settings(self, halves):
        query, reference = halves
        with pytest.raises(ValueError, match="min_confidence is a probability"):
            annotate(query, "cell_type", reference=reference, min_confidence=50)
        with pytest.raises(KeyError, match="There is no layer 'raw'"):
            annotate(query, "cell_type", reference=reference, layer="raw")
