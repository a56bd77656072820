from dataclasses import fields, replace

import numpy as np
import pytest
import torch

from scgpt.data import Cells, GeneVocab, Marks, Pairing, PerturbedCells, Tokenizer, match_genes
from scgpt.train import CellOrder, PairDataModule, PairLoader, split_cells

NAMES = ["control", "A", "B", "C", "A+B"]


@pytest.fixture
def tokenizer(perturbed) -> Tokenizer:
    return Tokenizer(GeneVocab.from_genes(perturbed.var_names), n_bins=None, include_zeros=True, max_length=9)


@pytest.fixture
def cells(perturbed, tokenizer) -> PerturbedCells:
    tokens = [tokenizer.vocab.ids(name.split("+") if name != "control" else []) for name in NAMES]
    return PerturbedCells(
        Cells(perturbed, match_genes(perturbed.var, tokenizer.vocab).token_ids),
        cls_id=tokenizer.vocab.cls_id,
        cls_value=tokenizer.cls_value,
        marks=[Marks(own, np.ones((len(own), 1), np.int64)) for own in tokens],
        perturbation_of=perturbed.obs["perturbation"].map(NAMES.index).to_numpy(dtype=np.int64),
        pairing=Pairing((perturbed.obs["perturbation"] == "control").to_numpy(), np.zeros(perturbed.n_obs, np.int64)),
    )


def loader(cells, tokenizer, *, seed=0, batch_size=16, shuffle=True, accumulate=1) -> PairLoader:
    order = CellOrder(np.arange(len(cells)), batch_size, shuffle=shuffle, seed=seed)
    return PairLoader(cells, tokenizer, order, accumulate=accumulate)


def same(a, b) -> bool:
    pairs = [(getattr(a, f.name), getattr(b, f.name)) for f in fields(a)]
    return all((x is None) == (y is None) and (x is None or torch.equal(x, y)) for x, y in pairs)


def test_an_epoch_has_every_cell_once_with_the_genes_of_a_step(cells, tokenizer, perturbed):
    batches = list(loader(cells, tokenizer))
    assert [batch.n_cells for batch in batches] == [16] * 6 + [14]
    assert sorted(torch.cat([batch.cell_index for batch in batches]).tolist()) == list(range(110))
    names = perturbed.obs["perturbation"].astype(str).to_numpy()
    for batch in batches:
        assert batch.lengths.tolist() == [9] * batch.n_cells  # max_length, <cls> included
        for cell in batch.split(1):
            marked = [tokenizer.vocab.tokens[i] for i in cell.gene_ids[cell.condition_ids[:, 0] == 1]]
            assert marked == [] if names[cell.cell_index] == "control" else names[cell.cell_index].split("+")


def test_batches_are_a_function_of_seed_epoch_and_step(cells, tokenizer):
    first, second = loader(cells, tokenizer), loader(cells, tokenizer)
    second.order.set_epoch(1)
    list(second)
    second.order.set_epoch(0)
    assert all(same(a, b) for a, b in zip(first, second, strict=True))
    second.order.set_epoch(1)
    assert not any(same(a, b) for a, b in zip(first, second, strict=True))
    assert not any(same(a, b) for a, b in zip(first, loader(cells, tokenizer, seed=1), strict=True))


def test_each_step_has_other_genes_and_each_epoch_other_control_cells(cells, tokenizer):
    tokenizer = replace(tokenizer, max_length=100)
    epochs = {}
    for epoch in range(2):
        whole = loader(cells, tokenizer)
        whole.order.set_epoch(epoch)
        # Of the same cell, in whatever batch it is.
        epochs[epoch] = {int(cell.cell_index): cell for batch in whole for cell in batch.split(1)}
    pairs = [(epochs[0][i], epochs[1][i]) for i in range(110)]
    assert all(torch.equal(a.targets, b.targets) for a, b in pairs)
    assert np.mean([torch.equal(a.values, b.values) for a, b in pairs]) < 0.15  # 1 of 30 control cells by chance
    sampled = [tuple(batch.gene_ids[:9].tolist()) for batch in loader(cells, replace(tokenizer, max_length=9))]
    assert len(set(sampled)) == 7


def test_the_control_cell_does_not_depend_on_the_batch_size(cells, tokenizer):
    tokenizer = replace(tokenizer, max_length=100)
    by_cell = {}
    for batch_size in (16, 7):
        for batch in loader(cells, tokenizer, batch_size=batch_size):
            for cell in batch.split(1):
                width = {"condition_ids": cell.condition_ids[:, :1]}
                assert same(replace(cell, **width), by_cell.setdefault(int(cell.cell_index), replace(cell, **width)))
    assert len(by_cell) == 110


def test_validation_pairs_are_the_same_in_every_epoch(cells, tokenizer):
    validation = loader(cells, tokenizer, shuffle=False)
    first = list(validation)
    validation.order.set_epoch(5)
    assert all(same(a, b) for a, b in zip(first, validation, strict=True))


@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("consumed", [0, 1, 4])
def test_a_loader_goes_on_with_the_very_next_batch(cells, tokenizer, consumed, accumulate):
    whole = loader(cells, tokenizer, accumulate=accumulate)
    whole.order.set_epoch(2)
    expected = list(whole)

    interrupted = loader(cells, tokenizer, accumulate=accumulate)
    interrupted.order.set_epoch(2)
    running = iter(interrupted)
    for _ in range(consumed):
        next(running)
    state = interrupted.state_dict()
    assert state == {"epoch": 2, "consumed": consumed}

    resumed = loader(cells, tokenizer, accumulate=accumulate)
    iterator = iter(resumed)  # Lightning makes the iterator first and loads the state then
    resumed.load_state_dict(state)
    resumed.order.set_epoch(2)
    rest = list(iterator)
    assert len(rest) == len(expected) - consumed
    assert all(same(a, b) for a, b in zip(rest, expected[consumed:], strict=True))


def test_the_data_module_splits_perturbed_cells(cells, tokenizer):
    split = split_cells(np.arange(110), 0.8, None, 0)
    data = PairDataModule(cells, tokenizer, split, batch_size=8, mask_share=0.0, seed=3, accumulate=2)
    training, validation = data.train_dataloader(), data.val_dataloader()
    assert isinstance(training, PairLoader) and isinstance(validation, PairLoader)
    assert (training.accumulate, validation.accumulate) == (2, 1)
    assert (training.order.shuffle, validation.order.shuffle) == (True, False)
    assert (training.order.seed, validation.order.seed) == (3, 3)
    assert torch.cat([batch.cell_index for batch in validation]).tolist() == split.validation.tolist()
    assert sorted(torch.cat([batch.cell_index for batch in training]).tolist()) == split.train.tolist()
    everything = split_cells(np.arange(110), 1.0, None, 0)
    assert PairDataModule(cells, tokenizer, everything, batch_size=8, mask_share=0.0, seed=0).val_dataloader() == []
