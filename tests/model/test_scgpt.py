import logging

import anndata
import mudata
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import torch

from scgpt.data import match_genes
from scgpt.hub import read_official
from scgpt.model import SCGPT

pytestmark = pytest.mark.usefixtures("auto_is_float32")

TINY = {"d_model": 8, "n_layers": 1, "n_heads": 2}


@pytest.fixture(scope="module")
def pretrained(golden) -> SCGPT:
    return SCGPT.from_pretrained(golden / "checkpoint")


@pytest.fixture
def cells(rng) -> anndata.AnnData:
    """Cells of other genes than the checkpoint's: half of these are known to it, in another order."""
    names = [f"G{i:04d}" for i in rng.permutation(200)[:100]] + [f"OTHER{i}" for i in range(100)]
    matrix = sp.csr_matrix(rng.poisson(0.4, (50, 200)) * rng.integers(1, 10, (50, 200)))
    order = rng.permutation(200)
    adata = anndata.AnnData(matrix.astype(np.float32), var=pd.DataFrame(index=names))
    return adata[:, order].copy()


def embed(model, adata, **kwargs):
    return model.get_latent_representation(adata, progress_bar=False, precision="float32", **kwargs)


def reference(model, adata, *, normalize=True):
    """Embed one cell at a time, by a path of few words: dictionary of bins, padded-free batch of one."""
    from scgpt.data import TokenBatch, bin_values

    out = []
    ids = match_genes(adata.var, model.vocab).token_ids
    for row in np.asarray(adata.X.toarray()):
        known = (row > 0) & (ids >= 0)
        genes = torch.tensor([model.vocab.cls_id, *ids[known]])
        values = torch.tensor([-2.0, *bin_values(np.where(ids >= 0, row, 0))[known]])
        batch = TokenBatch(genes, values, torch.tensor([0, len(genes)]), torch.tensor([0]))
        with torch.no_grad():
            cell = model.module.network(batch).cells[0]
        out.append((torch.nn.functional.normalize(cell, dim=0) if normalize else cell).numpy())
    return np.stack(out)


def test_embedding_is_the_normalised_output_of_cls(pretrained, cells):
    assert np.allclose(embed(pretrained, cells), reference(pretrained, cells), atol=1e-5)
    assert np.allclose(
        embed(pretrained, cells, normalize=False), reference(pretrained, cells, normalize=False), atol=1e-5
    )


def test_a_cell_does_not_depend_on_other_cells_or_the_order_of_genes(pretrained, cells, rng, monkeypatch):
    whole = embed(pretrained, cells)
    cell_order, gene_order = rng.permutation(cells.n_obs), rng.permutation(cells.n_vars)
    assert np.allclose(embed(pretrained, cells[cell_order])[np.argsort(cell_order)], whole, atol=1e-5)
    assert np.allclose(embed(pretrained, cells[:, gene_order]), whole, atol=1e-5)
    parts = [embed(pretrained, part) for part in (cells[:1], cells[1:20], cells[20:])]
    assert np.allclose(np.concatenate(parts), whole, atol=1e-5)
    assert np.allclose(embed(pretrained, cells, indices=[7, 3]), whole[[7, 3]], atol=1e-5)
    for cells_at_once, tokens in ((7, 64), (1, 1), (2048, 10**6)):
        monkeypatch.setattr("scgpt.model._embedding._CELLS_AT_ONCE", cells_at_once)
        monkeypatch.setattr(
            "scgpt.model._passes._NUMBERS_PER_PASS", {"cpu": tokens * pretrained.module.network.config.d_model}
        )
        assert np.allclose(embed(pretrained, cells), whole, atol=1e-5)


def test_the_same_holds_for_cells_longer_than_the_model_takes(pretrained, cells, rng):
    whole = embed(pretrained, cells, max_length=10)
    assert np.abs(whole - embed(pretrained, cells)).max() > 0.01  # truncation does something
    gene_order = rng.permutation(cells.n_vars)
    assert np.allclose(embed(pretrained, cells[:, gene_order], max_length=10), whole, atol=1e-5)
    assert np.allclose(embed(pretrained, cells[5:9], max_length=10), whole[5:9], atol=1e-5)


def test_counts_and_log_normalised_values_give_one_embedding(pretrained, cells):
    logged = cells.copy()
    logged.X = sp.csr_matrix(np.log1p(cells.X.toarray() / cells.X.toarray().sum(1, keepdims=True) * 1e4))
    assert np.allclose(embed(pretrained, logged), embed(pretrained, cells), atol=1e-5)


def test_half_precision_is_close(pretrained, cells):
    half = pretrained.get_latent_representation(cells, progress_bar=False, precision="bfloat16")
    assert (half * embed(pretrained, cells)).sum(1).min() > 0.999
    with pytest.raises(ValueError, match="precision must be"):
        pretrained.get_latent_representation(cells, precision="float16")


def test_both_key_styles_embed_alike(pretrained, find_golden, cells):
    flash = SCGPT.from_pretrained(find_golden("checkpoint_flash_keys"))
    assert np.array_equal(embed(flash, cells), embed(pretrained, cells))


def test_cells_without_any_gene_are_reported_and_finite(pretrained, cells, caplog):
    matrix = cells.X.tolil()
    matrix[3] = 0
    cells.X = matrix.tocsr()
    with caplog.at_level(logging.WARNING):
        embedding = embed(pretrained, cells)
    assert np.isfinite(embedding).all()
    assert "1 cells express no gene" in caplog.text


def test_gene_embeddings_are_the_normalised_rows(pretrained, golden):
    weights = read_official(golden / "checkpoint").state_dict
    table = pretrained.get_gene_embeddings(["G0007", "G0003"])
    expected = torch.nn.functional.layer_norm(
        weights["genes.embedding.weight"][[7, 3]], (64,), weights["genes.norm.weight"], weights["genes.norm.bias"]
    )
    assert list(table.index) == ["G0007", "G0003"]
    assert np.allclose(table, expected.numpy(), atol=1e-6)
    assert pretrained.get_gene_embeddings().shape == (200, 64)
    with pytest.raises(KeyError, match="NOGENE"):
        pretrained.get_gene_embeddings(["NOGENE"])


def test_from_scratch_the_genes_of_the_data_are_the_vocabulary(counts):
    SCGPT.setup_anndata(counts)
    model = SCGPT(counts, **TINY)
    assert model.vocab.genes == tuple(counts.var_names)
    assert not model.is_trained
    counts.var["symbol"] = [f"S{i}" for i in range(counts.n_vars)]
    SCGPT.setup_anndata(counts, gene_key="symbol")
    assert SCGPT(counts, **TINY).vocab.genes == tuple(counts.var["symbol"])


def test_the_seed_decides_the_first_weights(counts):
    SCGPT.setup_anndata(counts)
    state = torch.random.get_rng_state()
    weights = [SCGPT(counts, **TINY, seed=s).module.network.genes.embedding.weight for s in (0, 0, 1)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])
    assert torch.equal(state, torch.random.get_rng_state())


def test_the_network_can_be_changed_where_parts_start_fresh(golden):
    with pytest.raises(ValueError, match=r"cls.*pass fresh=\['cls'\]"):
        SCGPT.from_pretrained(golden / "checkpoint", n_classes=4)
    model = SCGPT.from_pretrained(golden / "checkpoint", fresh=["cls"], n_classes=4)
    assert model.module.network.config.n_classes == 4
    assert model.load_report.fresh == ("cls",)


def test_each_batch_normed_apart_needs_its_name(counts):
    SCGPT.setup_anndata(counts, batch_key="batch")
    model = SCGPT(counts, **TINY, input_norm="domain", batch_embedding=True)
    model.train(1, enable_progress_bar=False)
    whole = model.get_latent_representation(progress_bar=False)
    assert np.allclose(embed(model, counts[10:20]), whole[10:20], atol=1e-5)
    swapped = counts[10:20].copy()
    swapped.obs["batch"] = ["b" if b == "a" else "a" for b in swapped.obs["batch"]]
    assert np.abs(embed(model, swapped) - whole[10:20]).max() > 1e-3
    swapped.obs["batch"] = "c"
    with pytest.raises(ValueError, match="not trained on"):
        embed(model, swapped)
    del swapped.obs["batch"]
    with pytest.raises(KeyError, match="batch"):
        embed(model, swapped)


def test_a_checkpoint_normed_by_batch_without_their_names_says_so(golden, cells):
    model = SCGPT.from_pretrained(golden / "checkpoint_domain_norm")
    with pytest.raises(ValueError, match="does not name its batches"):
        embed(model, cells)


def test_setup_can_be_viewed(counts, pretrained, capsys):
    SCGPT.setup_anndata(counts, batch_key="batch", labels_key="cell_type")
    model = SCGPT(counts, **TINY)
    model.view_anndata_setup()
    shown = capsys.readouterr().out
    assert "adata.obs['batch']" in shown
    assert "adata.obs['cell_type']" in shown
    pretrained.view_anndata_setup()
    assert "scvi-tools" in capsys.readouterr().out
    assert repr(model) == ""
    assert "3 layers, d_model 64, 4 heads" in pretrained.summary_string


def test_parts_made_for_other_batches_must_start_fresh(golden, counts):
    counts.var_names = [f"G{i:04d}" for i in range(counts.n_vars)]
    SCGPT.setup_anndata(counts, batch_key="batch")
    with pytest.raises(ValueError, match=r"fresh=\['input_norm', 'batches'\]"):
        SCGPT.from_pretrained(golden / "checkpoint_domain_norm", counts)
    fresh = ["input_norm", "batches"]
    model = SCGPT.from_pretrained(golden / "checkpoint_domain_norm", counts, fresh=fresh, n_batches=2)
    model.train(1, enable_progress_bar=False)
    assert model.get_latent_representation(progress_bar=False).shape == (120, 64)


def test_the_layer_is_the_registered_one_unless_named(counts):
    counts.layers["doubled"] = counts.X[:, ::-1].tocsr()
    SCGPT.setup_anndata(counts, layer="doubled")
    model = SCGPT(counts, **TINY)
    model.is_trained_ = True
    assert np.array_equal(embed(model, counts), embed(model, counts, layer="doubled"))
    assert np.abs(embed(model, counts) - embed(model, counts, layer="X")).max() > 1e-3
    assert (model.layer_of(), model.layer_of("X")) == ("doubled", "X")


def test_names_are_mapped_into_the_vocabulary_and_missing_ones_left_out(counts, tmp_path):
    mapping = pd.Series({f"GENE{i}": f"S{i}" for i in range(59)})
    SCGPT.setup_anndata(counts, gene_mapping=mapping)
    model = SCGPT(counts, **TINY)
    assert model.vocab.genes == (*mapping, "GENE59")
    model.save(tmp_path / "model")  # the mapping is saved with it
    counts.var["symbol"] = [None, "", *(f"S{i}" for i in range(58))]
    SCGPT.setup_anndata(counts, gene_key="symbol")
    assert SCGPT(counts, **TINY).vocab.genes == tuple(f"S{i}" for i in range(58))


def test_an_untrained_model_says_so(counts):
    SCGPT.setup_anndata(counts)
    with pytest.warns(UserWarning, match="not trained"):
        embed(SCGPT(counts, **TINY), counts)


class TestWrongInput:
    @pytest.mark.parametrize(
        ("kind", "way"),
        [("path", "read_h5ad"), ("raw", "to_adata"), ("mudata", r"mdata\['rna'\]"), ("frame", "not DataFrame")],
    )
    def test_what_is_no_anndata(self, pretrained, counts, kind, way):
        counts.raw = counts
        wrong = {
            "path": "cells.h5ad",
            "raw": counts.raw,
            "mudata": mudata.MuData({"rna": counts}),
            "frame": counts.obs,
        }[kind]
        for function in (SCGPT.setup_anndata, SCGPT, pretrained.get_latent_representation):
            with pytest.raises(TypeError, match=way):
                function(wrong)

    def test_cells_without_label(self, counts):
        counts.obs["cell_type"] = counts.obs["cell_type"].where(np.arange(counts.n_obs) != 4)
        with pytest.raises(ValueError, match=r"1 of \d+ cells have no label"):
            SCGPT.setup_anndata(counts, labels_key="cell_type")

    def test_settings_that_do_not_exist(self, golden):
        with pytest.raises(ValueError, match=r"no network settings \['n_clases'\]"):
            SCGPT.from_pretrained(golden / "checkpoint", n_clases=3)
        with pytest.raises(ValueError, match=r"fresh=\['gpe'\]"):
            SCGPT.from_pretrained(golden / "checkpoint", fresh="gpe")

    def test_no_data(self):
        with pytest.raises(ValueError, match="from_pretrained"):
            SCGPT()

    def test_no_setup(self, counts):
        with pytest.raises(ValueError, match="setup_anndata"):
            SCGPT(counts)

    def test_embedding_without_data(self, pretrained):
        with pytest.raises(ValueError, match="pass an AnnData"):
            pretrained.get_latent_representation()

    def test_unknown_columns(self, counts):
        with pytest.raises(KeyError, match="batch_key='donor' is not a column of .obs"):
            SCGPT.setup_anndata(counts, batch_key="donor")
        with pytest.raises(KeyError, match="no layer 'counts'"):
            SCGPT.setup_anndata(counts, layer="counts")
        SCGPT.setup_anndata(counts, gene_key="symbol")
        with pytest.raises(KeyError, match="gene_key='symbol' is not a column of .var"):
            SCGPT(counts)

    def test_cells_without_batch(self, counts):
        counts.obs.iloc[4, counts.obs.columns.get_loc("batch")] = None
        with pytest.raises(ValueError, match=r"1 of \d+ cells have no batch"):
            SCGPT.setup_anndata(counts, batch_key="batch")

    def test_no_gene_matches(self, pretrained, counts):
        with pytest.raises(ValueError, match="None of the 60 genes is in the vocabulary"):
            embed(pretrained, counts)

    @pytest.mark.parametrize(
        ("value", "message"), [(np.nan, "NaN or infinite"), (np.inf, "NaN or infinite"), (-1, "negative")]
    )
    def test_values_that_are_no_expression(self, pretrained, cells, value, message):
        cells.X.data[0] = value
        with pytest.raises(ValueError, match=message):
            embed(pretrained, cells)

    def test_scaled_data(self, pretrained, cells):
        dense = cells.X.toarray()
        cells.X = (dense - dense.mean(0)) / dense.std(0)
        with pytest.raises(ValueError, match="scaled data"):
            embed(pretrained, cells)

    def test_duplicate_genes(self, pretrained, cells):
        names = cells.var_names.tolist()
        known = [i for i, name in enumerate(names) if name.startswith("G")][:2]
        names[known[1]] = names[known[0]]
        cells.var_names = names
        with pytest.warns(UserWarning, match="carried by several variables"):
            embedding = embed(pretrained, cells)
        with pytest.warns(UserWarning, match="carried by several variables"):
            reversed_ = embed(pretrained, cells[:, ::-1])
        assert np.allclose(embedding, reversed_, atol=1e-5)

    def test_unknown_layer(self, pretrained, cells):
        with pytest.raises(KeyError, match="There is no layer 'counts'"):
            embed(pretrained, cells, layer="counts")
