import numpy as np
import pytest
import torch

from scgpt.module import (
    elastic_cell_similarity,
    masked_cross_entropy,
    masked_mse,
    masked_relative_error,
    zero_nll,
)

NO_MASK = torch.zeros(3, dtype=torch.bool)


def load_arrays(path) -> dict[str, torch.Tensor]:
    with np.load(path) as arrays:
        return {name: torch.from_numpy(arrays[name]) for name in arrays}


def assert_close(a, b, atol=1e-5):
    torch.testing.assert_close(a, b, rtol=0, atol=atol)


def test_masked_losses_are_the_authors(golden):
    z = load_arrays(golden / "losses.npz")
    pred, target, mask = z["pred"], z["target"], z["mask"]
    assert_close(masked_mse(pred, target, mask), z["masked_mse"])
    assert_close(zero_nll(z["zero_prob"], target, mask), z["neg_log_bernoulli"])
    assert_close(masked_relative_error(pred, target + 1, mask), z["relative_error"])


@pytest.mark.parametrize(("case", "beta"), [("base", 0.3), pytest.param("integration", 0.8, marks=pytest.mark.real)])
def test_elastic_cell_similarity_is_the_authors(case, beta, find_golden):
    z = load_arrays(find_golden(f"{case}.npz"))
    assert_close(elastic_cell_similarity(z["cell_emb"], beta), z["loss_ecs"])


def test_masked_losses_by_hand():
    prediction, target = torch.tensor([1.0, 2.0, 9.0]), torch.tensor([2.0, 4.0, 0.0])
    mask = torch.tensor([True, True, False])
    assert_close(masked_mse(prediction, target, mask), torch.tensor((1 + 4) / 2))
    assert_close(masked_relative_error(prediction, target, mask), torch.tensor((1 / 2 + 2 / 4) / 2))
    likelihood = torch.tensor([0.5, 0.25, 0.9])
    expected = -(np.log(0.5) + np.log(0.25)) / 2
    assert_close(zero_nll(likelihood, target, mask), torch.tensor(expected, dtype=torch.float32))
    expected = -(np.log(0.5) + np.log(0.25) + np.log(0.1)) / 3  # the third is not expressed
    assert_close(zero_nll(likelihood, target, torch.ones(3)), torch.tensor(expected, dtype=torch.float32))


def test_cross_entropy_by_hand():
    logits = torch.tensor([[0.0, 0.0, 0.0], [1.0, 2.0, 0.0], [0.0, 0.0, 9.0]], requires_grad=True)
    target, mask = torch.tensor([-2.0, 1.0, 0.0]), torch.tensor([False, True, True])
    expected = (np.log(np.exp(1) + np.exp(2) + 1) - 2 + np.log(2 + np.exp(9)) - 0) / 2
    loss = masked_cross_entropy(logits, target, mask)
    assert_close(loss, torch.tensor(expected, dtype=torch.float32))
    loss.backward()
    assert torch.equal(logits.grad[0], torch.zeros(3))
    assert masked_cross_entropy(logits, target, NO_MASK) == 0


@pytest.mark.parametrize("loss", [masked_mse, masked_relative_error, zero_nll])
def test_nothing_to_predict_is_zero_and_can_be_differentiated(loss):
    prediction = torch.full((3,), 0.5, requires_grad=True)
    value = loss(prediction, torch.ones(3), NO_MASK)
    assert value == 0
    value.backward()
    assert torch.equal(prediction.grad, torch.zeros(3))


@pytest.mark.parametrize("loss", [masked_mse, masked_relative_error, zero_nll])
def test_gradients_come_from_masked_positions_alone(loss):
    prediction = torch.tensor([0.2, 0.4, 0.6], requires_grad=True)
    loss(prediction, torch.tensor([1.0, 2.0, 0.0]), torch.tensor([True, False, True])).backward()
    assert (prediction.grad != 0).tolist() == [True, False, True]


def test_certain_and_wrong_stays_finite():
    probability = torch.tensor([0.0, 1.0], requires_grad=True)
    loss = zero_nll(probability, torch.tensor([1.0, 0.0]), torch.ones(2))
    loss.backward()
    assert loss.isfinite()
    assert probability.grad.isfinite().all()


def test_elastic_cell_similarity_by_hand():
    cells = torch.tensor([[2.0, 0.0], [0.0, 5.0], [-1.0, 0.0], [3.0, 3.0]])
    half = 0.5**0.5
    cosines = np.array([[0, 0, 0, half], [0, 0, 0, half], [0, 0, 0, 0], [half, half, 0, 0]])  # diagonal and below: 0
    for beta in (0.0, 0.3, 0.9):
        expected = (1 - (cosines - beta) ** 2).mean()
        assert_close(elastic_cell_similarity(cells, beta), torch.tensor(expected, dtype=torch.float32))


def test_elastic_cell_similarity_draws_like_cells_together_and_others_apart():
    for angle, together in ((0.3, True), (1.3, False)):  # cosines of 0.96 and 0.27
        cells = torch.tensor([[1.0, 0.0], [np.cos(angle), np.sin(angle)]], dtype=torch.float32, requires_grad=True)
        elastic_cell_similarity(cells, 0.6).backward()
        with torch.no_grad():
            moved = torch.nn.functional.normalize(cells - 0.1 * cells.grad, dim=1)
        assert (moved[0] @ moved[1] > np.cos(angle)) == together
