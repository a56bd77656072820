"""The usual path gives what ours gives: only then are the two compared in speed."""

import numpy as np
import pytest
import scipy.sparse as sp
import torch

from scgpt.data import GeneVocab, Tokenizer, mark_unknown, mask_values
from scgpt.module import ScGPTModule, make_objectives
from scgpt.nn import ScGPTConfig


@pytest.fixture
def module() -> ScGPTModule:
    torch.manual_seed(0)
    config = ScGPTConfig(n_tokens=83, d_model=16, n_heads=2, n_layers=2, d_feed_forward=16, n_flags=2, dropout=0.0)
    module = ScGPTModule(config)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    return module.eval()


@pytest.fixture
def counts(rng) -> sp.csr_matrix:
    return sp.csr_matrix(rng.poisson(0.7, (9, 80)).astype(np.float32))


@pytest.fixture
def tokenizer() -> Tokenizer:
    return Tokenizer(GeneVocab(["<pad>", "<cls>", "<eoc>", *(f"G{i}" for i in range(80))]))


def test_cells_are_embedded_alike(script, module, counts, tokenizer):
    usual, ids = script("_usual"), np.arange(3, 83)
    cells = usual.UsualCells(counts, ids, (tokenizer.vocab.cls_id, tokenizer.cls_value))
    batch = tokenizer(counts, ids)
    for i, (genes, values) in enumerate(cells):
        own = batch.cells(i, i + 1)
        assert torch.equal(own.gene_ids, genes)
        assert (own.values - values).abs().max() <= 1  # numpy's quantiles round where ours count in whole numbers
    genes, values, padding = usual.padded(list(cells))
    grid = batch.to_padded()
    assert torch.equal(grid["gene_ids"], genes) and torch.equal(grid["padding"], padding)
    network = usual.UsualNetwork(module.network).eval()
    theirs = network(genes, grid["values"], padding)[:, 0]
    torch.testing.assert_close(module.embed(batch), theirs, rtol=0, atol=1e-5)
    assert torch.cosine_similarity(network(genes, values, padding)[:, 0], theirs).min() > 0.999


@pytest.mark.parametrize("kind", ["fine-tuning", "pretraining"])
def test_steps_have_the_same_loss(script, module, counts, tokenizer, kind):
    train = script("train")
    module.objectives = make_objectives(train.OBJECTIVES[kind])
    batch = tokenizer(counts, np.arange(3, 83))
    batch = mask_values(batch, 0.4) if kind == "fine-tuning" else mark_unknown(batch, 0.5)
    ours = train.ours(module, batch)()
    theirs = train.usual(script("_usual").UsualNetwork(module.network).eval(), batch)()
    assert ours.item() == pytest.approx(theirs.item(), rel=1e-5)


def test_arithmetic_is_that_of_two_for_each_weight_and_token(script):
    config = ScGPTConfig(n_tokens=10, d_model=8, n_heads=2, n_layers=3, d_feed_forward=16)
    weights = 4 * 8 * 8 + 2 * 8 * 16
    expected = 3 * (2 * weights * (5 + 7) + 4 * 8 * (25 + 49))
    assert script("embed").flops(np.array([5.0, 7.0]), config) == expected
