import pytest
import torch
from lightning.pytorch.callbacks import Callback

from scgpt.data import TokenBatch
from scgpt.model import SCGPT
from scgpt.module import make_objectives
from scgpt.nn import ScGPTConfig, ScGPTNetwork
from scgpt.train import check_trainable, frozen, parts_of

CONFIG = ScGPTConfig(n_tokens=20, d_model=8, n_heads=2, n_layers=2, d_feed_forward=8, n_conditions=2, n_classes=3)


@pytest.fixture
def network() -> ScGPTNetwork:
    return ScGPTNetwork(CONFIG).train()


def trainable(network) -> set[str]:
    return {name for name, parameter in network.named_parameters() if parameter.requires_grad}


def test_parts_are_named_as_in_the_state_dict(network):
    assert parts_of(network, ["genes", "layers.0.attention", "genes"]) == ("genes", "layers.0.attention")
    assert parts_of(network, ["embeddings"]) == ("genes", "values", "conditions")
    assert parts_of(network, "gep") == ("gep",)
    assert parts_of(network, ["layers.0.norm1.weight"]) == ("layers.0.norm1.weight",)
    assert parts_of(network, []) == ()


@pytest.mark.parametrize("name", ["encoder", "layers.7", "layer", "gene", "flags", ""])
def test_what_is_no_part_is_refused_with_what_there_is(network, name):
    with pytest.raises(ValueError, match=rf"no part '{name}'; it has \['genes', .*'layers', 'layers.0', 'layers.1'\]"):
        parts_of(network, [name])


def test_frozen_parts_are_trainable_again_at_the_end_unless_they_were_not_before(network):
    everything = trainable(network)
    network.cls.requires_grad_(False)
    before = trainable(network)
    with pytest.raises(RuntimeError), frozen(network, ["genes", "layers.1", "cls"]):
        assert {name.split(".")[0] for name in before - trainable(network)} == {"genes", "layers"}
        assert not any(name.startswith(("genes", "layers.1", "cls")) for name in trainable(network))
        raise RuntimeError
    assert trainable(network) == before < everything


def test_a_name_that_begins_alike_is_another_part():
    network = ScGPTNetwork(ScGPTConfig(n_tokens=5, d_model=4, n_heads=2, n_layers=11, d_feed_forward=4))
    with frozen(network, ["layers.1", "gep"]):
        assert {"layers.10.norm1.weight", "gepc.value.weight"} <= trainable(network)


@pytest.mark.parametrize(
    ("objectives", "freeze", "idle"),
    [
        (["gep", "gepc"], ["embeddings", "layers", "gep"], "gep"),
        (["cls", "ecs"], ["embeddings", "layers"], "ecs"),
        (["cls"], ["embeddings", "layers", "cls"], "cls"),
        (["cls", "gep"], ["embeddings", "layers"], None),
        (["ecs"], ["embeddings", "layers.0", "gep", "cls"], None),
    ],
)
def test_an_objective_that_can_train_nothing_is_named(network, objectives, freeze, idle):
    with frozen(network, parts_of(network, freeze)):
        if idle is None:
            check_trainable(network, make_objectives(objectives))
            return
        with pytest.raises(ValueError, match=f"Objective '{idle}' has nothing to train"):
            check_trainable(network, make_objectives(objectives))


def bytes_kept(network: ScGPTNetwork, batch: TokenBatch) -> int:
    """Activations that a backward pass would need."""
    kept: dict[int, int] = {}
    weights = {p.untyped_storage().data_ptr() for p in network.parameters()}

    def pack(x):
        storage = x.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return x

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        out = network(batch, ["gep"])
        total = sum(kept.values())
    assert out.gep.requires_grad
    return total


def test_frozen_parts_at_the_start_keep_no_activations(network):
    n = 64
    batch = TokenBatch(
        gene_ids=torch.arange(n) % 20,
        values=torch.ones(n),
        offsets=torch.tensor([0, n]),
        cell_index=torch.arange(1),
        condition_ids=torch.zeros(n, 1, dtype=torch.int64),
    )
    seen = {}
    network.layers[1].register_forward_pre_hook(lambda layer, args: seen.update(graph=args[0].grad_fn))
    whole = bytes_kept(network, batch)
    assert seen["graph"] is not None
    with frozen(network, parts_of(network, ["embeddings", "layers.0"])):
        assert bytes_kept(network, batch) < 0.6 * whole
        assert seen["graph"] is None
    with frozen(network, parts_of(network, ["embeddings", "layers"])):
        assert bytes_kept(network, batch) < 0.2 * whole


@pytest.mark.parametrize("freeze", [["genes", "values", "layers.0"], ["layers.0.attention", "gep"], ["embeddings"]])
def test_training_leaves_frozen_parts_bit_for_bit(counts, freeze):
    SCGPT.setup_anndata(counts, batch_key="batch")
    model = SCGPT(counts, d_model=8, n_layers=2, n_heads=2, batch_embedding=True)
    network = model.module.network
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    with_gradient = set()

    class Gradients(Callback):
        def on_before_optimizer_step(self, *args):
            with_gradient.update(name for name, p in network.named_parameters() if p.grad is not None)

    model.train(
        1,
        lr=0.01,
        freeze=freeze,
        enable_progress_bar=False,
        callbacks=[Gradients()],
        plan_kwargs={"weight_decay": 0.1},
    )
    parts = parts_of(network, freeze)
    for name, tensor in network.state_dict().items():
        held = any(name.startswith(f"{part}.") for part in parts)
        assert torch.equal(tensor, before[name]) == held, name
    optimizer = model.trainer.optimizers[0]
    given = {id(p) for group in optimizer.param_groups for p in group["params"]}
    for name, parameter in network.named_parameters():
        held = any(name.startswith(f"{part}.") for part in parts)
        assert (name in with_gradient) == (not held)
        assert (id(parameter) in given) == (parameter in optimizer.state) == (not held)
        assert parameter.requires_grad


@pytest.mark.parametrize("input_norm", ["batch", "domain"])
def test_a_frozen_norm_of_the_input_keeps_its_statistics(counts, input_norm):
    SCGPT.setup_anndata(counts, batch_key="batch")
    model = SCGPT(counts, d_model=8, n_layers=1, n_heads=2, input_norm=input_norm)
    norm = model.module.network.input_norm
    model.train(1, enable_progress_bar=False)
    before = {name: tensor.clone() for name, tensor in norm.state_dict().items()}
    assert before["running_mean"].any()
    model.train(2, seed=1, freeze=["input_norm"], enable_progress_bar=False)
    assert all(torch.equal(tensor, before[name]) for name, tensor in norm.state_dict().items())
    assert not norm.training
    model.train(1, seed=2, enable_progress_bar=False)
    assert not torch.equal(norm.running_mean, before["running_mean"])


def test_wrong_parts_are_refused_before_training(counts):
    SCGPT.setup_anndata(counts)
    model = SCGPT(counts, d_model=8, n_layers=1, n_heads=2)
    with pytest.raises(ValueError, match="no part 'decoder'"):
        model.train(1, freeze=["decoder"])
    with pytest.raises(ValueError, match="Objective 'gep' has nothing to train"):
        model.train(1, freeze=["embeddings", "layers", "gep", "gepc"])
    assert all(p.requires_grad for p in model.module.parameters())
    assert not any(module.training for module in model.module.modules())


def test_a_part_to_freeze_that_is_not_there_is_refused(network):
    with pytest.raises(ValueError, match="The network has no part 'gene'"), frozen(network, ["gene"]):
        pass
    assert all(parameter.requires_grad for parameter in network.parameters())
