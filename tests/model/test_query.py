"""Surgery for new batches: what moves, what does not, and what is no query."""

import anndata
import numpy as np
import pandas as pd
import pytest
import torch
from scvi.data import AnnDataManager

from scgpt.model import SCGPT
from scgpt.module import Dar

TINY = {"d_model": 8, "n_layers": 1, "n_heads": 2}
OF_BATCHES = {"batch_embedding": True, "input_norm": "domain"}
ROWS = "batches.embedding.weight"
STATISTICS = {"input_norm.running_mean", "input_norm.running_var", "input_norm.num_batches_tracked"}


def embed(model, adata=None):
    return model.get_latent_representation(adata, progress_bar=False)


def state_of(model) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in model.module.network.state_dict().items()}


def rows_that_moved(before, after, n_old: int = 2) -> set[str]:
    """Names of what differs between two states, where all that is old is the same bit for bit."""
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert all(torch.equal(before[name][:n_old], after[name][:n_old]) for name in moved)
    return moved


@pytest.fixture
def build(counts):
    """A trained reference of the first 80 cells, of batches a and b."""

    def make(labels_key="cell_type", **network) -> SCGPT:
        reference = counts[:80].copy()
        SCGPT.setup_anndata(reference, batch_key="batch", labels_key=labels_key)
        model = SCGPT(reference, **TINY, **(network or OF_BATCHES | {"adversary": True}))
        model.train(1, enable_progress_bar=False)
        return model

    return make


@pytest.fixture
def cells(counts) -> anndata.AnnData:
    """Cells of batches c, a and b, of fewer genes and some others, in another order."""
    query = counts[80:].copy()
    query.obs["batch"] = np.resize(["c", "c", "a", "c", "b"], query.n_obs)
    strange = anndata.AnnData(np.ones((query.n_obs, 5), np.float32), query.obs, pd.DataFrame(index=list("vwxyz")))
    return anndata.concat([query[:, ::-2], strange], axis=1, merge="same").copy()


@pytest.fixture
def query(build, cells) -> SCGPT:
    return SCGPT.load_query_data(cells, build())


class TestWhatMoves:
    @pytest.mark.parametrize(
        "training",
        [
            {},
            {"plan_kwargs": {"weight_decay": 0.1}},
            {"plan_kwargs": {"weight_decay": 0.1, "schedule": "cosine", "warmup_steps": 3}, "lr": 0.1},
            {"plan_kwargs": {"weight_decay": 0.1}, "gradient_clip_val": 0.01, "precision": "bf16-mixed"},
            {"plan_kwargs": {"weight_decay": 0.1}, "accumulate_grad_batches": 2, "objectives": {"gepc": 2}},
        ],
        ids=["default", "decay", "schedule", "mixed precision", "accumulated"],
    )
    def test_new_rows_alone_over_50_steps(self, query, training):
        before = state_of(query)
        query.train(13, batch_size=8, train_size=0.8, enable_progress_bar=False, **training)
        assert query.trainer.global_step * training.get("accumulate_grad_batches", 1) >= 50
        assert query.trainer.optimizers[0].param_groups[0]["fused"]
        assert rows_that_moved(before, state_of(query)) == {ROWS, *STATISTICS}
        assert (state_of(query)[ROWS][2] != before[ROWS][2]).all()

    def test_training_learns(self, query):
        query.train(12, batch_size=8, enable_progress_bar=False)
        loss = query.history["train_loss"].to_numpy(float).ravel()
        assert loss[-3:].mean() < loss[:3].mean()

    def test_batch_embeddings_alone(self, build, cells):
        query = SCGPT.load_query_data(cells, build(batch_embedding=True, input_norm="batch"))
        before = state_of(query)
        query.train(10, batch_size=8, enable_progress_bar=False, plan_kwargs={"weight_decay": 0.1})
        assert rows_that_moved(before, state_of(query)) == {ROWS}

    def test_statistics_alone(self, build, cells):
        query = SCGPT.load_query_data(cells, build(input_norm="domain"))
        before = state_of(query)
        query.train(10, batch_size=8, enable_progress_bar=False, plan_kwargs={"weight_decay": 0.1})
        assert rows_that_moved(before, state_of(query)) == STATISTICS
        assert np.isfinite(query.history["validation_loss"].to_numpy(float)).all()

    def test_everything_if_asked_for(self, build, cells):
        query = SCGPT.load_query_data(cells, build(), unfrozen=True)
        before = state_of(query)
        query.train(1, enable_progress_bar=False, objectives=["gep", "gepc", "dar"])
        after = state_of(query)
        assert not torch.equal(before["genes.embedding.weight"], after["genes.embedding.weight"])
        assert not torch.equal(before[ROWS][:2], after[ROWS][:2])
        assert not torch.equal(before["dar.classifier.6.weight"], after["dar.classifier.6.weight"])

    def test_after_save_and_load_everything_again(self, query, cells, tmp_path):
        query.train(1, enable_progress_bar=False)
        query.save(tmp_path / "query")
        loaded = SCGPT.load(tmp_path / "query", cells)
        assert np.array_equal(embed(loaded), embed(query))
        before = state_of(loaded)
        loaded.train(1, enable_progress_bar=False)
        assert not torch.equal(before["genes.embedding.weight"], state_of(loaded)["genes.embedding.weight"])

    def test_a_killed_training_goes_on_and_not_as_another_one(self, build, cells, tmp_path):
        reference = build()
        settings = {"batch_size": 8, "enable_progress_bar": False, "checkpoints": tmp_path, "checkpoint_every": 1}
        whole, first, again = (SCGPT.load_query_data(cells, reference) for _ in range(3))
        whole.train(2, batch_size=8, enable_progress_bar=False)
        first.train(2, max_steps=4, **settings)
        again.train(2, **settings)
        assert rows_that_moved(state_of(whole), state_of(again)) == set()
        with pytest.raises(ValueError, match="fixed_batches"):
            SCGPT.load_query_data(cells, reference, unfrozen=True).train(2, lr=1e-2, **settings)


class TestEmbeddings:
    def test_reference_cells_are_embedded_as_before(self, build, cells):
        reference = build()
        expected, data = embed(reference), reference.adata
        before = state_of(reference)
        query = SCGPT.load_query_data(cells, reference)
        assert np.array_equal(embed(query, data), expected)
        query.train(5, batch_size=8, enable_progress_bar=False, plan_kwargs={"weight_decay": 0.1})
        assert np.array_equal(embed(query, data), expected)
        assert np.array_equal(embed(reference), expected)
        assert rows_that_moved(before, state_of(reference)) == set()

    def test_the_saved_reference_gives_the_same_query(self, build, cells, tmp_path):
        reference = build()
        reference.save(tmp_path / "reference")
        ours = SCGPT.load_query_data(cells.copy(), reference)
        again = SCGPT.load_query_data(cells, tmp_path / "reference")
        assert np.array_equal(embed(ours), embed(again))
        assert rows_that_moved(state_of(ours), state_of(again)) == set()

    def test_shares_are_those_of_the_reference(self, build, cells, tmp_path):
        reference = build(input_norm="domain", dropout=0.0)
        reference.train(1, mask_share=0.0, drop_share=0.5, enable_progress_bar=False)
        reference.save(tmp_path / "model")
        shares = {"mask_share": 0.0, "drop_share": 0.5}
        renamed = reference.adata.copy()
        renamed.obs["batch"] = [f"new {b}" for b in renamed.obs["batch"]]
        statistics = []
        for given, kwargs in ((tmp_path / "model", {}), (reference, shares), (reference, {"drop_share": 0.0})):
            query = SCGPT.load_query_data(renamed.copy(), given, **kwargs)
            statistics.append(state_of(query)["input_norm.running_mean"])
            assert query.extras == shares | {"unknown": False} | kwargs
        assert torch.equal(statistics[0], statistics[1])
        assert not torch.equal(statistics[1], statistics[2])

    def test_statistics_of_a_new_batch_are_there_at_once(self, build, cells):
        """Cells of the reference under a new name get nearly the statistics that training gave the old one."""
        reference = build(input_norm="domain", dropout=0.0)
        reference.train(20, batch_size=16, enable_progress_bar=False)
        renamed = reference.adata.copy()
        renamed.obs["batch"] = [f"new {b}" for b in renamed.obs["batch"]]
        query = SCGPT.load_query_data(renamed, reference)
        assert (embed(query) * embed(reference)).sum(1).min() > 0.99
        whole = SCGPT.load_query_data(renamed.copy(), reference, mask_share=0.0)
        masked, whole = (state_of(m)["input_norm.running_mean"] for m in (query, whole))
        torch.testing.assert_close(masked[2:], masked[:2], rtol=0, atol=0.25)
        assert (whole[2:] - whole[:2]).abs().max() > 0.4  # statistics without hidden values are others

    def test_what_is_gathered_depends_on_cells_alone(self, build, cells):
        reference = build()
        state = torch.random.get_rng_state()
        first = SCGPT.load_query_data(cells.copy(), reference)
        assert torch.equal(state, torch.random.get_rng_state())
        torch.manual_seed(9)
        assert rows_that_moved(state_of(first), state_of(SCGPT.load_query_data(cells, reference))) == set()
        whole = SCGPT.load_query_data(cells, reference, mask_share=0.0)
        assert rows_that_moved(state_of(first), state_of(whole)) == STATISTICS - {"input_norm.num_batches_tracked"}

    def test_a_reference_without_parts_for_batches_embeds_as_it_is(self, build, cells):
        reference = build(gepc=True)
        query = SCGPT.load_query_data(cells, reference)
        assert np.array_equal(embed(query), embed(reference, cells))
        assert state_of(query).keys() == state_of(reference).keys()

    def test_a_reference_without_a_batch_column_too(self, counts, cells):
        SCGPT.setup_anndata(counts)
        reference = SCGPT(counts, **TINY)
        reference.train(1, enable_progress_bar=False)
        query = SCGPT.load_query_data(cells, reference)
        assert np.array_equal(embed(query), embed(reference, cells))
        query = SCGPT.load_query_data(cells, reference, unfrozen=True)
        query.train(1, enable_progress_bar=False)

    def test_known_batches_keep_all(self, build, cells):
        reference = build()
        cells.obs["batch"] = np.resize(["b", "a"], cells.n_obs)
        query = SCGPT.load_query_data(cells, reference)
        assert np.array_equal(embed(query), embed(reference, cells))
        assert rows_that_moved(state_of(reference), state_of(query)) == set()
        assert query.load_report.new_batches == ()

    def test_an_unknown_batch_points_here(self, build, cells):
        with pytest.raises(ValueError, match=r"not trained on: \['c'\].*SCGPT.load_query_data"):
            embed(build(), cells)


class TestRegistry:
    def test_old_batches_keep_their_numbers(self, query, cells):
        mapping = query.registry["field_registries"]["batch"]["state_registry"]["categorical_mapping"]
        assert list(mapping) == ["a", "b", "c"]
        codes = query._registered_cells().batch_labels
        assert [mapping[i] for i in codes] == list(cells.obs["batch"])
        assert query.module.network.config.n_batches == 3

    def test_a_query_of_a_query(self, query, cells, tmp_path):
        query.save(tmp_path / "query")
        more = cells.copy()
        more.obs["batch"] = "d"
        second = SCGPT.load_query_data(more, tmp_path / "query")
        assert second.module.network.config.n_batches == 4
        assert np.array_equal(embed(second, cells), embed(query))
        before = state_of(second)
        second.train(2, enable_progress_bar=False)
        assert rows_that_moved(before, state_of(second), n_old=3) == {ROWS, *STATISTICS}

    def test_numbers_as_batches(self, counts, tmp_path):
        counts.obs["batch"] = np.arange(counts.n_obs) % 3 + 10
        first, new = counts[counts.obs["batch"] < 12].copy(), counts[20:].copy()
        SCGPT.setup_anndata(first, batch_key="batch")
        reference = SCGPT(first, **TINY, **OF_BATCHES)
        reference.train(1, enable_progress_bar=False)
        reference.save(tmp_path / "reference")
        query = SCGPT.load_query_data(new, tmp_path / "reference")
        assert query.load_report.new_batches == ("12",)
        assert np.array_equal(embed(query, first), embed(reference))

    def test_labels_unknown_and_lacking(self, build, cells):
        reference = build(n_classes=3, **OF_BATCHES)
        known = list("BT")
        cells.obs["cell_type"] = np.resize([*known, "new type"], cells.n_obs)
        query = SCGPT.load_query_data(cells, reference)
        mapping = query.registry["field_registries"]["labels"]["state_registry"]["categorical_mapping"]
        assert list(mapping) == ["B", "NK", "T", "new type"]
        query.train(1, enable_progress_bar=False)
        del cells.obs["cell_type"]
        query = SCGPT.load_query_data(cells, reference)
        assert set(cells.obs["cell_type"]) == {"Unknown"}
        query.train(1, enable_progress_bar=False)

    def test_a_second_setup_does_not_change_the_batches(self, query, cells):
        SCGPT.setup_anndata(cells, batch_key="cell_type")
        assert isinstance(query.adata_manager, AnnDataManager)
        assert set(query._registered_cells().batch_labels) == {0, 1, 2}

    def test_the_report_tells_what_was_done(self, build, cells, tmp_path):
        reference = build()
        query = SCGPT.load_query_data(cells, reference)
        assert query.load_report.source == "query of trained from scratch"
        reference.save(tmp_path / "atlas")
        query = SCGPT.load_query_data(cells, tmp_path / "atlas")
        assert query.load_report.source == "query of atlas"
        assert query.load_report.new_batches == ("c",)
        assert "; 1 new batch: c" in str(query.load_report)
        query.train(1, enable_progress_bar=False)
        assert query.load_report.source == "fine-tuned from query of atlas"

    def test_an_untrained_reference_gives_an_untrained_query(self, counts, cells):
        SCGPT.setup_anndata(counts, batch_key="batch")
        query = SCGPT.load_query_data(cells, SCGPT(counts, **TINY, **OF_BATCHES))
        with pytest.warns(UserWarning, match="not trained"):
            embed(query)


class TestNothingToTrain:
    def test_no_part_for_batches(self, build, cells):
        query = SCGPT.load_query_data(cells, build(gepc=True))
        with pytest.raises(ValueError, match="neither embeds nor normalises batches"):
            query.train()

    def test_no_new_batch(self, build, cells):
        cells.obs["batch"] = "a"
        query = SCGPT.load_query_data(cells, build())
        with pytest.raises(ValueError, match="knows all batches of this query"):
            query.train()

    @pytest.mark.parametrize("name", ["dar", "ecs", "cls"])
    def test_objectives_that_could_move_nothing(self, build, cells, name):
        query = SCGPT.load_query_data(cells, build(n_classes=3, adversary=True, **OF_BATCHES))
        with pytest.raises(ValueError, match=f"{name!r} cannot move the new batches.*unfrozen=True"):
            query.train(objectives=["gep", Dar(weight=2.0) if name == "dar" else name])


class TestWrongInput:
    def test_no_batch_column(self, build, cells):
        del cells.obs["batch"]
        with pytest.raises(KeyError, match=r"batch_key='batch'; the query lacks"):
            SCGPT.load_query_data(cells, build())

    def test_cells_without_batch(self, build, cells):
        cells.obs["batch"] = cells.obs["batch"].where(np.arange(cells.n_obs) > 2)
        with pytest.raises(ValueError, match=r"3 of \d+ cells have no batch"):
            SCGPT.load_query_data(cells, build())

    @pytest.mark.parametrize(("theirs", "ours"), [(["1", "2"], [1, 3]), ([1, 2], ["1", "3"]), ([1, 2], [1.0, 3.0])])
    def test_batches_of_another_type_are_known_again(self, counts, cells, theirs, ours):
        counts.obs["batch"] = np.resize(theirs, counts.n_obs)
        cells.obs["batch"] = np.resize(ours, cells.n_obs)
        given = cells.obs["batch"].copy()
        SCGPT.setup_anndata(counts, batch_key="batch")
        query = SCGPT.load_query_data(cells, SCGPT(counts, **TINY, **OF_BATCHES))
        batches = query.adata_manager.get_state_registry("batch").categorical_mapping
        assert batches.tolist() == ["1", "2", "3"]
        pd.testing.assert_series_equal(cells.obs["batch"], given)

    def test_one_cell_is_enough(self, build, cells):
        query = SCGPT.load_query_data(cells[:1].copy(), build())
        assert np.isfinite(embed(query)).all()
        before = state_of(query)
        query.train(2, enable_progress_bar=False)
        assert rows_that_moved(before, state_of(query)) == {ROWS, *STATISTICS}

    def test_a_cell_without_genes_is_finite(self, build, cells):
        cells.X = cells.X * 0
        query = SCGPT.load_query_data(cells, build())
        assert all(tensor.isfinite().all() for tensor in state_of(query).values())
        query = SCGPT.load_query_data(cells[:1].copy(), build())
        assert all(tensor.isfinite().all() for tensor in state_of(query).values())

    def test_no_shared_gene(self, build, cells):
        cells.var_names = [f"other{i}" for i in range(cells.n_vars)]
        obs = list(cells.obs)
        with pytest.raises(ValueError, match="None of the 35 genes is in the vocabulary"):
            SCGPT.load_query_data(cells, build())
        assert list(cells.obs) == obs

    def test_a_lacking_layer(self, counts, cells):
        counts.layers["counts"] = counts.X
        SCGPT.setup_anndata(counts, layer="counts", batch_key="batch")
        with pytest.raises(KeyError, match="no layer 'counts'"):
            SCGPT.load_query_data(cells, SCGPT(counts, **TINY, **OF_BATCHES))

    def test_a_view(self, build, cells):
        with pytest.raises(ValueError, match="a view"):
            SCGPT.load_query_data(cells[:10], build())

    def test_what_is_no_anndata(self, build, cells):
        with pytest.raises(TypeError, match="not DataFrame"):
            SCGPT.load_query_data(cells.obs, build())

    def test_what_is_no_reference(self, build, cells, tmp_path):
        class Other(SCGPT):
            pass

        with pytest.raises(TypeError, match="must be a Other or its folder, not SCGPT"):
            Other.load_query_data(cells, build())
        with pytest.raises(FileNotFoundError, match="no folder"):
            SCGPT.load_query_data(cells, tmp_path / "nowhere")
        with pytest.raises(FileNotFoundError, match="no folder whole-human"):
            SCGPT.load_query_data(cells, "whole-human")
        build().save(tmp_path / "reference")
        with pytest.raises(ValueError, match="saved by SCGPT, not Other"):
            Other.load_query_data(cells, tmp_path / "reference")

    @pytest.mark.parametrize("name", ["checkpoint", "checkpoint_domain_norm"])
    def test_a_checkpoint_of_the_authors(self, golden, cells, name):
        with pytest.raises(ValueError, match="does not name its batches"):
            SCGPT.load_query_data(cells, golden / name)
        with pytest.raises(ValueError, match="does not name its batches"):
            SCGPT.load_query_data(cells, SCGPT.from_pretrained(golden / name))

    def test_a_reference_whose_batches_have_no_name(self, counts, cells):
        SCGPT.setup_anndata(counts)
        with pytest.raises(ValueError, match="set up without batch_key"):
            SCGPT.load_query_data(cells, SCGPT(counts, **TINY, **OF_BATCHES))

    def test_a_reference_of_another_size_than_its_data(self, counts, cells):
        SCGPT.setup_anndata(counts, batch_key="batch")
        with pytest.raises(ValueError, match="has 5 batches, but its data named 2"):
            SCGPT.load_query_data(cells, SCGPT(counts, **TINY, **OF_BATCHES, n_batches=5))

    def test_numbers_as_labels_and_none_in_the_query(self, counts, cells):
        counts.obs["label"] = np.arange(counts.n_obs) % 2
        SCGPT.setup_anndata(counts, batch_key="batch", labels_key="label")
        query = SCGPT.load_query_data(cells, SCGPT(counts, **TINY, **OF_BATCHES))
        assert set(cells.obs["label"]) == {"Unknown"}
        assert query.adata_manager.get_state_registry("labels").categorical_mapping.tolist() == ["0", "1", "Unknown"]


def test_conditions_of_the_query_are_those_of_the_reference(counts):
    counts.obs["drug"] = pd.Categorical(np.resize(["ifn", "none"], counts.n_obs))
    reference, query = counts[:80].copy(), counts[80:].copy()
    query.obs["batch"] = "c"
    SCGPT.setup_anndata(reference, batch_key="batch", gene_conditions={"some": ["GENE1"]}, cell_conditions="drug")
    model = SCGPT(reference, **TINY, **OF_BATCHES)
    model.train(1, enable_progress_bar=False)
    surgery = SCGPT.load_query_data(query, model)
    assert torch.equal(surgery.module.network.conditions.weight, model.module.network.conditions.weight)
    assert (embed(surgery, reference) == embed(model)).all()
    before = embed(surgery)
    query.obs["drug"] = query.obs["drug"].cat.rename_categories({"ifn": "none", "none": "ifn"})
    assert not np.allclose(embed(surgery, query), before, atol=1e-3)
    query.obs["drug"] = query.obs["drug"].cat.rename_categories({"ifn": "tnf"})
    with pytest.raises(ValueError, match=r"conditions that the model was not trained on: tnf"):
        SCGPT.load_query_data(query, model)
