import pytest
import torch
from lightning.pytorch.callbacks import Callback

from scgpt.data import TokenBatch
from scgpt.model import SCGPT
from scgpt.train import PartOfStep
from scgpt.train._parts import all_gradients_or_none, counts, parts_of_step, shares

OBJECTIVES = {"gep": 1, "gepc": 0.5, "zero": 1, "cls": 2, "dar": 1}


def batch_of(n_cells: int, predicted: list[int]) -> TokenBatch:
    predict = torch.zeros(4 * n_cells, dtype=torch.bool)
    predict[predicted] = True
    return TokenBatch(
        gene_ids=torch.zeros(4 * n_cells, dtype=torch.int64),
        values=torch.zeros(4 * n_cells),
        offsets=torch.arange(n_cells + 1) * 4,
        cell_index=torch.arange(n_cells),
        predict=predict,
    )


def test_shares_are_of_cells_genes_and_predicted_tokens():
    parts = parts_of_step([batch_of(3, [1, 2, 5, 6]), batch_of(1, [1])])
    of_parts = [shares(counts(part), part.of_step) for part in parts]
    assert [share["cells"].item() for share in of_parts] == pytest.approx([0.75, 0.25])
    assert [share["tokens"].item() for share in of_parts] == pytest.approx([0.8, 0.2])
    assert [share["genes"].item() for share in of_parts] == pytest.approx([0.75, 0.25])
    nothing = parts_of_step([batch_of(1, []), batch_of(1, [])])[0]
    assert shares(counts(nothing), nothing.of_step)["tokens"] == 0


def test_a_part_is_moved_and_cut_as_any_batch():
    part = parts_of_step([batch_of(3, [1]), batch_of(1, [1])])[0].to("cpu").cells(0, 2)
    assert isinstance(part, PartOfStep)
    assert part.n_cells == 2
    assert part.of_step.tolist() == [4, 12, 2]


def test_gradients_are_added_whole_or_not_at_all():
    weight, other, unused = (torch.nn.Parameter(torch.tensor(x)) for x in (1.0, 2.0, 3.0))
    parameters = [weight, other, unused]
    weight.grad, unused.grad = torch.tensor(10.0), torch.tensor(20.0)
    with all_gradients_or_none(parameters):
        (weight * other).backward()
    assert [p.grad.item() for p in parameters] == [12, 1, 20]
    with pytest.raises(ValueError, match="halfway"), all_gradients_or_none(parameters):
        (weight * other).backward()
        raise ValueError("halfway")
    assert [p.grad.item() for p in parameters] == [12, 1, 20]


class Gradients(Callback):
    """Keeps the gradients of each step of the optimiser; without clipping they are all there is to it."""

    def __init__(self):
        self.of_steps = []

    def on_before_optimizer_step(self, trainer, module, optimizer):
        self.of_steps.append({name: p.grad.clone() for name, p in module.named_parameters() if p.grad is not None})


def gradients(adata, batch_size, accumulate, include_zeros, objectives) -> list[dict[str, torch.Tensor]]:
    SCGPT.setup_anndata(adata, batch_key="batch", labels_key="cell_type")
    model = SCGPT(
        adata,
        d_model=8,
        n_layers=1,
        n_heads=2,
        dropout=0.0,
        n_classes=3,
        adversary=True,
        zero=True,
        include_zeros=include_zeros,
        n_flags=2,
    )
    recorded = Gradients()
    model.train(
        1,
        lr=1e-12,  # so that each step starts from the same weights
        batch_size=batch_size,
        objectives=objectives,
        accumulate_grad_batches=accumulate,
        gradient_clip_val=None,
        enable_progress_bar=False,
        callbacks=[recorded],
    )
    return recorded.of_steps


@pytest.mark.parametrize(
    ("include_zeros", "objectives"),
    [
        (False, OBJECTIVES),
        (True, OBJECTIVES),
        (False, {"gen": {"warmup_steps": 0}, "cls": 2}),
        (False, {"gen": {"warmup_steps": 2, "all_unknown": True}}),
    ],
)
def test_accumulated_batches_have_the_gradient_of_one_large_batch(counts, include_zeros, objectives):
    """Of 108 cells in batches of 16, the last step has fewer cells and fewer batches."""
    whole, parts = (gradients(counts, *batches, include_zeros, objectives) for batches in ((32, 1), (16, 2)))
    assert len(whole) == len(parts) == 4
    for expected, got in zip(whole, parts, strict=True):
        assert expected.keys() == got.keys()
        for name, gradient in expected.items():
            torch.testing.assert_close(got[name], gradient, rtol=1e-4, atol=2e-6 * gradient.abs().max().item() + 1e-7)
