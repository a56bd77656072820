import pytest
import torch

from scgpt.data import TokenBatch
from scgpt.nn import ScGPTConfig, ScGPTNetwork
from scgpt.nn._rows import rows


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(max(before, 2))
    yield
    torch.set_num_threads(before)


def test_rows_are_an_index_with_its_gradient():
    table = torch.randn(5, 3, dtype=torch.float64, requires_grad=True)
    index = torch.tensor([4, 0, 0, 2, 4, 4])
    weight = torch.randn(6, 3, dtype=torch.float64)
    (expected,) = torch.autograd.grad((table[index] * weight).sum(), table)
    (gradient,) = torch.autograd.grad((rows(table, index) * weight).sum(), table)
    assert torch.equal(rows(table, index), table[index])
    torch.testing.assert_close(gradient, expected)


@pytest.mark.parametrize("input_norm", [None, "domain", "batch"])
@pytest.mark.parametrize("pooling", ["cls", "weighted"])
def test_gradients_on_several_threads_are_the_same_every_time(two_threads, input_norm, pooling):
    torch.manual_seed(0)
    config = ScGPTConfig(
        n_tokens=400, d_model=64, n_heads=4, n_layers=1, d_feed_forward=32, n_conditions=5, n_batches=3, dropout=0.0,
        batch_embedding=True, adversary=True, zero=True, input_norm=input_norm, pooling=pooling,
    )  # fmt: skip
    network = ScGPTNetwork(config)
    n_cells, length = 8, 300
    batch = TokenBatch.from_padded(
        torch.stack([torch.randperm(400)[:length] for _ in range(n_cells)]),
        torch.randint(0, 10, (n_cells, length)).float(),
        torch.zeros(n_cells, length, dtype=torch.bool),
        condition_ids=torch.randint(0, 5, (n_cells, length, 2)),
        batch_labels=torch.arange(n_cells) % 3,
    )

    def gradients() -> bytes:
        network.zero_grad()
        out = network(batch, heads=("gep", "gepc", "zero", "dar"))
        loss = out.gep.square().mean() + out.gepc.square().mean() + out.zero_gepc.mean() + out.dar.square().mean()
        loss.backward()
        return b"".join(p.grad.numpy().tobytes() for p in network.parameters() if p.grad is not None)

    assert len({gradients() for _ in range(15)}) == 1
