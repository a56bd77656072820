import copy

import pytest
import torch

from scgpt.nn import ScGPTConfig, ScGPTNetwork, add_batches, add_genes, fix_all_but_new_batches, gather_statistics

ALL = {"n_batches": 3, "batch_embedding": True, "adversary": True, "input_norm": "domain"}
OF_BATCHES = {
    "batches.embedding.weight",
    "dar.classifier.6.weight",
    "dar.classifier.6.bias",
    "input_norm.running_mean",
    "input_norm.running_var",
    "input_norm.num_batches_tracked",
}


def grown(network: ScGPTNetwork, n_new: int) -> ScGPTNetwork:
    config, weights = add_batches(network.config, network.state_dict(), n_new)
    larger = ScGPTNetwork(config)
    larger.load_state_dict(weights)
    return larger.eval()


def state_of(network) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in network.state_dict().items()}


@pytest.fixture
def network(make_network):
    network = make_network(**ALL)
    network.input_norm.num_batches_tracked += torch.tensor([4, 0, 9])
    return network


class TestAddBatches:
    def test_old_rows_stay_and_only_what_knows_batches_grows(self, network):
        old, new = network.state_dict(), grown(network, 2).state_dict()
        assert {name for name in old if old[name].shape != new[name].shape} == OF_BATCHES
        assert all(torch.equal(old[name], new[name][: len(old[name])]) for name in old)
        assert {len(new[name]) for name in OF_BATCHES} == {5}

    def test_new_rows_are_means_and_pooled_statistics(self, network):
        old, new = network.state_dict(), grown(network, 2).state_dict()
        for name in sorted(OF_BATCHES)[:3]:
            assert torch.equal(new[name][3], old[name].mean(0))
            assert torch.equal(new[name][4], new[name][3])
        # The second domain was never seen: its statistics are none. Equal numbers of tokens from the two others:
        mean, var = old["input_norm.running_mean"][[0, 2]], old["input_norm.running_var"][[0, 2]]
        noise = torch.randn(2, 20_000, mean.shape[1], generator=torch.Generator().manual_seed(0))
        tokens = (mean.unsqueeze(1) + var.sqrt().unsqueeze(1) * noise).flatten(0, 1)
        torch.testing.assert_close(new["input_norm.running_mean"][3], tokens.mean(0), rtol=0, atol=0.03)
        torch.testing.assert_close(new["input_norm.running_var"][3], tokens.var(0), rtol=0.05, atol=0)
        assert new["input_norm.num_batches_tracked"].tolist() == [4, 0, 9, 0, 0]

    def test_no_batch_is_a_copy(self, network):
        config, weights = add_batches(network.config, network.state_dict(), 0)
        assert config == network.config
        assert all(torch.equal(weights[name], tensor) for name, tensor in network.state_dict().items())


class TestFixAllButNewBatches:
    @pytest.mark.parametrize("fused", [False, True])
    def test_training_moves_new_rows_alone(self, network, make_batch, fused):
        """Weight decay on everything: what is fixed is not in the optimiser, or in rows without gradient."""
        network = grown(network, 1)
        fix_all_but_new_batches(network, 3)
        before = state_of(network)
        trainable = [p for p in network.parameters() if p.requires_grad]
        assert [p.shape for p in trainable] == [(4, 16)]
        optimizer = torch.optim.AdamW(trainable, lr=0.1, weight_decay=0.0, fused=fused)
        network.train()
        for step in range(50):
            batch = make_batch(seed=step)
            batch.batch_labels[:] = torch.tensor([0, 3, 3, 1])
            out = network(batch, heads=("gep", "gepc"))
            optimizer.zero_grad()
            (out.gep.square().mean() + out.gepc.square().mean()).backward()
            torch.nn.utils.clip_grad_norm_(trainable, 0.1)
            optimizer.step()
        after = network.state_dict()
        moved = {name for name in before if not torch.equal(before[name], after[name])}
        assert moved == {n for n in OF_BATCHES if not n.startswith("dar")}
        for name in moved:
            assert torch.equal(before[name][:3], after[name][:3])
            assert not torch.equal(before[name][3], after[name][3])

    def test_a_plain_batch_norm_stays_in_evaluation(self, make_network, batch):
        network = make_network(n_batches=2, batch_embedding=True, input_norm="batch")
        fix_all_but_new_batches(network.train(), 1)
        before = state_of(network)
        assert network.training
        assert not network.input_norm.training
        expected = network.eval()(batch).cells
        network.train()
        for module in network.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
        torch.testing.assert_close(network(batch).cells, expected, rtol=0, atol=1e-6)
        assert all(torch.equal(before[name], tensor) for name, tensor in network.state_dict().items())

    def test_without_new_batches_nothing_is_trainable(self, network):
        fix_all_but_new_batches(network, 3)
        assert not any(p.requires_grad for p in network.parameters())

    def test_a_copy_is_fixed_too(self, network):
        fix_all_but_new_batches(network, 2)
        again = copy.deepcopy(network)
        assert (again.n_fixed_batches, again.batches.n_fixed, again.input_norm.n_fixed) == (2, 2, 2)
        assert [n for n, p in again.named_parameters() if p.requires_grad] == ["batches.embedding.weight"]


class TestGatherStatistics:
    def test_statistics_are_means_over_minibatches(self, make_network, make_batch):
        network = grown(make_network(n_batches=3, input_norm="domain", dropout=0.0), 1)
        batches = [make_batch(seed=seed) for seed in range(3)]
        for batch in batches:
            batch.batch_labels[:] = 3
        before = state_of(network)
        gather_statistics(network, batches)
        after = network.state_dict()
        inputs = [(network.genes(b.gene_ids) + network.values(b.values)).detach() for b in batches]
        for name, expected in (
            ("running_mean", [x.mean(0) for x in inputs]),
            ("running_var", [x.var(0) for x in inputs]),
        ):
            row = after[f"input_norm.{name}"][3]
            torch.testing.assert_close(row, torch.stack(expected).mean(0), rtol=1e-5, atol=1e-5)
        assert after["input_norm.num_batches_tracked"].tolist() == [0, 0, 0, 3]
        for name in before:
            assert torch.equal(before[name][:3], after[name][:3])
        assert not network.training
        assert network.input_norm.momentum == 0.1

    def test_a_network_without_them(self, make_network, batch):
        with pytest.raises(ValueError, match="input_norm='domain'"):
            gather_statistics(make_network(), [batch])


@pytest.mark.parametrize(("add", "what"), [(add_genes, "genes"), (add_batches, "batches")])
def test_fewer_than_no_new_rows_are_refused(add, what):
    config = ScGPTConfig(
        n_tokens=10, d_model=8, n_heads=2, n_layers=1, d_feed_forward=8, n_batches=2, batch_embedding=True
    )
    weights = ScGPTNetwork(config).state_dict()
    with pytest.raises(ValueError, match=f"number of new {what} must be at least 0, not -1"):
        add(config, weights, -1)
    same, kept = add(config, weights, 0)
    assert same == config
    assert all(torch.equal(kept[name], weights[name]) for name in weights)
