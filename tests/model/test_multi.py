from dataclasses import replace

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from mudata import MuData
from numpy.testing import assert_allclose

from scgpt.data import MODALITIES
from scgpt.model import SCGPT, MultiSCGPT

N_CELLS, N_GENES, N_PROTEINS = 60, 30, 6
SMALL = {"d_model": 16, "n_heads": 2, "n_layers": 1}
GENES = [f"G{i}" for i in range(N_GENES)]


@pytest.fixture
def mdata(rng) -> MuData:
    """Two types of cells, that differ in genes and proteins; the last 20 cells lack proteins."""
    obs = pd.DataFrame(
        {"batch": np.where(np.arange(N_CELLS) % 3, "a", "b"), "cell_type": np.where(np.arange(N_CELLS) % 2, "T", "B")},
        index=[f"c{i}" for i in range(N_CELLS)],
    )
    rates = {
        kind: rng.gamma(0.5, scale, (2, n)) for kind, n, scale in (("rna", N_GENES, 3), ("protein", N_PROTEINS, 80))
    }
    parts = {
        kind: ad.AnnData(
            sp.csr_matrix(rng.poisson(rate[np.arange(N_CELLS) % 2]).astype(np.float32)),
            obs=obs if kind == "rna" else obs[[]],
            var=pd.DataFrame(index=GENES if kind == "rna" else GENES[: rate.shape[1]]),  # proteins named like genes
        )
        for kind, rate in rates.items()
    }
    return MuData({"rna": parts["rna"], "prot": parts["protein"][:40].copy()})


@pytest.fixture
def model(mdata) -> MultiSCGPT:
    MultiSCGPT.setup_mudata(mdata, batch_key="batch")
    return MultiSCGPT(mdata, zero=True, **SMALL)


def train(model: MultiSCGPT, epochs: int = 1, **kwargs) -> None:
    model.train(epochs, batch_size=16, enable_progress_bar=False, **kwargs)


def test_a_protein_is_not_the_gene_of_its_name(model, mdata):
    assert list(model.vocab.genes) == GENES + [f"protein:G{i}" for i in range(N_PROTEINS)]
    matches = model.match()
    ids = {kind: match.token_ids.tolist() for kind, match in matches.items()}
    assert ids["rna"] == model.vocab.ids(GENES).tolist()
    assert ids["protein"] == model.vocab.ids([f"protein:{name}" for name in mdata["prot"].var_names]).tolist()
    # The batch was a column of a modality alone.
    assert mdata.obs["batch"].tolist() == mdata["rna"].obs["batch"].tolist()


def test_training_lowers_the_losses_of_all_objectives(model):
    train(model, 12, lr=3e-3, objectives={"gep": 1, "gepc": 1, "zero": 100}, train_size=1.0)
    history = model.history
    for name in ("gep_train", "gepc_train", "zero_train"):
        losses = history[name].to_numpy().ravel()
        assert losses[-1] < 0.9 * losses[0], name


def test_an_embedding_is_of_the_modalities_that_are_looked_at(model, mdata):
    train(model)
    embed = lambda data=None, **kwargs: model.get_latent_representation(data, progress_bar=False, **kwargs)
    whole, rna, protein = embed(), embed(modality="rna"), embed(modality=["protein"])
    assert whole.shape == (N_CELLS, 16) and not np.isnan(whole).any()
    assert_allclose(np.linalg.norm(whole, axis=1), 1, atol=1e-5)
    assert_allclose(whole[40:], rna[40:], atol=1e-6)  # they have nothing else
    assert np.isnan(protein[40:]).all() and not np.isnan(protein[:40]).any()
    assert np.abs(whole[:40] - rna[:40]).max() > 1e-4 < np.abs(whole[:40] - protein[:40]).max()
    # A cell is what it is, whichever cells are beside it, and however its lacking of a modality is told.
    order = np.random.default_rng(3).permutation(N_CELLS)
    assert_allclose(embed(indices=order), whole[order], atol=1e-5)
    names = mdata.obs_names[order[:25]]
    assert_allclose(embed(mdata[names].copy()), whole[order[:25]], atol=1e-5)
    padded = sp.vstack([mdata["prot"].X, sp.csr_matrix(np.full((20, N_PROTEINS), np.nan, np.float32))], format="csr")
    prot = ad.AnnData(padded, obs=mdata["rna"].obs[[]], var=mdata["prot"].var)
    assert_allclose(embed(MuData({"rna": mdata["rna"].copy(), "prot": prot})), whole, atol=1e-5)
    # and in the modality it is the embedding of a cell that has that alone
    assert_allclose(embed(MuData({"prot": mdata["prot"].copy()})), protein[:40], atol=1e-5)
    with pytest.raises(KeyError, match=r"\['atac'\]"):
        embed(modality="atac")


def test_it_is_saved_with_its_data(model, mdata, tmp_path):
    train(model)
    before = model.get_latent_representation(progress_bar=False)
    model.save(tmp_path / "model", save_anndata=True)
    loaded = MultiSCGPT.load(tmp_path / "model")
    assert_allclose(loaded.get_latent_representation(progress_bar=False), before, atol=1e-6)
    train(loaded)
    model.save(tmp_path / "bare")
    bare = MultiSCGPT.from_pretrained(tmp_path / "bare")
    assert_allclose(bare.get_latent_representation(mdata, progress_bar=False), before, atol=1e-6)
    with pytest.raises(ValueError, match="saved by MultiSCGPT, not SCGPT"):
        SCGPT.load(tmp_path / "model")


def test_a_killed_training_goes_on_to_the_same_weights(mdata, tmp_path):
    def trained(epochs: tuple[int, ...], folder) -> np.ndarray:
        for n in epochs:
            MultiSCGPT.setup_mudata(mdata, batch_key="batch")
            model = MultiSCGPT(mdata, **SMALL)
            train(model, n, checkpoints=folder)
        return model.get_latent_representation(progress_bar=False)

    assert_allclose(trained((1, 3), tmp_path / "a"), trained((3,), tmp_path / "b"), atol=0)


def test_the_adversary_and_the_decoders_read_batches(mdata):
    MultiSCGPT.setup_mudata(mdata, batch_key="batch")
    model = MultiSCGPT(mdata, batch_embedding=True, adversary=True, **SMALL)
    train(model, objectives={"gep": 1, "gepc": 1, "dar": 1})
    assert np.isfinite(model.history["dar_train"].to_numpy(dtype=float)).all()


def test_a_pretrained_model_keeps_its_genes_and_learns_proteins(mdata):
    rna = mdata["rna"].copy()
    SCGPT.setup_anndata(rna)
    pretrained = SCGPT(rna, **SMALL)
    pretrained.train(1, enable_progress_bar=False)
    MultiSCGPT.setup_mudata(mdata, batch_key="batch")
    model = MultiSCGPT.from_pretrained(pretrained, mdata)
    assert set(model.load_report.fresh) == {"modalities", "gep", "gepc"}
    assert_allclose(model.get_gene_embeddings(GENES), pretrained.get_gene_embeddings(GENES), atol=0)
    assert f"protein:G{N_PROTEINS - 1}" in model.vocab and model.vocab.genes[:N_GENES] == pretrained.vocab.genes
    assert_allclose(
        model.get_latent_representation(modality="rna", progress_bar=False),
        pretrained.get_latent_representation(progress_bar=False),
        atol=1e-5,
    )
    train(model)
    assert model.module.network.config.n_modalities == 1 + len(MODALITIES)


def test_a_checkpoint_of_genes_embeds_them_as_it_is(mdata):
    rna = mdata["rna"].copy()
    SCGPT.setup_anndata(rna)
    pretrained = SCGPT(rna, **SMALL)
    pretrained.train(1, enable_progress_bar=False)
    checkpoint = replace(pretrained.to_checkpoint(), registry={})  # as those that are downloaded
    only_genes = MuData({"rna": mdata["rna"].copy()})
    assert_allclose(
        MultiSCGPT.from_pretrained(checkpoint).get_latent_representation(only_genes, progress_bar=False),
        pretrained.get_latent_representation(progress_bar=False),
        atol=1e-5,
    )


def test_features_of_another_data_set_are_matched(model, mdata):
    train(model)
    other = MuData({"rna": mdata["rna"][:, ::-1].copy(), "prot": mdata["prot"][:, [4, 2]].copy()})
    assert model.match(other)["protein"].matched == ("protein:G4", "protein:G2")
    embedding = model.get_latent_representation(other, progress_bar=False)
    assert_allclose(embedding[40:], model.get_latent_representation(progress_bar=False)[40:], atol=1e-5)


def test_wrong_input(mdata):
    with pytest.raises(TypeError, match="takes a MuData: call setup_mudata"):
        MultiSCGPT.setup_anndata(mdata["rna"])
    with pytest.raises(TypeError, match="bring modalities together"):
        MultiSCGPT.setup_mudata(mdata["rna"])
    with pytest.raises(KeyError, match="'donor'"):
        MultiSCGPT.setup_mudata(mdata, batch_key="donor")
    with pytest.raises(ValueError, match=r"layers= names \['atac'\]"):
        MultiSCGPT.setup_mudata(mdata, layers={"atac": "counts"})
    with pytest.raises(KeyError, match="no layer 'counts'"):
        MultiSCGPT.setup_mudata(mdata, layers={"rna": "counts"})
    with pytest.raises(ValueError, match="needs data set up by MultiSCGPT.setup_mudata"):
        MultiSCGPT()
    apart = MuData({"rna": mdata["rna"][40:].copy(), "prot": mdata["prot"].copy()})
    with pytest.raises(ValueError, match="named alike"):
        MultiSCGPT.setup_mudata(apart)
    mdata["prot"].X = mdata["prot"].X - sp.csr_matrix(np.ones((40, N_PROTEINS), np.float32))
    with pytest.raises(ValueError, match="'prot' holds negative values.*background-corrected"):
        MultiSCGPT.setup_mudata(mdata)


OBJECTIVES = {"zero": 100, "levels": 10}


@pytest.fixture
def translator(mdata) -> MultiSCGPT:
    MultiSCGPT.setup_mudata(mdata, batch_key="batch")
    model = MultiSCGPT(mdata, zero=True, batch_embedding=True, norm="pre", **SMALL)
    train(model, 40, lr=1e-2, objectives=OBJECTIVES, drop_modality=0.5, mask_share=0.0, train_size=1.0)
    return model


def test_a_modality_is_predicted_from_the_others(translator, mdata, tmp_path):
    predict = lambda model=translator, **kwargs: model.predict_modality("protein", progress_bar=False, **kwargs)
    whole = predict(mdata=mdata)
    assert whole.shape == (N_CELLS, N_PROTEINS) and list(whole.index) == list(mdata.obs_names)
    assert list(whole) == list(mdata["prot"].var_names)
    values = whole.to_numpy()
    assert values.dtype == np.float32 and np.isfinite(values).all() and (values >= 0).all()
    # The two types differ as they do in cells that have proteins, also where there are none.
    truth = mdata["prot"].X.toarray()
    difference = truth[1::2].mean(0) - truth[::2].mean(0)
    told = values[41::2].mean(0) - values[40::2].mean(0)
    assert np.corrcoef(difference, told)[0, 1] > 0.8
    # It is in the units of the counts, and asks for no protein.
    assert 0.3 < values.mean() / truth.mean() < 3
    only_rna = MuData({"rna": mdata["rna"].copy()})
    assert_allclose(predict(mdata=only_rna), whole, atol=1e-4)
    some = predict(features=["G3", "G1"], indices=[5, 50])
    assert_allclose(some, whole.iloc[[5, 50]][["G3", "G1"]], rtol=1e-4, atol=1e-4)
    # A saved model does the same.
    translator.save(tmp_path / "model")
    loaded = MultiSCGPT.from_pretrained(tmp_path / "model")
    assert_allclose(predict(loaded, mdata=only_rna), whole, atol=1e-4)


def test_other_modalities_are_predicted_where_they_are_not_known(translator, mdata):
    genes = translator.predict_modality("rna", progress_bar=False)
    assert genes.shape == (N_CELLS, N_GENES)
    assert genes.iloc[40:].isna().all(axis=None)  # they have nothing but genes
    assert genes.iloc[:40].notna().all(axis=None)


def test_predictions_do_not_read_batches_that_lack_the_modality(translator, mdata):
    assert translator.extras["profiles"]["protein"]["batches"] == [0, 1]
    mdata.obs["batch"] = np.where(np.arange(N_CELLS) < 40, "a", "b")
    MultiSCGPT.setup_mudata(mdata, batch_key="batch")
    model = MultiSCGPT(mdata, zero=True, batch_embedding=True, **SMALL)
    train(model, objectives=OBJECTIVES)
    assert model.extras["profiles"]["protein"]["batches"] == [0]
    assert model.extras["profiles"]["rna"]["batches"] == [0, 1]


def test_predictions_are_of_cells_normalised_in_their_batch(mdata):
    mdata.obs["batch"] = np.where(np.arange(N_CELLS) < 40, "a", "b")
    MultiSCGPT.setup_mudata(mdata, batch_key="batch")
    model = MultiSCGPT(mdata, zero=True, input_norm="domain", **SMALL)
    train(model, objectives=OBJECTIVES)
    whole = model.predict_modality("protein", progress_bar=False)
    other = mdata.copy()
    other.obs["batch"] = np.where(other.obs["batch"] == "a", "b", "a")
    assert not np.allclose(model.predict_modality("protein", other, progress_bar=False), whole)
    other.obs["batch"] = "c"
    with pytest.raises(ValueError, match="batches that the model was not trained on"):
        model.predict_modality("protein", other)


def test_what_cannot_be_predicted(model, translator, mdata):
    with pytest.raises(ValueError, match="objectives 'zero' and 'levels'"):
        model.predict_modality("protein")
    with pytest.raises(KeyError, match=r"\['rna', 'protein'\], not on 'atac'"):
        translator.predict_modality("atac")
    with pytest.raises(KeyError, match=r"protein features \['CD4'\]"):
        translator.predict_modality("protein", features=["CD4", "G1"])
    with pytest.raises(KeyError, match="predicted from other modalities"):
        translator.predict_modality("protein", source="protein")
    with pytest.raises(KeyError, match="predicted from other modalities"):
        translator.predict_modality("protein", MuData({"prot": mdata["prot"].copy()}))


def test_a_batch_need_not_measure_every_feature(mdata):
    table = pd.DataFrame({"a": True, "b": np.arange(N_GENES) < 20}, index=mdata["rna"].var_names)
    mdata["rna"].varm["measured"] = table
    counts = mdata["rna"].X.toarray()
    counts[np.ix_((mdata["rna"].obs["batch"] == "b").to_numpy(), np.arange(20, N_GENES))] = 0
    mdata["rna"].X = sp.csr_matrix(counts)
    with pytest.raises(KeyError, match=r"'measured' is not a key of \.varm"):
        MultiSCGPT.setup_mudata(mdata, batch_key="batch", measured_key="measured")
    mdata["prot"].varm["measured"] = pd.DataFrame({"a": True, "b": True}, index=mdata["prot"].var_names)
    MultiSCGPT.setup_mudata(mdata, batch_key="batch", measured_key="measured")
    model = MultiSCGPT(mdata, zero=True, **SMALL)
    batch = model._registered_cells().tokenize(np.arange(N_CELLS), model.tokenizer, levels=True)
    unknown = batch.levels[:, batch.measured_modality_ids == MODALITIES["rna"]].isnan().numpy()
    assert unknown[mdata.obs["batch"] == "b"].sum(1).tolist() == [10] * int((mdata.obs["batch"] == "b").sum())
    assert not unknown[mdata.obs["batch"] == "a"].any()
    train(model, objectives=OBJECTIVES)
