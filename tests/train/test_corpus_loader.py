from dataclasses import fields

import anndata
import numpy as np
import pytest
import scipy.sparse as sp
import torch

from scgpt.corpus import Corpus, build
from scgpt.data import Cells, GeneVocab, Tokenizer, match_genes
from scgpt.train import CorpusLoader

GENES = [f"G{i}" for i in range(60)]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Corpus:
    """500 cells of two files, of which the second lacks some genes, and 50 held out."""
    folder = tmp_path_factory.mktemp("corpus")
    rng = np.random.default_rng(0)
    paths = []
    for name, n_cells, genes in (("a", 300, GENES), ("b", 200, GENES[20:]), ("v", 50, GENES[:50])):
        adata = anndata.AnnData(sp.csr_matrix(rng.poisson(rng.gamma(0.6, 2, (n_cells, len(genes)))).astype(np.float32)))
        adata.obs_names, adata.var_names = [f"{name}{i}" for i in range(n_cells)], genes
        paths.append(folder / f"{name}.h5ad")
        adata.write_h5ad(paths[-1])
    return build(paths[:2], folder / "c.zarr", held_out=paths[2:], min_genes=1, cells_per_dataset=130)


@pytest.fixture
def tokenizer(corpus) -> Tokenizer:
    return Tokenizer(corpus.vocab, ties="spread")


def loader(corpus, tokenizer, batch_size=32, **kwargs) -> CorpusLoader:
    return CorpusLoader(corpus, tokenizer, batch_size, **{"mask_share": 0.4, "batches_per_read": 4} | kwargs)


def same(a, b) -> bool:
    pairs = [(getattr(a, f.name), getattr(b, f.name)) for f in fields(a)]
    return all((x is None) == (y is None) and (x is None or torch.equal(x, y)) for x, y in pairs)


def all_same(a, b) -> bool:
    return all(same(x, y) for x, y in zip(a, b, strict=True))


def in_memory(corpus: Corpus) -> anndata.AnnData:
    rows = sp.vstack([m[:] for part in ("train", "held_out") for m in corpus.matrices(part)]).tocsr()
    adata = anndata.AnnData(rows.astype(np.float32), obs=corpus.obs())
    adata.var_names = list(corpus.vocab.genes)
    return adata


def test_tokens_are_those_of_the_same_cells_in_memory(corpus, tokenizer):
    cells = Cells(in_memory(corpus), match_genes(in_memory(corpus).var, corpus.vocab).token_ids)
    for held_out in (False, True):
        one = loader(corpus, tokenizer, mask_share=0.0, held_out=held_out)
        for batch in one:
            expected = one.hide(cells.tokenize(batch.cell_index.numpy(), tokenizer, key=one.tie_key()), 0)
            assert same(batch, expected)


def test_batches_are_a_function_of_seed_epoch_and_step(corpus, tokenizer):
    first, second = loader(corpus, tokenizer), loader(corpus, tokenizer)
    second.sampler.set_epoch(1)
    list(second)
    second.sampler.set_epoch(0)
    assert all_same(first, second)
    second.sampler.set_epoch(1)
    assert not any(same(a, b) for a, b in zip(first, second, strict=True))
    assert not any(same(a, b) for a, b in zip(first, loader(corpus, tokenizer, seed=1), strict=True))


def test_masks_and_ties_of_a_cell_do_not_depend_on_its_batch(corpus, tokenizer):
    by_cell = {}
    for batch_size in (32, 25):
        for batch in loader(corpus, tokenizer, batch_size):
            for i, cell in enumerate(batch.cell_index.tolist()):
                one = batch.cells(i, i + 1)
                assert same(one, by_cell.setdefault(cell, one))
    assert len(by_cell) == 500


@pytest.mark.parametrize("prefetch", [0, 1, 3])
@pytest.mark.parametrize("consumed", [0, 1, 5, 15])
def test_a_loader_goes_on_with_the_very_next_batch(corpus, tokenizer, consumed, prefetch):
    whole = loader(corpus, tokenizer)
    whole.sampler.set_epoch(2)
    expected = list(whole)

    interrupted = loader(corpus, tokenizer, prefetch=prefetch)
    interrupted.sampler.set_epoch(2)
    running = iter(interrupted)
    for _ in range(consumed):
        next(running)
    state = interrupted.state_dict()
    assert state == {"epoch": 2, "consumed": consumed}
    running.close()

    resumed = loader(corpus, tokenizer, prefetch=prefetch)
    iterator = iter(resumed)  # Lightning makes the iterator first and loads the state then
    resumed.load_state_dict(state)
    resumed.sampler.set_epoch(2)
    assert all_same(iterator, expected[consumed:])
    assert len(list(resumed)) == len(expected)  # the next epoch is whole again


@pytest.mark.parametrize("held_out", [False, True])
def test_processes_take_slices_of_the_same_batches(corpus, tokenizer, held_out):
    whole = loader(corpus, tokenizer, 16, held_out=held_out, drop_share=0.25)
    parts = [loader(corpus, tokenizer, 16, held_out=held_out, drop_share=0.25, rank=r, world_size=2) for r in range(2)]
    for batch, *own in zip(whole, *parts, strict=True):
        assert same(batch.cells(0, own[0].n_cells), own[0])
        assert same(batch.cells(own[0].n_cells, batch.n_cells), own[1])


def test_held_out_cells_come_in_the_same_order_with_the_same_masks_in_every_epoch(corpus, tokenizer):
    one = loader(corpus, tokenizer, held_out=True)
    first = list(one)
    one.sampler.set_epoch(5)
    assert all_same(first, one)
    assert torch.cat([b.cell_index for b in first]).tolist() == list(range(500, 550))


def test_several_batches_make_one_step(corpus, tokenizer):
    whole, parts = loader(corpus, tokenizer), loader(corpus, tokenizer, accumulate=4)
    for step, (a, b) in enumerate(zip(whole, parts, strict=True)):
        assert torch.equal(a.gene_ids, b.gene_ids)
        assert b.of_step[0] == (128 if step < 12 else 96)
    resumed = loader(corpus, tokenizer, accumulate=4)
    resumed.load_state_dict({"epoch": 0, "consumed": 6})
    assert all_same(resumed, list(parts)[6:])


def test_genes_that_a_file_did_not_measure_are_absent(corpus, tokenizer):
    lacking = set(corpus.vocab.ids(GENES[:20]).tolist())
    files = corpus.file_of_cell()
    zeros = Tokenizer(corpus.vocab, include_zeros=True)
    for batch in loader(corpus, zeros, mask_share=0.0, levels=True):
        for i, (part, cell) in enumerate(zip(batch.split(1), batch.cell_index.tolist(), strict=True)):
            of_b = corpus.files[files[cell]] == "b.h5ad"
            assert lacking.isdisjoint(part.gene_ids.tolist()) == of_b
            assert part.n_tokens == 1 + (40 if of_b else 60)
            unknown = batch.levels[i].isnan()
            assert set(batch.measured[unknown].tolist()) == (lacking if of_b else set())
            told = batch.measured[batch.levels[i] > 0].tolist()
            assert sorted(told) == sorted(part.gene_ids[1:][part.targets[1:] > 0].tolist())


def test_another_vocabulary_may_know_fewer_genes_and_more(corpus):
    vocab = GeneVocab.from_genes(["other", *GENES[::-3]])
    known = set(vocab.ids(GENES[::-3]).tolist())
    for batch in loader(corpus, Tokenizer(vocab), mask_share=0.0):
        assert set(batch.gene_ids.tolist()) <= known | {vocab.cls_id}
    with pytest.raises(ValueError, match=r"No gene of the corpus .* is in the model's vocabulary.*'Cd3d'"):
        loader(corpus, Tokenizer(GeneVocab.from_genes(["Cd3d"])))


def test_a_batch_that_cannot_be_divided_is_refused(corpus, tokenizer):
    with pytest.raises(ValueError, match="cannot be divided among 3 processes"):
        loader(corpus, tokenizer, 32, world_size=3)
