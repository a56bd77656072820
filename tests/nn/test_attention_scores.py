import numpy as np
import pytest
import torch
from scipy.stats import rankdata

from scgpt.data import TokenBatch
from scgpt.hub import read_official
from scgpt.nn import ScGPTNetwork, rank_normalised


def naive(x_LD: np.ndarray, attention) -> np.ndarray:
    """Softmax of scaled products of queries and keys, head by head, in float64."""
    qkv = x_LD @ attention.qkv.weight.detach().double().numpy().T + attention.qkv.bias.detach().double().numpy()
    q, k, _ = np.split(qkv, 3, axis=1)
    width = q.shape[1] // attention.n_heads
    out = []
    for head in range(attention.n_heads):
        own = slice(head * width, (head + 1) * width)
        scores = np.exp(q[:, own] @ k[:, own].T / np.sqrt(width))
        out.append(scores / scores.sum(1, keepdims=True))
    return np.stack(out)


def inputs_of_attention(network, batch, layer):
    seen = []
    hook = network.layers[layer].attention.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    network(batch)
    hook.remove()
    return seen[0].double().numpy()


@pytest.mark.parametrize("layer", [0, 1, -1])
@torch.inference_mode()
def test_equals_a_naive_softmax_on_the_golden_checkpoint(golden, layer):
    checkpoint = read_official(golden / "checkpoint")
    network = ScGPTNetwork(checkpoint.config).eval()
    network.load_state_dict(checkpoint.state_dict)
    with np.load(golden / "base.npz") as arrays:
        batch = TokenBatch.from_padded(*(torch.from_numpy(arrays[name]) for name in ("src", "values", "pad")))
    x_TD = inputs_of_attention(network, batch, layer)
    scores = list(network.attention_scores(batch, layer))
    assert len(scores) == batch.n_cells
    for own, x_LD in zip(scores, np.split(x_TD, batch.boundaries[1:-1]), strict=True):
        np.testing.assert_allclose(own.numpy(), naive(x_LD, network.layers[layer].attention), atol=1e-6)


@pytest.mark.parametrize("norm", ["post", "pre", "pre_stream"])
@torch.inference_mode()
def test_in_any_order_of_norms_and_for_cells_of_any_length(norm, make_network, make_batch):
    network, batch = make_network(norm=norm, n_layers=2), make_batch()
    x_TD = inputs_of_attention(network, batch, 1)
    scores = list(network.attention_scores(batch, 1))
    assert [tuple(own.shape) for own in scores] == [(2, n, n) for n in (7, 1, 12, 3)]
    for own, x_LD in zip(scores, np.split(x_TD, batch.boundaries[1:-1]), strict=True):
        np.testing.assert_allclose(own.numpy(), naive(x_LD, network.layers[1].attention), atol=1e-5)
        assert torch.allclose(own.sum(-1), torch.ones(()))


def test_a_layer_that_is_not_there_and_unknown_tokens(make_network, make_batch):
    network, batch = make_network(n_flags=2), make_batch()
    with pytest.raises(IndexError, match=r"no layer 2; this network has 2, from 0 to 1"):
        network.attention_scores(batch, 2)
    unknown = torch.zeros(batch.n_tokens, dtype=torch.bool)
    unknown[1] = True
    batch = TokenBatch(batch.gene_ids, batch.values, batch.offsets, batch.cell_index, unknown=unknown)
    with pytest.raises(ValueError, match="this batch has unknown ones"):
        network.attention_scores(batch)


@pytest.mark.parametrize("n", [1, 2, 7, 40])
def test_ranks_are_those_of_columns_of_ranks_within_rows(n):
    scores = torch.rand(n, n, generator=torch.Generator().manual_seed(n)).softmax(1)
    within_rows = np.stack([rankdata(row, "ordinal") for row in scores.numpy()])
    within_columns = np.stack([rankdata(column, "average") for column in within_rows.T], axis=1)
    ranks = rank_normalised(scores)
    assert ranks.dtype == torch.float32
    np.testing.assert_allclose(ranks.numpy(), (within_columns - 0.5) / n, atol=1e-6)
    np.testing.assert_allclose(ranks.mean(0).numpy(), 0.5, atol=1e-6)


def test_ranks_do_not_see_the_scale_of_rows():
    scores = torch.rand(9, 9, generator=torch.Generator().manual_seed(0))
    assert torch.equal(rank_normalised(scores), rank_normalised(scores * torch.arange(1, 10)[:, None]))


def test_equal_scores_are_ranked_in_the_order_of_columns():
    # Within rows 0, 1, 2; so within each column all rows are equal.
    assert torch.equal(rank_normalised(torch.ones(3, 3)), torch.full((3, 3), 0.5))


def test_scores_that_are_not_square_are_refused():
    with pytest.raises(ValueError, match=r"by the same genes, not of shape \(2, 3\)"):
        rank_normalised(torch.zeros(2, 3))
