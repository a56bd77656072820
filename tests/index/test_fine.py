import numpy as np
import pytest

from scgpt.index import _fine
from scgpt.index._compressed import CompressedStore


@pytest.fixture(params=[16, 7])
def store(request, rng) -> CompressedStore:
    vectors = rng.standard_normal((300, request.param)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return CompressedStore.build(lambda: [vectors], 300, request.param, 0)


def test_fine_codes_are_sixteen_times_finer(store, rng):
    vectors = store.index.reconstruct_n(0, 300) if store.index.make_direct_map() is None else None
    steps = _fine.steps_of(store.index)
    true = vectors + rng.uniform(-0.5, 0.5, vectors.shape).astype(np.float32) * steps * 0.99
    coarse = store.index.sa_decode(store.index.sa_encode(true))
    inside = np.abs(true - coarse) <= steps / 2  # what was beyond the range that was trained is cut off
    finer = coarse + _fine.decode(_fine.encode(store.index, true), steps)
    assert inside.mean() > 0.98
    assert (np.abs(true - finer) <= steps / 32 * 1.01 + 1e-6)[inside].all()


def test_rerank_corrects_and_sorts():
    steps = np.array([1.6, 1.6], np.float32)
    codes = np.array([[0x08], [0x0F], [0x80]], np.uint8)  # first dimension + 0.05, + 0.75, - 0.75
    assert _fine.decode(codes, steps)[:, 0] == pytest.approx([0.05, 0.75, -0.75])
    rows, cosines = _fine.rerank(
        codes, steps, np.array([[1, 0]], np.float32), np.array([[2, 0, 1, -1]]), np.zeros((1, 4), np.float32), 3
    )
    assert rows.tolist() == [[1, 0, 2]]
    assert cosines[0] == pytest.approx([0.75, 0.05, -0.75])
