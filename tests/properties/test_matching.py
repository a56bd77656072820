"""Genes are matched by their names, wherever they stand, and new ones change nothing of the old."""

import warnings

import numpy as np
import pandas as pd
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from tests.nn._networks import N_TOKENS, random_batch, random_network

from scgpt.data import GeneVocab, match_genes
from scgpt.nn import add_genes

NAMES = st.text(st.characters(codec="utf-8", exclude_characters="<>"), min_size=1, max_size=8)
GENES = st.lists(NAMES, unique=True, min_size=1, max_size=20)
ENSEMBL = st.integers(0, 30).map("ENSG{:011}".format)


def match(names, vocab, **kwargs):
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*carried by several variables")
        return match_genes(pd.DataFrame(index=pd.Index(names, dtype=object)), vocab, **kwargs)


@given(GENES, GENES, st.randoms(use_true_random=False))
def test_a_gene_has_its_id_wherever_it_stands(genes, others, random):
    vocab = GeneVocab.from_genes(genes)
    names = [*genes, *others]
    random.shuffle(names)
    found = match(names, vocab)
    assert found.token_ids.tolist() == [vocab.get(name, -1) for name in names]
    assert sorted(found.matched + found.unmatched) == sorted(names)
    assert found.n_genes == len(set(names) & set(genes))
    assert set(found.duplicated) == {name for name in genes if names.count(name) > 1}


@given(GENES, st.randoms(use_true_random=False), st.data())
def test_a_match_within_some_genes_knows_these_alone(genes, random, data):
    vocab = GeneVocab.from_genes(genes)
    found = match(random.sample(genes, len(genes)), vocab)
    kept = data.draw(st.sets(st.sampled_from(found.token_ids.tolist())))
    within = found.within(np.array(sorted(kept), dtype=np.int64))
    assert within.token_ids.tolist() == [i if i in kept else -1 for i in found.token_ids]
    assert set(within.matched) == {vocab.tokens[i] for i in kept}
    assert sorted(within.matched + within.unmatched) == sorted(found.matched)


@given(st.lists(ENSEMBL, unique=True, min_size=1), st.lists(st.integers(0, 30), min_size=31, max_size=31))
def test_versions_of_ensembl_ids_do_not_count(genes, versions):
    vocab = GeneVocab.from_genes(genes)
    versioned = [f"{gene}.{version}" for gene, version in zip(genes, versions[: len(genes)], strict=True)]
    plain = match(genes, vocab).token_ids
    assert np.array_equal(match(versioned, vocab).token_ids, plain)
    symbols = {gene: f"S{i}" for i, gene in enumerate(genes)}
    to_symbols = GeneVocab.from_genes(symbols.values())
    for table in (symbols, dict(zip(versioned, symbols.values(), strict=True))):
        for names in (genes, versioned):
            assert np.array_equal(match(names, to_symbols, gene_mapping=table).token_ids, plain)


@given(GENES, st.integers(0, 2))
def test_the_column_with_most_genes_is_taken(genes, n_known):
    assume(len(genes) > n_known)
    vocab = GeneVocab.from_genes(genes)
    var = pd.DataFrame({"gene_symbols": genes}, index=[*genes[:n_known], *(f"\n{i}" for i in genes[n_known:])])
    assume(not set(var.index[n_known:]) & set(genes))
    assert match_genes(var, vocab).key == "gene_symbols"
    assert match_genes(var, vocab).token_ids.tolist() == vocab.ids(genes).tolist()


@given(GENES)
def test_a_vocabulary_is_what_was_written(tmp_path_factory, genes):
    vocab = GeneVocab.from_genes(genes)
    path = tmp_path_factory.mktemp("vocab") / "vocab.json"
    vocab.save(path)
    assert GeneVocab.load(path) == vocab
    assert GeneVocab.load(path).ids(genes).tolist() == list(range(len(genes)))


@given(st.integers(1, 10), st.integers(0, 100), st.sampled_from(["layer", "joint"]), st.integers(0, 2**32))
@torch.no_grad()
def test_room_for_new_genes_moves_no_cell_of_old_ones(n_new, seed, gene_norm, of_cells):
    network = random_network(gene_norm=gene_norm)
    config, state = add_genes(network.config, network.state_dict(), n_new, seed=seed)
    larger = type(network)(config).eval()
    larger.load_state_dict(state)
    batch = random_batch(seed=of_cells)
    rows = larger.genes(torch.arange(N_TOKENS + n_new))
    assert len(rows) == N_TOKENS + n_new
    assert torch.isfinite(rows).all()
    tolerance = 0.0 if gene_norm == "layer" else 1e-5
    assert torch.allclose(larger(batch).cells, network(batch).cells, rtol=tolerance, atol=tolerance)
