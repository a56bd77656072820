import numpy as np
import pytest
import torch
import torch.nn.functional as F

from scgpt.nn._heads import (
    Adversary,
    AffineExpressionHead,
    BinnedExpressionHead,
    CellPromptedHead,
    Classifier,
    ExpressionHead,
)

T, D = 9, 6


@pytest.fixture
def x() -> torch.Tensor:
    return torch.randn(T, D, generator=torch.Generator().manual_seed(0))


def randomised(module: torch.nn.Module) -> torch.nn.Module:
    torch.manual_seed(1)
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter)
    return module


def mlp(x, layers):
    """Linear layers with leaky ReLU (slope 0.01) between them."""
    linear = [layer for layer in layers if isinstance(layer, torch.nn.Linear)]
    for i, layer in enumerate(linear):
        x = F.linear(F.leaky_relu(x, 0.01) if i else x, layer.weight, layer.bias)
    return x.squeeze(-1)


def test_expression_is_an_mlp_of_three_layers(x):
    head = randomised(ExpressionHead(D, 4, zero=True))
    assert [tuple(m.weight.shape) for m in head.value if hasattr(m, "weight")] == [(4, D), (4, 4), (1, 4)]
    torch.testing.assert_close(head(x), mlp(x, head.value))
    torch.testing.assert_close(head.probability(x), torch.sigmoid(mlp(x, head.expressed)))


def test_affine_expression_is_coefficient_times_value_plus_bias(x):
    head = randomised(AffineExpressionHead(D, 4, zero=True))
    values = torch.linspace(0, 5, T)
    expected = mlp(x, head.coefficient.value) * values + mlp(x, head.bias.value)
    torch.testing.assert_close(head(x, values), expected)
    torch.testing.assert_close(head.probability(x), torch.sigmoid(mlp(x, head.coefficient.expressed)))


def test_cell_prompted_expression_is_a_product_of_query_and_cell(x):
    head = randomised(CellPromptedHead(D, 4, zero=True))
    cells = torch.randn(T, 4, generator=torch.Generator().manual_seed(2))
    query = torch.sigmoid(x @ head.query.weight.T + head.query.bias)
    value = torch.stack([(head.value.weight @ query[i]) @ cells[i] for i in range(T)])
    logit = torch.stack([(head.expressed.weight @ query[i] + head.expressed.bias) @ cells[i] for i in range(T)])
    torch.testing.assert_close(head(x, cells), value)
    torch.testing.assert_close(head.probability(x, cells), torch.sigmoid(logit))


def test_probabilities_are_those_of_every_pair_of_cell_and_gene(x):
    head = randomised(CellPromptedHead(D, 4, zero=True))
    cells = torch.randn(3, 4, generator=torch.Generator().manual_seed(2))
    pairs = head.probability(x.repeat(3, 1), cells.repeat_interleave(T, dim=0)).view(3, T)
    torch.testing.assert_close(head.probabilities(x, cells, torch.full((3, 1), 0.5)), pairs)
    # In a cell that expresses more genes all of them are likelier, in odds by one factor.
    odds = lambda p: p / (1 - p)
    share = torch.tensor([[0.25], [0.5], [0.9]])
    torch.testing.assert_close(odds(head.probabilities(x, cells, share)), odds(pairs) * odds(share))


def test_a_choice_among_bins_gives_the_bin_to_expect():
    logits = torch.tensor([[0.0, 0.0, 0.0], [np.log(2.0), 0.0, -torch.inf]])
    torch.testing.assert_close(BinnedExpressionHead.expected(logits), torch.tensor([1.0, 1 / 3]))
    # In mixed precision too, where 50 and 50.1 are one number.
    logits = torch.full((1, 51), -torch.inf)
    logits[0, 50], logits[0, 49] = np.log(0.9), np.log(0.1)
    with torch.autocast("cpu", torch.bfloat16):
        assert BinnedExpressionHead.expected(logits).item() == pytest.approx(49.9, abs=1e-5)


def test_only_the_zero_matrix_of_the_cell_prompted_head_has_a_bias():
    head = CellPromptedHead(D, D, zero=True)
    assert head.value.bias is None
    assert head.expressed.bias is not None


@pytest.mark.parametrize("n_layers", [1, 3])
def test_classifier_repeats_linear_activation_norm(x, n_layers):
    head = randomised(Classifier(D, 4, n_layers, torch.nn.ReLU))
    modules = list(head)
    assert len(modules) == 3 * (n_layers - 1) + 1
    expected = x
    for i in range(n_layers - 1):
        linear, _, norm = modules[3 * i : 3 * i + 3]
        expected = F.layer_norm(F.relu(linear(expected)), (D,), norm.weight, norm.bias)
    torch.testing.assert_close(head(x), modules[-1](expected))


def test_adversary_reverses_the_encoders_gradient_and_not_its_own(x):
    adversary = randomised(Adversary(D, 3, n_layers=2))
    labels = torch.arange(T) % 3
    x.requires_grad_()

    def gradients(head):
        loss = F.cross_entropy(head(x), labels)
        return torch.autograd.grad(loss, [x, *adversary.parameters()])

    reversed_, own = gradients(adversary), gradients(adversary.classifier)
    assert own[0].abs().sum() > 0.1
    assert torch.equal(reversed_[0], -own[0])
    assert all(torch.equal(a, b) for a, b in zip(reversed_[1:], own[1:], strict=True))


def test_adversary_uses_leaky_relu_and_leaves_the_forward_pass_alone(x):
    adversary = randomised(Adversary(D, 3, n_layers=2))
    first, _, norm, last = adversary.classifier
    hidden = F.layer_norm(F.leaky_relu(first(x), 0.01), (D,), norm.weight, norm.bias)
    torch.testing.assert_close(adversary(x), last(hidden))
