import logging
from dataclasses import replace

import anndata
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import torch

from scgpt.data import TokenBatch, bin_values, unbin_values, values_of_bins
from scgpt.model import SCGPT

pytestmark = pytest.mark.usefixtures("auto_is_float32")

N_GENES = 40
TINY = {"d_model": 16, "n_layers": 2, "n_heads": 2, "n_flags": 2, "dropout": 0.0}


def make_cells(n_obs: int, seed: int) -> anndata.AnnData:
    """Two types with rates of their own, in log-normalised values."""
    rates = np.where(np.arange(N_GENES) % 2 == np.arange(2)[:, None], 8.0, 0.5)
    rates = rates * np.random.default_rng(3).gamma(4, 0.25, N_GENES)
    rng = np.random.default_rng(seed)
    types = np.arange(n_obs) % 2
    counts = rng.poisson(rates[types] * rng.gamma(9, 1 / 9, (n_obs, 1)))
    obs = pd.DataFrame(
        {
            "cell_type": pd.Categorical.from_codes(types, ["B", "T"]),
            "batch": np.where(rng.random(n_obs) < 0.5, "x", "y"),
        },
        index=[f"cell{i}" for i in range(n_obs)],
    )
    var = pd.DataFrame(index=[f"GENE{i}" for i in range(N_GENES)])
    return anndata.AnnData(sp.csr_matrix(np.log1p(counts).astype(np.float32)), obs, var)


@pytest.fixture(scope="module")
def train_cells() -> anndata.AnnData:
    return make_cells(96, seed=0)


@pytest.fixture
def cells() -> anndata.AnnData:
    """Cells that training never saw."""
    return make_cells(30, seed=1)


@pytest.fixture(scope="module")
def model(train_cells) -> SCGPT:
    data = train_cells.copy()
    SCGPT.setup_anndata(data)
    model = SCGPT(data, **TINY | {"n_layers": 1}, include_zeros=True)
    objectives = {"gen": {"warmup_steps": 20, "all_unknown": True}}
    model.train(25, objectives=objectives, lr=5e-3, batch_size=16, train_size=1.0, enable_progress_bar=False)
    return model


def random_weights(model: SCGPT) -> None:
    """Draw weights that make predictions differ, within the bins."""
    torch.manual_seed(1)
    for name, parameter in model.module.network.named_parameters():
        torch.nn.init.normal_(parameter, mean=float("norm" in name and name.endswith("weight")), std=0.4)
    torch.nn.init.constant_(model.module.network.gep.value[-1].bias, 20.0)
    model.is_trained_ = True


@pytest.fixture
def make_model(train_cells):
    """A model with random weights."""

    def make(**settings) -> SCGPT:
        data = train_cells.copy()
        SCGPT.setup_anndata(data, batch_key="batch")
        model = SCGPT(data, **TINY | settings)
        random_weights(model)
        return model

    return make


def generate(model, adata, **kwargs):
    return model.generate(adata, progress_bar=False, precision="float32", **kwargs)


def one_by_one(model, adata, genes, n_rounds=1, prompts=None, known=True):
    """One cell at a time by a path of few words."""
    ids, new = model.vocab.ids(adata.var_names), model.vocab.ids(genes)
    bins, values = [], []
    for i, row in enumerate(adata.X.toarray()):
        row = np.where(np.isin(ids, new), 0, row) if known else row
        table = values_of_bins(row[row > 0], 51)
        own = (row > 0) & known
        tokens = torch.tensor([model.vocab.cls_id, *ids[own], *new])
        batch = TokenBatch(
            tokens,
            torch.tensor([-2.0, *bin_values(row)[own], *[0] * len(new)]).float(),
            torch.tensor([0, len(tokens)]),
            torch.tensor([0]),
            unknown=torch.arange(len(tokens)) > own.sum(),
        )
        prompt = None if prompts is None else torch.from_numpy(prompts[i : i + 1])
        out = model.module.generate(batch, n_rounds, bounds=(1, 50), cell_prompt=prompt)[batch.unknown].numpy()
        bins.append(out)
        values.append(unbin_values(out[None], table[None])[0])
    return np.stack(bins), np.stack(values)


@pytest.mark.parametrize("n_rounds", [1, 4])
def test_genes_come_from_the_known_genes_of_the_cell(make_model, cells, n_rounds):
    model = make_model()
    asked = ["GENE7", "GENE3", "GENE30", "GENE12", "GENE9"]
    got = generate(model, cells, genes=asked, n_rounds=n_rounds)
    bins, values = one_by_one(model, cells, asked, n_rounds)
    assert list(got.var_names) == asked
    assert got.X.dtype == got.layers["bins"].dtype == np.float32
    np.testing.assert_allclose(got.layers["bins"], bins, atol=1e-4)
    np.testing.assert_allclose(got.X, values, atol=1e-4)
    assert len(np.unique(got.layers["bins"].round(2))) > 20
    pd.testing.assert_frame_equal(got.obs, cells.obs)


def test_by_default_all_genes_that_were_not_measured(make_model, cells):
    model = make_model()
    some = cells[:, 10:].copy()
    got = generate(model, some)
    assert list(got.var_names) == [f"GENE{i}" for i in range(10)]
    np.testing.assert_allclose(got.X, generate(model, cells, genes=got.var_names).X, atol=1e-4)


def test_measured_values_of_genes_to_generate_are_not_read(make_model, cells):
    """Nor are cells binned on them."""
    model = make_model()
    asked = [f"GENE{i}" for i in range(0, 40, 3)]
    other = cells.copy()
    changed = other.X.toarray()
    changed[:, ::3] = np.random.default_rng(5).gamma(1, 2, changed[:, ::3].shape)
    other.X = sp.csr_matrix(changed)
    for how in ({}, {"n_rounds": 3}, {"prompt": "both"}):
        assert np.array_equal(
            generate(model, other, genes=asked, **how).X, generate(model, cells, genes=asked, **how).X
        )


@pytest.mark.parametrize(
    "kind",
    [{"genes": [f"GENE{i}" for i in range(12)]}, {"prompt": "both", "genes": ["GENE3", "GENE5"]}, {"prompt": "cell"}],
)
def test_a_cell_depends_on_itself_alone(make_model, cells, kind, rng, monkeypatch):
    model = make_model()
    whole = generate(model, cells, **kind)
    cell_order, gene_order = rng.permutation(cells.n_obs), rng.permutation(cells.n_vars)
    again = generate(model, cells[cell_order][:, gene_order].copy(), **kind)
    np.testing.assert_allclose(again[cells.obs_names, whole.var_names].X, whole.X, atol=1e-4)
    np.testing.assert_allclose(generate(model, cells[3:5], **kind).X, whole.X[3:5], atol=1e-4)
    for cells_at_once, tokens in ((7, 64), (1, 1), (2048, 10**6)):
        monkeypatch.setattr("scgpt.model._generation._TOKENS_AT_ONCE", cells_at_once * 1240)
        monkeypatch.setattr(
            "scgpt.model._passes._NUMBERS_PER_PASS", {"cpu": tokens * model.module.network.config.d_model}
        )
        np.testing.assert_allclose(generate(model, cells, **kind).X, whole.X, atol=1e-4)


def test_the_order_of_genes_to_generate_does_not_matter(make_model, cells, rng):
    model = make_model()
    asked = [f"GENE{i}" for i in range(15)]
    one, other = (generate(model, cells, genes=names) for names in (asked, rng.permutation(asked)))
    np.testing.assert_allclose(other[:, asked].X, one.X, atol=1e-4)


def test_cell_prompts_are_embeddings_as_they_are(make_model, cells):
    model = make_model()
    prompts = model.get_latent_representation(cells, normalize=False, progress_bar=False)
    got = generate(model, cells, prompt="cell", n_rounds=3)
    assert list(got.var_names) == sorted(cells.var_names, key=lambda name: model.vocab[name])
    assert np.array_equal(generate(model, cells, embeddings=prompts, n_rounds=3).X, got.X)
    bins, values = one_by_one(model, cells, got.var_names, 3, prompts, known=False)
    np.testing.assert_allclose(got.layers["bins"], bins, atol=1e-4)
    np.testing.assert_allclose(got.X, values, atol=1e-4)
    other = generate(model, cells, embeddings=prompts[::-1], n_rounds=3)
    assert np.abs(other.layers["bins"] - got.layers["bins"]).mean() > 0.1


def test_known_genes_and_a_cell_prompt_together(make_model, cells):
    model = make_model()
    asked = ["GENE1", "GENE2", "GENE3"]
    prompts = np.random.default_rng(0).normal(0, 3, (30, 16)).astype(np.float32)
    both = generate(model, cells, genes=asked, prompt="both", embeddings=prompts)
    np.testing.assert_allclose(both.layers["bins"], one_by_one(model, cells, asked, 3, prompts)[0], atol=1e-4)
    for other in (generate(model, cells, genes=asked), generate(model, cells, genes=asked, embeddings=prompts)):
        assert np.isfinite(other.X).all() and np.abs(other.layers["bins"] - both.layers["bins"]).mean() > 0.1


class TestPseudoCells:
    def test_one_of_each_group_from_its_mean(self, make_model, cells):
        model = make_model()
        got = generate(model, cells, groupby="cell_type")
        assert list(got.obs_names) == ["B-0", "T-0"] and list(got.obs["cell_type"]) == ["B", "T"]
        embedding = model.get_latent_representation(cells, normalize=False, progress_bar=False)
        means = np.stack([embedding[cells.obs["cell_type"] == t].mean(0) for t in "BT"])
        np.testing.assert_allclose(
            got.layers["bins"], generate(model, cells[:2], embeddings=means).layers["bins"], atol=1e-3
        )
        tables = [values_of_bins(row[row > 0], 51) for row in cells.X.toarray()]
        table = np.stack(
            [np.mean([t for t, own in zip(tables, cells.obs["cell_type"], strict=True) if own == g], 0) for g in "BT"]
        )
        np.testing.assert_allclose(got.X, unbin_values(got.layers["bins"], table), atol=1e-4)

    def test_after_single_cells_they_are_those_cells_again(self, make_model, cells):
        model = make_model()
        got = generate(model, cells, groupby="cell_type", n_cells=15)
        alone = generate(model, cells, prompt="cell")
        for group in "BT":
            ours, theirs = (np.sort(x.X[x.obs["cell_type"] == group], axis=0) for x in (got, alone))
            np.testing.assert_allclose(ours, theirs, atol=1e-4)  # each cell once before one comes twice

    def test_means_of_several_cells_differ_and_follow_the_seed(self, make_model, cells):
        model = make_model()
        how = {"groupby": "cell_type", "n_cells": 8, "n_averaged": 3}
        one, same, other = (generate(model, cells, **how, seed=seed) for seed in (0, 0, 1))
        assert len(np.unique(one.X.round(3), axis=0)) == 16
        assert np.array_equal(one.X, same.X) and np.abs(one.X - other.X).max() > 0.01
        only_t = generate(model, cells, **how, groups="T")
        np.testing.assert_allclose(only_t.X, one.X[8:], atol=1e-4)
        assert list(only_t.obs_names) == [f"T-{i}" for i in range(8)]

    def test_cells_without_a_group_are_left_out(self, make_model, cells):
        model = make_model()
        cells.obs["cell_type"] = cells.obs["cell_type"].where(np.arange(30) != 4).astype(object)
        got = generate(model, cells, groupby="cell_type")
        np.testing.assert_allclose(got.X, generate(model, cells[np.arange(30) != 4], groupby="cell_type").X, atol=1e-4)

    def test_they_look_like_their_own_type(self, model, train_cells, cells):
        """Against the mean of cells that were never seen, less the mean over both types."""
        truth = np.stack([np.asarray(cells[cells.obs["cell_type"] == t].X.mean(0)).ravel() for t in "BT"])
        difference = truth[0] - truth[1]
        for n_cells in (None, 6):
            got = generate(model, train_cells, groupby="cell_type", n_cells=n_cells)
            profiles = np.stack([got.X[got.obs["cell_type"] == t].mean(0) for t in "BT"])
            r = np.corrcoef(np.vstack([profiles, truth]))[:2, 2:]
            assert r[0, 0] > r[0, 1] + 0.05 and r[1, 1] > r[1, 0] + 0.05, r
            assert np.corrcoef(profiles[0] - profiles[1], difference)[0, 1] > 0.5


def test_known_genes_say_more_than_the_mean(model, train_cells, cells):
    asked = [f"GENE{i}" for i in range(0, 40, 4)]
    truth = cells[:, asked].X.toarray()
    error = ((generate(model, cells, genes=asked).X - truth) ** 2).mean()
    assert error < 0.85 * ((np.asarray(train_cells[:, asked].X.mean(0)) - truth) ** 2).mean()


@pytest.mark.parametrize("how", [{"genes": [f"GENE{i}" for i in range(20)]}, {"prompt": "cell"}])
def test_where_zeros_are_no_tokens_the_head_zero_decides_which_genes_are_expressed(make_model, cells, how):
    model = make_model(zero=True, norm="pre")
    head = model.module.network.gepc.expressed
    head.weight.data -= head.weight.data.mean(1, keepdim=True)  # or most genes of a cell would be on, or off
    torch.nn.init.zeros_(head.bias)
    got = generate(model, cells, **how)
    known = cells[:, 20:].copy() if "genes" in how else cells
    share = np.asarray((known.X > 0).mean(1)).ravel().astype(np.float32)
    embedding = model.get_latent_representation(known, normalize=False, progress_bar=False)
    ids = torch.from_numpy(model.vocab.ids(got.var_names))
    with torch.no_grad():
        p = model.module.network.expressed(
            ids, torch.from_numpy(embedding), torch.from_numpy(share).unsqueeze(1)
        ).numpy()
    sure = np.abs(p - 0.5) > 1e-4
    assert 0.1 < (p > 0.5).mean() < 0.9
    assert np.array_equal((got.layers["bins"] > 0)[sure], (p > 0.5)[sure])
    assert np.array_equal(got.X == 0, got.layers["bins"] == 0)


def test_what_a_cell_expresses_is_drawn_with_its_probability(make_model, cells):
    model = make_model(zero=True, norm="pre")
    head = model.module.network.gepc.expressed
    head.weight.data -= head.weight.data.mean(1, keepdim=True)
    torch.nn.init.zeros_(head.bias)
    got = {seed: generate(model, cells, prompt="cell", draw=True, seed=seed) for seed in range(60)}
    embedding = model.get_latent_representation(cells, normalize=False, progress_bar=False)
    share = np.asarray((cells.X > 0).mean(1)).ravel().astype(np.float32)
    ids = torch.from_numpy(model.vocab.ids(got[0].var_names))
    with torch.no_grad():
        p = model.module.network.expressed(
            ids, torch.from_numpy(embedding), torch.from_numpy(share).unsqueeze(1)
        ).numpy()
    on = np.mean([adata.layers["bins"] > 0 for adata in got.values()], axis=0)
    far = (on - p) / np.sqrt(p * (1 - p) / 60 + 1e-9)
    assert 0.8 < far.std() < 1.2 and abs(far.mean()) < 0.1

    # A function of seed, name and gene alone.
    again = generate(model, cells[[7, 3]].copy(), prompt="cell", draw=True, seed=1)
    np.testing.assert_allclose(again.X, got[1][[7, 3]].X, atol=1e-4)
    pseudo = generate(model, cells, groupby="cell_type", n_cells=4, draw=True)
    assert len(np.unique(pseudo.layers["bins"] > 0, axis=0)) == pseudo.n_obs


def test_without_that_head_every_gene_is_expressed(make_model, cells):
    got = generate(make_model(), cells, genes=["GENE0", "GENE1"])
    assert got.layers["bins"].min() >= 1 and got.X.min() > 0
    with pytest.raises(ValueError, match="draw=True needs a model that gives the probability of expression"):
        generate(make_model(), cells, genes=["GENE0"], draw=True)


@pytest.mark.parametrize("network", [{"batch_embedding": True}, {"input_norm": "domain"}, {"gep_bins": 51}])
def test_configurations(make_model, cells, network):
    model = make_model(**network)
    for how in ({"genes": ["GENE0", "GENE5", "GENE9"]}, {"groupby": "cell_type", "n_cells": 2}):
        got = generate(model, cells, **how)
        assert np.isfinite(got.X).all() and 1 <= got.layers["bins"].min() <= got.layers["bins"].max() <= 50
    if "batch_embedding" in network:
        other = cells.copy()
        other.obs["batch"] = cells.obs["batch"].map({"x": "y", "y": "x"})
        del cells.obs["batch"]
        assert np.abs(generate(model, other, **how).X - got.X).max() > 1e-3
        with pytest.raises(KeyError, match="reads the batch of each cell"):
            generate(model, cells, **how)


def test_conditions_of_genes_and_cells_are_read(train_cells, cells):
    data = train_cells.copy()
    SCGPT.setup_anndata(data, gene_conditions={"set": ["GENE0", "GENE1"]}, cell_conditions="batch")
    model = SCGPT(data, **TINY)
    random_weights(model)
    how = {"groupby": "cell_type", "n_cells": 4}
    got = generate(model, cells, **how)
    cells.obs["batch"] = cells.obs["batch"].map({"x": "y", "y": "x"})
    assert np.abs(generate(model, cells, **how).X - got.X).max() > 1e-3


def test_without_bins_values_are_those_of_the_network(make_model, cells):
    model = make_model()
    model.tokenizer = replace(model.tokenizer, n_bins=None)
    got = generate(model, cells, genes=["GENE0", "GENE1"])
    assert got.X.min() >= 0 and not [name for name in got.layers if name is not None]


def test_long_cells_keep_few_genes_but_all_to_generate(make_model, cells):
    model = make_model()
    asked = [f"GENE{i}" for i in range(30)]
    got = generate(model, cells, genes=asked, max_length=5)
    assert got.shape == (30, 30)
    assert np.abs(got.layers["bins"] - generate(model, cells, genes=asked).layers["bins"]).max() > 1e-2


def test_its_own_data_progress_and_empty_cells(make_model, cells, capsys, caplog):
    model = make_model()
    assert model.generate(genes=["GENE0"]).n_obs == 96
    assert "Generating" in capsys.readouterr().err
    empty = cells.copy()
    empty.X = sp.diags_array((np.arange(30) != 4).astype(np.float32)) @ cells.X
    with caplog.at_level(logging.WARNING):
        assert np.array_equal(generate(model, empty, genes=["GENE0"]).X[4], [0])
    assert "1 cells express no known gene" in caplog.text


class TestWrongInput:
    def test_a_network_that_cannot_generate(self, make_model, cells):
        with pytest.raises(ValueError, match=r"no embedding of unknown genes.*n_flags=2.*objectives=\['gen'\]"):
            generate(make_model(n_flags=0), cells, genes=["GENE0"])

    def test_a_network_without_the_head(self, train_cells, cells):
        data = train_cells.copy()
        SCGPT.setup_anndata(data)
        with pytest.raises(ValueError, match="needs the head 'gep'"):
            generate(SCGPT(data, **TINY, expression="affine"), cells, genes=["GENE0"])

    def test_an_untrained_model_says_so(self, train_cells, cells):
        data = train_cells.copy()
        SCGPT.setup_anndata(data)
        with pytest.warns(UserWarning, match="what it generates means nothing"):
            generate(SCGPT(data, **TINY), cells, genes=["GENE0"])

    def test_no_cell(self, make_model, cells):
        for how in ({"genes": "GENE0"}, {"groupby": "cell_type"}):
            with pytest.raises(ValueError, match="The data set has no cell"):
                generate(make_model(), cells[:0].copy(), **how)

    @pytest.mark.parametrize(
        ("how", "error", "message"),
        [
            ({"genes": ["GENE0", "NOGENE"]}, KeyError, r"1 genes are not in the vocabulary, such as \['NOGENE'\]"),
            ({"genes": []}, ValueError, "no gene to generate: genes is empty"),
            ({}, ValueError, "adata measured all that the model knows"),
            ({"genes": [f"GENE{i}" for i in range(40)]}, ValueError, "No gene is known"),
            ({"genes": "GENE0", "n_rounds": 0}, ValueError, "n_rounds must be a whole number of at least 1, not 0"),
            ({"genes": "GENE0", "prompt": "gene"}, ValueError, "prompt must be 'genes', 'cell' or 'both', not 'gene'"),
            ({"embeddings": np.ones((30, 15))}, ValueError, r"\(n_obs, d_model\) = \(30, 16\), not \(30, 15\)"),
            ({"embeddings": np.full((30, 16), np.nan)}, ValueError, "NaN or infinite"),
            ({"embeddings": np.full((30, 16), 0.25)}, ValueError, "scaled to length 1"),
            ({"embeddings": np.ones((30, 16)), "prompt": "genes"}, ValueError, "embeddings are cell prompts"),
            ({"groupby": "celltype"}, KeyError, "groupby='celltype' is not a column of .obs"),
            ({"groupby": "cell_type", "groups": ["B", "NK"]}, ValueError, r"of the groups \['NK'\]; there are B, T"),
            ({"groupby": "cell_type", "groups": []}, ValueError, "There is no group"),
            ({"groupby": "cell_type", "n_cells": 0}, ValueError, "n_cells must be a whole number of at least 1, not 0"),
            (
                {"groupby": "cell_type", "n_averaged": 0},
                ValueError,
                "n_averaged must be a whole number of at least 1, not 0",
            ),
            ({"groupby": "cell_type", "prompt": "both"}, ValueError, "have no known gene"),
        ],
    )
    def test_what_cannot_be_is_said(self, make_model, cells, how, error, message):
        with pytest.raises(error, match=message):
            generate(make_model(), cells, **how)
