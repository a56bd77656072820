import pytest
import torch

from scgpt.data import TokenBatch
from scgpt.nn import ScGPTConfig, ScGPTNetwork, start_at_value, start_from_genes, start_unchanged


def test_a_network_begins_as_the_mean_of_its_genes_with_little_of_their_values():
    torch.manual_seed(0)
    config = ScGPTConfig(n_tokens=30, d_model=16, n_heads=2, n_layers=2, d_feed_forward=16, dropout=0.0, norm="pre")
    network = ScGPTNetwork(config.changed(pooling="weighted")).eval()
    ids, values = torch.tensor([[29, 3, 5, 7]]), torch.tensor([[-2.0, 1, 3, 6]])
    batch = TokenBatch.from_padded(ids, values, torch.zeros(1, 4, dtype=torch.bool))
    start_from_genes(network)
    cells = network(batch).cells
    genes, numbers = network.genes(ids[0, 1:]), network.values(values[0, 1:])
    torch.testing.assert_close(cells[0], ((genes + numbers) * torch.tensor([[0.1], [0.3], [0.6]])).sum(0))
    assert numbers.norm(dim=1).max().item() == pytest.approx(0.1 * genes.norm(dim=1).mean().item(), rel=0.01)
    network(batch, heads=("gep",)).gep.sum().backward()  # and can leave this place
    assert all(layer.attention.out.weight.grad.abs().max() > 0 for layer in network.layers)


def test_a_network_begins_with_predictions_near_a_value():
    torch.manual_seed(0)
    config = ScGPTConfig(n_tokens=30, d_model=16, n_heads=2, n_layers=1, d_feed_forward=16)
    ids, values = torch.tensor([[29, 3, 5, 7]]), torch.tensor([[-2.0, 1, 3, 6]])
    batch = TokenBatch.from_padded(ids, values, torch.zeros(1, 4, dtype=torch.bool))
    network = ScGPTNetwork(config).eval()
    before = network(batch, heads=("gep",)).gep
    start_at_value(network, 25.5)
    after = network(batch, heads=("gep",)).gep
    assert (before.abs() < 2).all() and ((after - 25.5).abs() < 2).all()

    choosing = ScGPTNetwork(config.changed(gep_bins=51))
    weights = {name: tensor.clone() for name, tensor in choosing.state_dict().items()}
    start_at_value(choosing, 25.5)  # a head that chooses among bins has no one value
    assert all(torch.equal(tensor, weights[name]) for name, tensor in choosing.state_dict().items())


@pytest.mark.parametrize("condition_context", [False, True])
def test_a_network_begins_with_every_gene_as_it_was(condition_context):
    torch.manual_seed(0)
    sizes = {"n_tokens": 30, "d_model": 16, "n_heads": 2, "n_layers": 1, "d_feed_forward": 16, "gepc": False}
    config = ScGPTConfig(**sizes, expression="affine", n_conditions=2, condition_context=condition_context, zero=True)
    ids, values = torch.tensor([[29, 3, 5, 7]]), torch.tensor([[-2.0, 1, 0, 6.25]])
    batch = TokenBatch.from_padded(
        ids, values, torch.zeros(1, 4, dtype=torch.bool), condition_ids=torch.tensor([[0, 1, 0, 0]])
    )
    network = ScGPTNetwork(config).eval()
    assert (network(batch, heads=("perturb_gep",)).perturb_gep - values[0]).abs().max() > 0.1
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    start_unchanged(network)
    changed = {name for name, tensor in network.state_dict().items() if not torch.equal(tensor, before[name])}
    assert changed == {f"gep.{part}.value.4.{what}" for part in ("coefficient", "bias") for what in ("weight", "bias")}
    out = network(batch, heads=("perturb_gep",)).perturb_gep
    assert torch.equal(out, values[0])
    (out - torch.arange(4)).square().sum().backward()  # and can leave this place
    assert network.gep.coefficient.value[-1].weight.grad.abs().max() > 0
    assert network.gep.bias.value[-1].weight.grad.abs().max() > 0

    other = ScGPTNetwork(ScGPTConfig(**sizes))
    before = {name: tensor.clone() for name, tensor in other.state_dict().items()}
    start_unchanged(other)  # which predicts values from nothing
    assert all(torch.equal(tensor, before[name]) for name, tensor in other.state_dict().items())


@pytest.mark.parametrize("norm", ["post", "pre_stream"])
def test_layers_that_cannot_be_the_identity_are_left_as_they_are(norm):
    network = ScGPTNetwork(ScGPTConfig(n_tokens=10, d_model=8, n_heads=2, n_layers=1, d_feed_forward=8, norm=norm))
    before = {name: weights.clone() for name, weights in network.state_dict().items()}
    with pytest.raises(ValueError, match=f"identity where norm='pre', and not with norm='{norm}'"):
        start_from_genes(network)
    assert all(torch.equal(weights, before[name]) for name, weights in network.state_dict().items())
