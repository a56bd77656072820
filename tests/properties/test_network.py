"""The packed network is the padded one, cell by cell."""

import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.nn._networks import (
    ALL_HEADS,
    EVERYTHING,
    PaddedReference,
    outputs,
    per_cell,
    random_batch,
    random_network,
)

from scgpt.nn import layers_in

LENGTHS = st.lists(st.integers(1, 20), min_size=1, max_size=6).map(tuple)
SEEDS = st.integers(0, 2**32)
NETWORKS = {norm: random_network(norm=norm, **EVERYTHING) for norm in ("post", "pre")}
# How far outputs may be apart that are the same but for the order of sums in float32; they are of the size of 1.
TOLERANCE = 1e-5


def close(a: torch.Tensor, b: torch.Tensor) -> bool:
    return torch.allclose(a, b, rtol=1e-5, atol=TOLERANCE)


@given(LENGTHS, SEEDS, st.sampled_from(sorted(NETWORKS)))
@torch.no_grad()
def test_packed_equals_padded(lengths, seed, norm):
    batch, network = random_batch(lengths, seed), NETWORKS[norm]
    got, expected = outputs(network(batch, ALL_HEADS)), PaddedReference(network)(batch)
    assert [name for name in expected if not close(got[name], expected[name])] == []


@given(LENGTHS, SEEDS, st.sampled_from(sorted(NETWORKS)), st.integers(1, 60))
@torch.no_grad()
def test_parts_of_a_batch_give_what_the_whole_gives(lengths, seed, norm, max_tokens):
    batch, network = random_batch(lengths, seed), NETWORKS[norm]
    parts = [outputs(network(part, ALL_HEADS)) for part in batch.split(max_tokens)]
    whole = outputs(network(batch, ALL_HEADS))
    assert [name for name, x in whole.items() if not close(torch.cat([part[name] for part in parts]), x)] == []


@given(LENGTHS, SEEDS, st.sampled_from(sorted(NETWORKS)))
@torch.no_grad()
def test_bfloat16_is_close_to_float32(lengths, seed, norm):
    """Directions of cells within a thousandth, as embeddings are compared."""
    batch, network = random_batch(lengths, seed), NETWORKS[norm]
    whole = network(batch).cells
    with layers_in(network, torch.bfloat16):
        half = network(batch).cells.float()
    assert torch.isfinite(half).all()
    assert torch.nn.functional.cosine_similarity(whole, half).min() > 0.999


@given(LENGTHS, SEEDS)
@torch.no_grad()
def test_there_is_an_output_for_each_token_and_each_cell(lengths, seed):
    batch = random_batch(lengths, seed)
    for name, x in outputs(NETWORKS["post"](batch, ALL_HEADS)).items():
        assert len(x) == (batch.n_cells if per_cell(name) else batch.n_tokens), name
        assert torch.isfinite(x).all(), name
