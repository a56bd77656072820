from dataclasses import replace

import numpy as np
import pytest
import torch

from scgpt.data import TokenBatch
from scgpt.module import OBJECTIVES, Ecs, Gep, Levels, PerturbGep, Zero, make_objectives, reads_levels
from scgpt.nn import NetworkOutput


@pytest.fixture
def batch() -> TokenBatch:
    return TokenBatch(
        gene_ids=torch.arange(4),
        values=torch.tensor([-2.0, -1, 3, -1]),
        offsets=torch.tensor([0, 2, 4]),
        cell_index=torch.arange(2),
        targets=torch.tensor([-2.0, 5, 3, 0]),
        predict=torch.tensor([False, True, False, True]),
        batch_labels=torch.tensor([0, 1]),
        labels=torch.tensor([1, 1]),
    )


@pytest.fixture
def output() -> NetworkOutput:
    return NetworkOutput(
        tokens=torch.zeros(4, 2),
        cells=torch.tensor([[1.0, 0], [1, 1]]),
        gep=torch.tensor([9.0, 4, 9, 2]),
        gepc=torch.tensor([9.0, 8, 9, 0]),
        zero=torch.tensor([0.1, 0.8, 0.1, 0.5]),
        zero_gepc=torch.tensor([0.1, 0.4, 0.1, 0.2]),
        cls=torch.tensor([[0.0, 0.0], [0.0, 2.0]]),
        dar=torch.tensor([[1.0, 1.0], [3.0, 1.0]]),
        perturb_gep=torch.tensor([9.0, 5.5, 9, -3]),
    )


# Worked by hand from the two fixtures; the masked tokens are 1 (target 5) and 3 (target 0).
EXPECTED = {
    "gep": (1 + 4) / 2,
    "gepc": (9 + 0) / 2,
    "zero": -(torch.tensor([0.8, 0.5]).log().sum() + torch.tensor([0.4, 0.8]).log().sum()).item() / 2,
    "ecs": 1 - (2 * 0.8**2 + 2 * (2**-0.5 - 0.8) ** 2) / 4,
    "dar": (torch.tensor(2.0).log() + (1 + torch.tensor(2.0).exp()).log()).item() / 2,
    "cls": (torch.tensor(2.0).log() + (1 + torch.tensor(-2.0).exp()).log()).item() / 2,
    "perturb_gep": (0.25 + 9) / 2,
}


@pytest.mark.parametrize("name", EXPECTED)
def test_value(name, output, batch):
    (objective,) = make_objectives([name])
    assert objective(output, batch).item() == pytest.approx(EXPECTED[name], rel=1e-5)


def test_every_objective_is_tested():
    assert set(OBJECTIVES) == {*EXPECTED, "levels", "gen"}  # tested below, and in a file of its own


def test_a_choice_among_bins_is_scored_by_cross_entropy(output, batch):
    logits = torch.zeros(4, 6)
    logits[1, 5], logits[3, 2] = 1.0, 2.0  # the masked tokens: one near the truth, one far from it
    output = replace(output, gep_logits=logits)
    expected = (torch.tensor(5 + np.e).log() - 1 + torch.tensor(5 + np.e**2).log()) / 2
    assert Gep()(output, batch).item() == pytest.approx(expected.item(), rel=1e-5)


def test_what_is_missing_is_named(output, batch):
    with pytest.raises(ValueError, match="'gep' needs gep"):
        Gep()(NetworkOutput(output.tokens, output.cells), batch)


def test_perturbed_values_are_a_mean_over_the_tokens_to_predict(output, batch):
    objective = PerturbGep(weight=3)
    assert objective.mean_over(batch) == "tokens"
    assert objective.counts_at(0) and objective.part_of is None
    guess = output.perturb_gep.clone().requires_grad_()
    objective(replace(output, perturb_gep=guess), batch).backward()
    assert guess.grad.tolist() == [0, 0.5, 0, -3]
    nothing = replace(batch, predict=torch.zeros(4, dtype=torch.bool))
    assert objective(output, nothing) == 0
    with pytest.raises(ValueError, match="'perturb_gep' needs perturb_gep"):
        objective(NetworkOutput(output.tokens, output.cells), batch)
    with pytest.raises(ValueError, match="'perturb_gep' needs targets"):
        objective(output, replace(batch, targets=None))


def test_names_weights_settings_and_objects():
    assert [o.name for o in make_objectives(["gep", "gepc"])] == ["gep", "gepc"]
    assert make_objectives({"ecs": 10}) == (Ecs(weight=10),)
    assert make_objectives({"ecs": {"weight": 10, "beta": 0.6}}) == (Ecs(weight=10, beta=0.6),)
    assert make_objectives([Ecs(beta=0.5)]) == (Ecs(beta=0.5),)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["mse"], "Unknown objective 'mse'"),
        ({"gep": {"beta": 1}}, "does not take"),
        ([], "at least one"),
        (["gep", "gep"], "each once"),
    ],
)
def test_what_is_no_objective_is_refused(given, message):
    with pytest.raises(ValueError, match=message):
        make_objectives(given)


def test_where_zeros_are_left_out_the_cell_answers_for_all_measured_genes(output, batch):
    batch = replace(batch, measured=torch.tensor([3, 4, 5]), levels=torch.tensor([[1, 0, 0], [1, 1, 0]]).float())
    output = replace(output, expressed=torch.tensor([[0.5, 0.25, 0.5], [0.5, 0.5, 0.75]]))
    expected = -torch.tensor([0.5, 0.75, 0.5, 0.5, 0.5, 0.25]).log().mean()
    assert make_objectives(["zero"])[0](output, batch).item() == pytest.approx(expected.item())


def test_genes_that_were_not_measured_are_not_asked_for(output, batch):
    nan = torch.nan
    batch = replace(batch, measured=torch.tensor([3, 4, 5]), levels=torch.tensor([[1, nan, 0], [nan, nan, 1]]))
    probability = torch.tensor([[0.5, 0.9, 0.2], [0.9, 0.9, 0.25]], requires_grad=True)
    loss = Zero()(replace(output, expressed=probability), batch)
    loss.backward()
    assert loss.item() == pytest.approx(-torch.tensor([0.5**0.5 * 0.8**0.5, 0.25]).log().mean().item())
    # d/dp of -log p is -1/p, of -log(1 - p) it is 1/(1 - p).
    expected = torch.tensor([[-1 / 0.5 / 2, 0, 1 / 0.8 / 2], [0, 0, -1 / 0.25]]) / 2  # a mean over cells
    torch.testing.assert_close(probability.grad, expected)


def test_cells_that_measured_nothing_cost_nothing(output, batch):
    batch = replace(batch, measured=torch.tensor([3]), levels=torch.full((2, 1), torch.nan))
    probability = torch.full((2, 1), 0.5, requires_grad=True)
    loss = Zero()(replace(output, expressed=probability), batch)
    loss.backward()
    assert loss == 0
    assert torch.equal(probability.grad, torch.zeros(2, 1))


def test_each_modality_of_a_cell_counts_the_same(output, batch):
    levels = torch.tensor([[1, 0, 2, 0.0], [torch.nan, torch.nan, torch.nan, 0]])
    batch = replace(batch, measured=torch.arange(4), levels=levels, measured_modality_ids=torch.tensor([1, 1, 1, 3]))
    probability = torch.tensor([[0.5, 0.5, 0.5, 0.1], [0.5, 0.5, 0.5, 0.2]])
    loss = Zero()(replace(output, expressed=probability), batch)
    expected = ((np.log(2) - np.log(0.9)) / 2 - np.log(0.8)) / 2
    assert loss.item() == pytest.approx(expected, rel=1e-5)


def test_levels_are_those_of_the_genes_that_a_cell_expresses(output, batch):
    levels = torch.tensor([[4, 2, 0, torch.inf], [torch.nan, 10, 0, 0]])
    batch = replace(batch, measured=torch.arange(4), levels=levels)
    guess = torch.tensor([[3.0, 4, 9, 9], [9, 5, 9, 9]], requires_grad=True)
    loss = Levels()(replace(output, levels=guess), batch)
    loss.backward()
    assert loss.item() == pytest.approx((((1 / 4) ** 2 + (2 / 4) ** 2) / 2 + (5 / 10) ** 2) / 2)
    assert (guess.grad != 0).tolist() == [[True, True, False, False], [False, True, False, False]]


@pytest.mark.parametrize(
    ("names", "include_zeros", "expected"),
    [(["zero", "gep"], False, True), (["levels"], False, True), (["gepc"], False, False), (["zero"], True, False)],
)
def test_what_all_genes_are_is_read_where_an_objective_asks(names, include_zeros, expected):
    assert reads_levels(make_objectives(names), include_zeros=include_zeros) == expected


def test_unmeasured_genes_under_autocast(output, batch):
    batch = replace(batch, measured=torch.tensor([3, 4]), levels=torch.tensor([[1, torch.nan], [0, 1]]))
    logits = torch.tensor([[0.0, 1.0], [-3.0, 200.0]], requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        loss = Zero()(replace(output, expressed=torch.sigmoid(logits.bfloat16())), batch)
    loss.backward()
    expected = -torch.tensor([0.5, (1 - torch.sigmoid(torch.tensor(-3.0))) ** 0.5]).log().mean()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-2)
    assert logits.grad.isfinite().all()
    assert logits.grad[0, 1] == 0
