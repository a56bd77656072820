import logging

import anndata as ad
import numpy as np
import pandas as pd
import pytest

import scgpt
from scgpt.metrics import annotation_scores
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


def test_types_with_a_slash_can_be_saved_and_scored(counts, tmp_path):
    counts.obs["cell_type"] = counts.obs["cell_type"].cat.rename_categories({"T": "CD4+/CD25 T Reg"})
    annotate(counts, "cell_type", max_epochs=1)
    counts.write_h5ad(tmp_path / "cells.h5ad")
    read = ad.read_h5ad(tmp_path / "cells.h5ad")
    assert list(read.obsm["scgpt_probabilities"]) == ["B", "CD4+|CD25 T Reg", "NK"]
    assert read.uns["scgpt"]["scgpt_label"]["support"] == {"B": 40, "CD4+|CD25 T Reg": 40, "NK": 40}
    assert list(read.obs["scgpt_label"].cat.categories) == ["B", "CD4+/CD25 T Reg", "NK"]
    by_table = annotation_scores(read, "cell_type", "scgpt_label", probabilities="scgpt_probabilities")
    pd.testing.assert_series_equal(by_table.overall, annotation_scores(read, "cell_type", "scgpt_label").overall)


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
    for given in (model, tmp_path / "model", str(tmp_path / "model")):
        copied = scgpt.tl.annotate(query, model=given, key_added="again", copy=True, progress_bar=False)
        assert "again_label" not in query.obs
        assert (copied.obs["again_label"] == query.obs["scgpt_label"]).all()
    with pytest.raises(FileExistsError):
        annotate(query, "cell_type", reference=reference, save=tmp_path / "model")
    with pytest.raises(ValueError, match="trained already: leave out reference, max_epochs, save"):
        scgpt.tl.annotate(query, "cell_type", reference=reference, model=model, max_epochs=2, save=tmp_path / "other")


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
        assert (record["n_genes_matched"], record["genes_unmatched"]) == (60, [])
    # Genes that the reference did not measure have no say, though the model knows them.
    aligned = query[:, 20:].copy()
    for cells in (query, aligned):
        annotate(cells, "cell_type", reference=reference[:, 20:].copy(), model=pretrained)
        assert cells.uns["scgpt"]["scgpt_label"]["n_genes_matched"] == 40
    np.testing.assert_allclose(query.obsm["scgpt_probabilities"], aligned.obsm["scgpt_probabilities"], atol=1e-5)


@pytest.mark.parametrize("input_norm", [None, "domain"])
def test_a_model_that_was_integrated_is_fine_tuned(halves, tmp_path, input_norm):
    query, reference = halves
    scgpt.tl.integrate(
        reference,
        max_epochs=1,
        network_kwargs=SMALL | {"input_norm": input_norm},
        train_kwargs={"accelerator": "cpu"},
        save=tmp_path / "integrated",
        progress_bar=False,
    )
    del query.obs["batch"]
    annotate(query, "cell_type", reference=reference, model=tmp_path / "integrated", save=tmp_path / "annotator")
    assert len(query.uns["scgpt"]["scgpt_label"]["genes_matched"]) == 60
    config = SCGPTAnnotator.load(tmp_path / "annotator", adata=False).module.network.config
    assert (config.batch_embedding, config.adversary) == (False, False)
    assert config.input_norm == (input_norm and "batch")


def test_names_that_both_data_sets_share_are_found(halves):
    """A reference of Ensembl ids with a column of symbols, a query of symbols."""
    query, reference = halves
    other = reference.copy()
    other.var["feature_name"] = other.var_names
    other.var_names = [f"ENSG{i:011d}.4" for i in range(other.n_vars)]
    annotate(query, "cell_type", reference=reference)
    expected, n_genes = query.obsm["scgpt_probabilities"], query.uns["scgpt"]["scgpt_label"]["n_genes_matched"]
    annotate(query, "cell_type", reference=other)
    np.testing.assert_allclose(query.obsm["scgpt_probabilities"], expected, atol=1e-5)
    # Ensembl ids of another version in both.
    query.var_names = [f"ENSG{i:011d}.7" for i in range(query.n_vars)]
    del other.var["feature_name"]
    annotate(query, "cell_type", reference=other)
    assert query.uns["scgpt"]["scgpt_label"]["n_genes_matched"] == n_genes > 50


def test_it_says_how_many_genes_are_missing(halves, caplog):
    query, reference = halves
    query = query[:, 20:].copy()
    query.var_names = [*query.var_names[:-2], "OTHER1", "OTHER2"]
    annotate(query, "cell_type", reference=reference, key_added="one")
    assert "The query measured 38 of the 60 genes of the reference; the others are left out." in caplog.messages
    record = query.uns["scgpt"]["one_label"]
    assert record["genes_matched"] == [name for name in query.var_names if name in record["genes_matched"]]
    assert record["n_genes_matched"] == len(record["genes_matched"]) <= 38
    assert {"OTHER1", "OTHER2"} <= set(record["genes_unmatched"])
    SCGPTAnnotator.setup_anndata(reference, labels_key="cell_type")
    model = SCGPTAnnotator(reference, **SMALL)
    model.train(1, enable_progress_bar=False, accelerator="cpu")
    scgpt.tl.annotate(query, model=model, progress_bar=False)
    assert "Naming 40 cells, which measured 38 of the 60 genes that the model knows." in caplog.messages


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
        reference.obs["cell_type"] = ["T", ""] * 40
        with pytest.raises(ValueError, match="names 1 cell types in 40 cells"):
            annotate(query, "cell_type", reference=reference)
        reference.obs["cell_type"] = [1, -1] * 40
        with pytest.raises(ValueError, match="names 1 cell types in 40 cells"):
            annotate(query, "cell_type", reference=reference, unlabeled_category=-1)
        reference.obs["cell_type"] = np.nan
        with pytest.raises(ValueError, match="names 0 cell types in 0 cells"):
            annotate(query, "cell_type", reference=reference)
        assert not [key for key in query.obs if key.startswith("scgpt")]

    def test_no_gene_in_common(self, halves):
        query, reference = halves
        query.var_names = [f"OTHER{i}" for i in range(query.n_vars)]
        with pytest.raises(ValueError, match="None of the") as caught:
            annotate(query, "cell_type", reference=reference)
        assert caught.value.__notes__ == [
            "These are the genes of the cells to name; the vocabulary is that of the model or reference."
        ]

    def test_values_that_are_no_expression(self, halves):
        query, reference = halves
        reference.X.data[:] = -1
        with pytest.raises(ValueError, match="negative"):
            annotate(query, "cell_type", reference=reference)

    def test_a_query_that_cannot_be_named_is_refused_before_the_training(self, halves, monkeypatch):
        query, reference = halves
        monkeypatch.setattr("scgpt.tl._annotate._train", None)
        with pytest.raises(ValueError, match="has no cell"):
            annotate(query[:0].copy(), "cell_type", reference=reference)
        reference.layers["counts"] = reference.X
        with pytest.raises(KeyError, match="There is no layer 'counts'"):
            annotate(query, "cell_type", reference=reference, layer="counts")
        query.X.data[:] = -1
        with pytest.raises(ValueError, match="negative"):
            annotate(query, "cell_type", reference=reference)

    def test_a_model_that_is_no_annotator_without_labels(self, halves, golden):
        query, reference = halves
        with pytest.raises(ValueError, match="does not name cell types") as caught:
            scgpt.tl.annotate(query, reference=reference, model=golden / "checkpoint")
        assert "pass labels_key" in caught.value.__notes__[0]

    def test_settings(self, halves):
        query, reference = halves
        with pytest.raises(ValueError, match="min_confidence is a probability"):
            annotate(query, "cell_type", reference=reference, min_confidence=50)
        with pytest.raises(KeyError, match="There is no layer 'raw'"):
            annotate(query, "cell_type", reference=reference, layer="raw")
        with pytest.raises(ValueError, match="Pass class_weight, seed to annotate itself"):
            annotate(query, "cell_type", reference=reference, train_kwargs={"seed": 1, "class_weight": "balanced"})
