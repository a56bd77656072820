import pytest
import torch
import torch.nn.functional as F

from scgpt.nn._embeddings import CategoricalValueEncoder, ContinuousValueEncoder, JointEmbedding, NormedEmbedding

D = 6


def randomised(module: torch.nn.Module) -> torch.nn.Module:
    torch.manual_seed(0)
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter)
    return module.eval()


def test_normed_embedding_is_a_layer_norm_of_the_row():
    module = randomised(NormedEmbedding(5, D))
    rows = module.embedding.weight[torch.tensor([4, 0, 4])]
    expected = F.layer_norm(rows, (D,), module.norm.weight, module.norm.bias, eps=1e-5)
    torch.testing.assert_close(module(torch.tensor([4, 0, 4])), expected, rtol=0, atol=1e-6)


def test_joint_embedding_keeps_the_lengths_of_rows_beside_each_other():
    module = randomised(JointEmbedding(5, D))
    with torch.no_grad():
        module.embedding.weight[4] *= 10
    ids = torch.tensor([4, 0, 4])
    out = module(ids)
    scale = out[0, 0] / module.embedding.weight[4, 0]
    torch.testing.assert_close(out, module.embedding.weight[ids] * scale)
    assert module(torch.arange(5)).square().mean().item() == pytest.approx(1)
    with torch.no_grad():
        module.embedding.weight *= 1e-3  # the length of all says nothing
    torch.testing.assert_close(module(ids), out)


def test_continuous_values_go_through_two_layers_and_a_norm():
    module = randomised(ContinuousValueEncoder(D, dropout=0.5, max_value=512.0))
    values = torch.tensor([-2.0, -1.0, 0.0, 0.5, 50.0])
    hidden = F.relu(values[:, None] * module.linear1.weight[:, 0] + module.linear1.bias)
    out = hidden @ module.linear2.weight.T + module.linear2.bias
    expected = F.layer_norm(out, (D,), module.norm.weight, module.norm.bias, eps=1e-5)
    torch.testing.assert_close(module(values), expected, rtol=0, atol=1e-5)


def test_continuous_values_are_encoded_once_each_where_no_gradient_is_asked():
    module = randomised(ContinuousValueEncoder(D, dropout=0.0, max_value=512.0))
    values = torch.tensor([3.0, -2.0, 3.0, 7.5, 600.0, -2.0, 3.0])
    seen = []
    module.linear2.register_forward_hook(lambda _, inputs, out: seen.append(len(out)))
    expected = module(values).detach()
    with torch.no_grad():
        torch.testing.assert_close(module(values), expected, rtol=0, atol=1e-6)
    assert seen == [7, 4]


def test_continuous_values_are_clamped_from_above_alone():
    module = randomised(ContinuousValueEncoder(D, dropout=0.0, max_value=512.0))
    at_the_limit, above, below = module(torch.tensor([512.0, 10_000.0, -700.0]))
    assert torch.equal(at_the_limit, above)
    torch.testing.assert_close(below, module(torch.tensor([-700.0]))[0])
    assert not torch.allclose(below, module(torch.tensor([-512.0]))[0])


def test_continuous_values_drop_in_training():
    module = randomised(ContinuousValueEncoder(400, dropout=0.5, max_value=512.0)).train()
    out = module(torch.tensor([3.0]))
    assert 0.4 < (out == 0).float().mean() < 0.6


def test_categorical_values_are_rows_of_an_embedding():
    module = randomised(CategoricalValueEncoder(5, D))
    rows = module.embedding.weight[torch.tensor([3, 0])]
    expected = F.layer_norm(rows, (D,), module.norm.weight, module.norm.bias, eps=1e-5)
    torch.testing.assert_close(module(torch.tensor([3.0, 0.0])), expected, rtol=0, atol=1e-6)


def test_fixed_rows_of_an_embedding_get_no_gradient():
    module = randomised(NormedEmbedding(5, D))
    ids = torch.tensor([4, 1, 1, 3, 0])
    free = module(ids)
    module.n_fixed = 3
    fixed = module(ids)
    assert torch.equal(free, fixed)
    (grad,) = torch.autograd.grad((fixed * torch.randn(5, D)).sum(), module.embedding.weight)
    assert torch.equal(grad[:3], torch.zeros(3, D))
    assert (grad[3:] != 0).all()


def test_embeddings_start_small():
    """A step of the optimiser turns a small row further; of its scale the layer norm leaves nothing."""
    torch.manual_seed(0)
    module = NormedEmbedding(500, 64)
    assert abs(module.embedding.weight.std() - 0.02) < 5e-4
    torch.testing.assert_close(module(torch.arange(500)).std(1, correction=0), torch.ones(500), rtol=0, atol=0.1)
