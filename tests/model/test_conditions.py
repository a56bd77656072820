"""Conditions of genes and cells, from setup_anndata to the embedding and back from disk."""

import json

import anndata
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import torch

import scgpt
from scgpt.data import Tokenizer
from scgpt.model import SCGPT

pytestmark = pytest.mark.usefixtures("auto_is_float32")

TINY = {"d_model": 8, "n_layers": 1, "n_heads": 2, "max_length": 40}
SETS = {"early": [f"GENE{i}" for i in range(20)], "even": [f"GENE{i}" for i in range(0, 60, 2)], "one": ["GENE59"]}


def embed(model, adata=None, **kwargs):
    return model.get_latent_representation(adata, progress_bar=False, precision="float32", **kwargs)


def trained(model):
    model.is_trained_ = True
    return model


@pytest.fixture
def cells(counts) -> anndata.AnnData:
    """Each cell under a drug or under none, in one of two doses; a third of the genes have a role."""
    counts.obs["drug"] = pd.Categorical(np.array(["ifn", None, "b.1"], dtype=object)[np.arange(120) % 3])
    counts.obs["dose"] = np.arange(120) % 2 + 1
    counts.var["role"] = pd.Categorical(np.array(["factor", None, None], dtype=object)[np.arange(60) % 3])
    return counts


@pytest.fixture
def model(cells) -> SCGPT:
    SCGPT.setup_anndata(cells, gene_conditions=SETS, cell_conditions=["drug", "dose"])
    return trained(SCGPT(cells, **TINY))


def rows_of(model) -> torch.Tensor:
    return model.module.network.conditions.weight


def test_the_network_has_a_row_for_each_condition(cells, model):
    assert model.module.network.config.n_conditions == 1 + 3 + 2 + 2
    assert not rows_of(model)[0].any()
    for settings, n in (
        ({"gene_conditions": "role"}, 2),
        ({"cell_conditions": "drug"}, 3),
        ({"gene_conditions": "role", "cell_conditions": ["drug"]}, 4),
        ({}, 0),
    ):
        SCGPT.setup_anndata(cells, **settings)
        model = trained(SCGPT(cells, **TINY))
        assert model.module.network.config.n_conditions == n
        assert np.isfinite(embed(model)).all()


def test_each_token_reads_the_rows_of_its_gene_and_its_cell(model):
    batch = model._registered_cells().tokenize(np.arange(6), model.tokenizer)
    genes = [model.vocab.tokens[i] for i in batch.gene_ids]
    cell = batch.cell_index[batch.cell_of_token].tolist()
    of_cell = [{6 + c % 2} | {0: {5}, 1: set(), 2: {4}}[c % 3] for c in cell]  # b.1 comes before ifn
    of_gene = [{i for i, own in enumerate(SETS.values(), start=1) if gene in own} for gene in genes]
    expected = [a | b for a, b in zip(of_gene, of_cell, strict=True)]
    assert [set(ids) - {0} for ids in batch.condition_ids.tolist()] == expected


def test_a_cell_does_not_depend_on_other_cells_or_the_order_of_genes(model, cells, rng, monkeypatch):
    whole = embed(model)
    cell_order, gene_order = rng.permutation(cells.n_obs), rng.permutation(cells.n_vars)
    assert np.allclose(embed(model, cells[cell_order])[np.argsort(cell_order)], whole, atol=1e-5)
    assert np.allclose(embed(model, cells[:, gene_order]), whole, atol=1e-5)
    parts = [embed(model, part) for part in (cells[:1], cells[1:20], cells[20:])]
    assert np.allclose(np.concatenate(parts), whole, atol=1e-5)
    assert np.allclose(embed(model, cells, indices=[7, 3]), whole[[7, 3]], atol=1e-5)
    for cells_at_once, tokens in ((7, 64), (1, 1)):
        monkeypatch.setattr("scgpt.model._embedding._CELLS_AT_ONCE", cells_at_once)
        monkeypatch.setattr(
            "scgpt.model._passes._NUMBERS_PER_PASS", {"cpu": tokens * model.module.network.config.d_model}
        )
        assert np.allclose(embed(model, cells), whole, atol=1e-5)
    longer = embed(model, max_length=10)
    assert np.allclose(embed(model, cells[5:9, gene_order], max_length=10), longer[5:9], atol=1e-5)


@pytest.mark.parametrize("row", range(1, 8))
def test_a_condition_acts_on_the_cells_that_have_it_alone(model, cells, row):
    before = embed(model)
    with torch.no_grad():
        rows_of(model)[row] += torch.randn(8, generator=torch.Generator().manual_seed(row))
    changed = np.abs(embed(model) - before).max(1) > 1e-4
    number = np.arange(120)
    if row <= 3:
        expected = cells[:, list(SETS.values())[row - 1]].X.sum(1).A1 > 0
    else:
        expected = (number % 3 == {4: 2, 5: 0}[row]) if row <= 5 else (number % 2 == row - 6)
    assert np.array_equal(changed, expected)


def test_conditions_of_zero_change_nothing(model, cells):
    with torch.no_grad():
        rows_of(model).zero_()
    SCGPT.setup_anndata(cells)
    plain = trained(SCGPT(cells, **TINY))
    weights = model.module.network.state_dict()
    del weights["conditions.weight"]
    plain.module.network.load_state_dict(weights)
    assert np.allclose(embed(plain, cells), embed(model, cells), atol=1e-6)


def test_conditions_of_genes_hold_in_data_that_do_not_name_them(cells):
    SCGPT.setup_anndata(cells, gene_conditions="role")
    model = trained(SCGPT(cells, **TINY))
    whole = embed(model)
    other = cells[:, ::-1].copy()
    del other.var["role"], other.obs
    assert np.allclose(embed(model, other), whole, atol=1e-5)
    # A gene that the other data did not measure is absent, with all its conditions.
    fewer = cells[:, 5:].copy()
    emptied = cells.copy()
    emptied.X[:, :5] = 0
    assert np.allclose(embed(model, fewer), embed(model, emptied), atol=1e-5)


def test_conditions_of_cells_must_be_named_and_known(model, cells):
    other = cells[:10].copy()
    other.obs["drug"] = other.obs["drug"].cat.add_categories(["tnf"])
    assert np.allclose(embed(model, other), embed(model)[:10], atol=1e-5)
    other.obs.loc["cell3", "drug"] = "tnf"
    with pytest.raises(ValueError, match=r"\.obs\['drug'\] has conditions that the model was not trained on: tnf"):
        embed(model, other)
    del other.obs["dose"], other.obs["drug"]
    with pytest.raises(KeyError, match=r"\.obs\['drug'\] must name"):
        scgpt.tl.embed(other, model, progress_bar=False)


def test_training_moves_the_rows_that_occur_and_never_that_of_none(model, cells):
    before = rows_of(model).detach().clone()
    model.train(1, enable_progress_bar=False, plan_kwargs={"weight_decay": 0.1})
    after = rows_of(model).detach()
    assert not after[0].any()
    assert (after[1:] != before[1:]).any(1).all()
    scgpt.tl.embed(cells, model, progress_bar=False)
    assert np.allclose(cells.obsm["X_scGPT"], embed(model), atol=1e-6)


def test_saved_and_loaded_it_embeds_to_the_bit(model, cells, tmp_path):
    model.train(1, enable_progress_bar=False)
    whole = embed(model)
    model.save(tmp_path / "model")
    assert str(tmp_path) not in (tmp_path / "model" / "registry.json").read_text()
    for alone in (SCGPT.load(tmp_path / "model"), SCGPT.from_pretrained(tmp_path / "model")):
        assert np.array_equal(embed(alone, cells), whole)
    attached = SCGPT.load(tmp_path / "model", cells.copy())
    assert np.array_equal(embed(attached), whole)
    attached.train(1, enable_progress_bar=False)
    attached.save(tmp_path / "again")
    state = [
        json.loads((tmp_path / name / "registry.json").read_text())["field_registries"] for name in ("model", "again")
    ]
    assert state[0]["conditions"] == state[1]["conditions"]


@pytest.mark.parametrize("source", ["column", "file", "mapping"])
def test_what_the_conditions_were_read_from_is_not_needed_again(source, cells, tmp_path):
    (tmp_path / "sets.gmt").write_text("\n".join("\t".join([name, "", *genes]) for name, genes in SETS.items()))
    given = {"column": "role", "file": tmp_path / "sets.gmt", "mapping": SETS}[source]
    SCGPT.setup_anndata(cells, gene_conditions=given, cell_conditions="dose")
    model = trained(SCGPT(cells, **TINY))
    whole = embed(model)
    model.save(tmp_path / "model")
    (tmp_path / "sets.gmt").unlink()
    other = cells[::-1, 10:].copy()
    del other.var["role"]
    attached = SCGPT.load(tmp_path / "model", other)
    assert np.array_equal(embed(attached), embed(model, other))
    assert np.array_equal(embed(attached, cells), whole)
    # scvi-tools registers anew what another setup has overwritten.
    del cells.var["role"]
    SCGPT.setup_anndata(cells)
    model.train(1, enable_progress_bar=False)


def test_loading_onto_cells_of_unknown_conditions_says_so(model, cells, tmp_path):
    model.save(tmp_path / "model")
    cells.obs["dose"] += 1
    with pytest.raises(ValueError, match=r"\.obs\['dose'\] has conditions .*: 3\. It knows 1, 2"):
        SCGPT.load(tmp_path / "model", cells)
    del cells.obs["dose"]
    with pytest.raises(KeyError, match="dose"):
        SCGPT.load(tmp_path / "model", cells)


def test_a_model_saved_before_there_were_conditions_loads(cells, tmp_path):
    SCGPT.setup_anndata(cells)
    model = trained(SCGPT(cells, **TINY))
    model.save(tmp_path / "model")
    path = tmp_path / "model" / "registry.json"
    registry = json.loads(path.read_text())
    del registry["field_registries"]["conditions"], registry["setup_args"]["gene_conditions"]
    path.write_text(json.dumps(registry))
    path = tmp_path / "model" / "config.json"
    path.write_text(json.dumps({k: v for k, v in json.loads(path.read_text()).items() if k != "sha256"}))
    assert np.array_equal(embed(SCGPT.load(tmp_path / "model", cells.copy())), embed(model))


def test_other_conditions_are_another_training(cells, tmp_path):
    def train(**conditions):
        SCGPT.setup_anndata(cells, **conditions)
        model = SCGPT(cells, **TINY)
        model.train(1, checkpoints=tmp_path, checkpoint_every=2, enable_progress_bar=False)

    train(gene_conditions={"a": ["GENE1"]}, cell_conditions="dose")
    train(gene_conditions={"a": ["GENE1"]}, cell_conditions="dose")
    for gene, drug in (("GENE2", "dose"), ("GENE1", "other")):
        cells.obs["other"] = 3 - cells.obs["dose"]
        with pytest.raises(ValueError, match="state of another training: conditions differ"):
            train(gene_conditions={"a": [gene]}, cell_conditions=drug)


def test_setup_can_be_viewed(model, cells, tmp_path, capsys):
    model.view_anndata_setup()
    shown = capsys.readouterr().out
    for text in ("n_conditions", "conditions State Registry", "early", "adata.obs['drug']", "b.1", "'3 sets'"):
        assert text in shown
    model.save(tmp_path / "model")
    SCGPT.load(tmp_path / "model").view_anndata_setup()
    SCGPT.setup_anndata(cells, gene_conditions={f"set.{i}": ["GENE1"] for i in range(30)})
    SCGPT(cells, **TINY).view_anndata_setup()
    shown = capsys.readouterr().out
    assert "set.19" in shown
    assert "... 10 more" in shown
    assert "set.20" not in shown


class TestPretrained:
    @pytest.fixture
    def data(self, rng) -> anndata.AnnData:
        """Data with Ensembl-like ids, whose names in the checkpoint's vocabulary stand in a column."""
        matrix = sp.csr_matrix(rng.poisson(1.0, (30, 50)).astype(np.float32))
        names = [f"G{i:04d}" for i in range(50)]
        obs = pd.DataFrame({"drug": np.where(np.arange(30) % 2, "ifn", "none")}, index=[f"c{i}" for i in range(30)])
        var = pd.DataFrame({"feature_name": names, "surface": np.arange(50) < 9}, index=[f"ID{i}" for i in range(50)])
        return anndata.AnnData(matrix, obs=obs, var=var)

    def test_conditions_are_those_of_the_data_and_start_fresh(self, golden, data):
        SCGPT.setup_anndata(data, gene_conditions="surface", cell_conditions="drug")
        with pytest.raises(ValueError, match=r"conditions\.weight.*pass fresh=\['conditions'\]"):
            SCGPT.from_pretrained(golden / "checkpoint", data)
        model = SCGPT.from_pretrained(golden / "checkpoint", data, fresh=["conditions"])
        assert model.module.network.config.n_conditions == 4
        batch = model._registered_cells().tokenize(np.arange(3), model.tokenizer)
        assert torch.equal(batch.condition_ids[:, 0] == 1, batch.gene_ids < 9)
        model.train(1, enable_progress_bar=False)
        plain = SCGPT.from_pretrained(golden / "checkpoint", data, n_conditions=0)
        assert np.array_equal(embed(plain), embed(SCGPT.from_pretrained(golden / "checkpoint"), data))
        with pytest.raises(ValueError, match="The network has 7 conditions and the data 4"):
            SCGPT.from_pretrained(golden / "checkpoint", data, fresh=["conditions"], n_conditions=7)

    def test_sets_are_matched_by_the_names_of_the_vocabulary(self, golden, data):
        sets = {"a": ["G0003", "G0150"], "b": ["G0004"]}  # G0150 is in the vocabulary, not in the data
        with pytest.warns(UserWarning, match="2 of the 3 genes"):
            SCGPT.setup_anndata(data, gene_conditions=sets)
        model = SCGPT.from_pretrained(golden / "checkpoint", data, fresh=["conditions"])
        table = model._conditions(data).of_genes
        assert table[[3, 4, 150]].tolist() == [[1], [2], [1]]
        assert (table > 0).sum() == 3
        del data.var["feature_name"]
        mapping = {f"ID{i}": f"G{i:04d}" for i in range(50)}
        with pytest.warns(UserWarning, match="2 of the 3 genes"):
            SCGPT.setup_anndata(data, gene_conditions=sets, gene_mapping=mapping)
        model = SCGPT.from_pretrained(golden / "checkpoint", data, fresh=["conditions"])
        assert np.array_equal(model._conditions(data).of_genes, table)

    def test_no_gene_is_in_the_vocabulary(self, golden, data):
        data.var_names = ["x", "y", *data.var_names[2:]]
        with pytest.warns(UserWarning, match="1 of the 2 genes"):
            SCGPT.setup_anndata(data, gene_conditions={"a": ["x", "z"]})
        with pytest.raises(ValueError, match=r"None of the 2 genes with conditions is in the vocabulary: .*'x', 'z'"):
            SCGPT.from_pretrained(golden / "checkpoint", data, fresh=["conditions"])

    def test_conditions_of_other_data_are_not_taken_for_those_of_these(self, golden, data, tmp_path):
        SCGPT.setup_anndata(data, cell_conditions="drug")
        SCGPT.from_pretrained(golden / "checkpoint", data, fresh=["conditions"]).save(tmp_path / "model")
        same = SCGPT.from_pretrained(tmp_path / "model", data)
        assert same.load_report.fresh == ()
        data.obs["drug"] = np.where(data.obs["drug"] == "ifn", "tnf", "none")
        SCGPT.setup_anndata(data, cell_conditions="drug")
        with pytest.raises(ValueError, match=r"not those of the data.*fresh=\['conditions'\]"):
            SCGPT.from_pretrained(tmp_path / "model", data)
        SCGPT.from_pretrained(tmp_path / "model", data, fresh=["conditions"])
        SCGPT.setup_anndata(data)
        with pytest.raises(ValueError, match="nothing says which genes and cells .* n_conditions=0"):
            SCGPT.from_pretrained(tmp_path / "model", data)
        assert SCGPT.from_pretrained(tmp_path / "model", data, n_conditions=0).load_report.dropped == ("conditions",)

    def test_a_checkpoint_that_does_not_name_its_conditions_says_so(self, golden, data):
        model = SCGPT.from_pretrained(golden / "checkpoint", fresh=["conditions"], n_conditions=3)
        with pytest.raises(ValueError, match="nothing says which genes and cells"):
            embed(model, data)


def test_wrong_conditions(cells):
    for settings, error, message in (
        ({"gene_conditions": "roles"}, KeyError, "neither a column of .var"),
        ({"gene_conditions": {"a": ["x"]}}, ValueError, "None of the 1 genes of gene_conditions is in the data"),
        ({"cell_conditions": "drugs"}, KeyError, "cell_conditions='drugs' is not a column"),
    ):
        with pytest.raises(error, match=message):
            SCGPT.setup_anndata(cells, **settings)


def test_genes_of_two_variables_have_the_conditions_of_both(cells):
    cells.var_names = ["GENE1", *cells.var_names[1:]]
    cells.var["role"] = ["first", "second", *[None] * 58]
    with pytest.warns(UserWarning, match="Variable names are not unique"):
        cells = cells.copy()
    SCGPT.setup_anndata(cells, gene_conditions="role")
    model = trained(SCGPT(cells, **TINY))
    assert model._conditions(cells).of_genes[model.vocab["GENE1"]].tolist() == [1, 2]
    with pytest.warns(UserWarning, match="carried by several variables"):
        assert np.isfinite(embed(model)).all()


@pytest.mark.real
@pytest.mark.filterwarnings("ignore:.* genes of gene_conditions are in the data")
def test_pathways_of_real_genes_by_the_hundred(shared, rng):
    sets = scgpt.data.read_gmt(shared / "reference" / "ReactomePathways.gmt")
    genes = sorted(set().union(*sets.values()))[:2_000]
    data = anndata.AnnData(rng.poisson(0.3, (20, 2_000)).astype(np.float32), var=pd.DataFrame(index=genes))
    SCGPT.setup_anndata(data, gene_conditions=shared / "reference" / "ReactomePathways.gmt")
    model = trained(SCGPT(data, **TINY | {"max_length": 300}))
    conditions = model._conditions(data)
    for gene in rng.choice(genes, 50):
        own = [i for i, name in enumerate(kept_sets(model), start=1) if gene in sets[name]]
        assert [i for i in conditions.of_genes[model.vocab[gene]] if i] == own
    assert conditions.width > 50
    model.train(1, enable_progress_bar=False)
    assert np.isfinite(embed(model)).all()


def kept_sets(model) -> list[str]:
    return model.registry["field_registries"]["conditions"]["state_registry"]["gene_sets"]


def test_many_conditions_are_embedded_in_smaller_portions(cells, monkeypatch):
    SCGPT.setup_anndata(cells, gene_conditions={f"s{i}": ["GENE1", "GENE2"] for i in range(100)})
    model = trained(SCGPT(cells, **TINY))
    whole, sizes = embed(model), []
    monkeypatch.setattr("scgpt.model._embedding._CELLS_AT_ONCE", 520)
    tokenize = Tokenizer.__call__
    monkeypatch.setattr(
        Tokenizer, "__call__", lambda self, x, *a, **k: sizes.append(x.shape[0]) or tokenize(self, x, *a, **k)
    )
    assert np.allclose(embed(model), whole, atol=1e-6)
    assert max(sizes) == 20
