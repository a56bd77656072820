import sys

import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import Callback

from scgpt.model import SCGPT
from scgpt.nn import ScGPTConfig, ScGPTNetwork
from scgpt.train import Lora, adapted
from scgpt.train._adapters import target_layers

ADAPTED = [f"layers.{i}.attention.{layer}.weight" for i in range(2) for layer in ("qkv", "out")]


@pytest.fixture
def network() -> ScGPTNetwork:
    return ScGPTNetwork(ScGPTConfig(n_tokens=20, d_model=8, n_heads=2, n_layers=2, d_feed_forward=8))


@pytest.fixture
def model(counts) -> SCGPT:
    SCGPT.setup_anndata(counts)
    model = SCGPT(counts, d_model=8, n_layers=2, n_heads=2)
    model.is_trained_ = True
    return model


def state_of(model: SCGPT) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in model.module.network.state_dict().items()}


def assert_plain(model: SCGPT, before: dict[str, torch.Tensor]) -> None:
    network = model.module.network
    assert list(network.state_dict()) == list(before)
    assert all(p.requires_grad for p in network.parameters())
    assert not any("peft" in type(module).__module__ for module in network.modules())
    assert not hasattr(network, "peft_config")


class Watch(Callback):
    """Sees to it that the weights beside the adapters do not move, and keeps what the adapted network gives."""

    def __init__(self, before: dict[str, torch.Tensor], raising: BaseException | None = None):
        self.before, self.raising = before, raising

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        network = module.module.network
        weights = {name.replace(".base_layer", ""): p for name, p in network.state_dict().items() if "lora" not in name}
        assert weights.keys() == self.before.keys()
        moved = {name.split(".")[0] for name, p in weights.items() if not torch.equal(p, self.before[name])}
        assert moved == {"gep", "gepc"}
        if self.raising is not None and batch_idx == 2:
            raise self.raising

    def on_train_end(self, trainer, module):
        self.batch = next(iter(trainer.datamodule.train_dataloader()))
        with torch.no_grad():
            self.output = module.module.network.eval()(self.batch, ["gep"])


def test_adapters_and_heads_are_trained_and_merged(model, counts, tmp_path):
    before = state_of(model)
    watch = Watch(before)
    model.train(2, lr=0.01, lora={"rank": 2, "alpha": 4}, enable_progress_bar=False, callbacks=[watch])
    assert_plain(model, before)
    after = state_of(model)
    for name, tensor in after.items():
        assert torch.equal(tensor, before[name]) == (not name.startswith("gep") and name not in ADAPTED), name
    for name in ADAPTED:
        assert torch.linalg.matrix_rank(after[name] - before[name], rtol=1e-3) == 2
    with torch.no_grad():
        merged = model.module.network(watch.batch, ["gep"])
    torch.testing.assert_close(merged.gep, watch.output.gep, rtol=1e-4, atol=1e-4)

    model.save(tmp_path / "model")
    embedding = model.get_latent_representation(counts, progress_bar=False)
    loaded = SCGPT.load(tmp_path / "model")
    assert np.array_equal(loaded.get_latent_representation(counts, progress_bar=False), embedding)
    model.train(1, enable_progress_bar=False)  # as a whole again


def test_an_error_throws_the_adapters_away(model):
    before = state_of(model)
    with pytest.raises(RuntimeError, match="disk"):
        model.train(1, lora=2, enable_progress_bar=False, callbacks=[Watch(before, RuntimeError("disk"))])
    assert_plain(model, before)
    assert all(torch.equal(p, before[name]) for name, p in state_of(model).items() if not name.startswith("gep"))


def test_interrupted_by_hand_what_was_learnt_stays(model):
    before = state_of(model)
    with pytest.raises(KeyboardInterrupt):
        model.train(1, lora=2, enable_progress_bar=False, callbacks=[Watch(before, KeyboardInterrupt())])
    assert_plain(model, before)
    assert not any(torch.equal(p, before[name]) for name, p in state_of(model).items() if name in ADAPTED)
    model.train(1, enable_progress_bar=False)


def test_the_same_seed_gives_the_same_weights(counts):
    def trained():
        SCGPT.setup_anndata(counts)
        model = SCGPT(counts, d_model=8, n_layers=1, n_heads=2)
        model.is_trained_ = True
        torch.rand(3)  # the state of the user's generator does not matter
        model.train(1, lora={"rank": 2, "dropout": 0.2}, seed=3, enable_progress_bar=False)
        return state_of(model)

    first, second = trained(), trained()
    assert all(torch.equal(tensor, second[name]) for name, tensor in first.items())


def test_frozen_layers_get_no_adapter_and_fresh_parts_are_trained_whole(model):
    before = state_of(model)
    model.train(
        1, lr=0.01, lora={"target": "layers.1"}, freeze=["layers.1.attention", "gepc"], enable_progress_bar=False
    )
    moved = {name for name, p in state_of(model).items() if not torch.equal(p, before[name])}
    assert {name for name in moved if not name.startswith("gep.")} == {
        "layers.1.feed_forward.0.weight",
        "layers.1.feed_forward.3.weight",
    }
    network = model.module.network
    with adapted(network, Lora(rank=1), seed=0, fresh=["values"]):
        trainable = {name for name, p in network.named_parameters() if p.requires_grad}
        assert {name.split(".")[0] for name in trainable if "lora" not in name} == {"values", "gep", "gepc"}
        assert {name for name in trainable if "lora" in name and name.startswith("layers.0")} == {
            f"layers.0.attention.{layer}.lora_{ab}.lora.weight" for layer in ("qkv", "out") for ab in "AB"
        }


def test_targets_are_named_by_any_stretch_of_their_names(network):
    assert target_layers(network, ["qkv", "out"]) == [name.removesuffix(".weight") for name in ADAPTED]
    assert target_layers(network, ["layers.1.attention"]) == ["layers.1.attention.qkv", "layers.1.attention.out"]
    assert target_layers(network, ["feed_forward"], frozen=["layers.0"]) == [
        "layers.1.feed_forward.0",
        "layers.1.feed_forward.3",
    ]
    assert "values.linear1" in target_layers(network, ["linear1"])


@pytest.mark.parametrize("target", ["gep", "norm1", "layers.2", "attn"])
def test_what_is_no_layer_to_adapt_is_named_with_what_there_is(network, target):
    with pytest.raises(ValueError, match=rf"called \['{target}'\]; there are .*'layers.0.attention.qkv'"):
        target_layers(network, ["qkv", target])
    with pytest.raises(ValueError, match="No linear layer"):
        target_layers(network, ["qkv"], frozen=["layers"])


def test_settings():
    assert Lora.of(None) is None
    assert Lora.of(4) == Lora(rank=4)
    assert Lora.of({"rank": 4, "target": ["qkv"]}) == Lora(rank=4, target=("qkv",))
    assert Lora.of(Lora(dropout=0.1)) == Lora(dropout=0.1)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (0, "rank of lora must be a whole number of at least 1, not 0"),
        (True, "rank of lora"),
        (2.0, "rank of lora"),
        ({"alpha": 0}, "alpha above 0"),
        ({"dropout": 1}, r"dropout of lora must lie in \[0, 1\)"),
        ({"r": 4}, r"lora has no settings \['r'\]; it has \['rank', 'alpha', 'dropout', 'target'\]"),
    ],
)
def test_settings_out_of_range_are_refused(given, message):
    with pytest.raises(ValueError, match=message):
        Lora.of(given)


def test_without_peft_it_is_said_how_to_get_it(model, monkeypatch):
    monkeypatch.setitem(sys.modules, "peft", None)
    before = state_of(model)
    with pytest.raises(ImportError, match=r"pip install 'scgpt-tools\[peft\]'"):
        model.train(1, lora=2, enable_progress_bar=False)
    assert_plain(model, before)


def test_adapters_beside_random_weights_are_warned_of(counts):
    SCGPT.setup_anndata(counts)
    with pytest.warns(UserWarning, match="those of this model are random"):
        SCGPT(counts, d_model=8, n_layers=1, n_heads=2).train(1, lora=2, enable_progress_bar=False)
