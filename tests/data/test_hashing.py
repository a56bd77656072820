import numpy as np
import pytest

from scgpt.data import derive_key
from scgpt.data._hashing import hash_ids, uniform_of
from scgpt.data._kernels import mix, uniform


def splitmix64(x: int) -> int:
    """The published function, in Python's whole numbers."""
    x = (x + 0x9E3779B97F4A7C15) % 2**64
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
    x = (x ^ (x >> 27)) * 0x94D049BB133111EB % 2**64
    return x ^ (x >> 31)


def test_values_are_pinned():
    # Which genes a cell keeps, and which values a run hides, must be the same in every version and on every machine.
    assert hash_ids(np.arange(3)).tolist() == [16294208416658607535, 10451216379200822465, 10905525725756348110]
    uniforms = uniform_of(7, np.array([0, 0, 1]), np.array([0, 1, 0]))
    assert uniforms.tolist() == [0.3063475359743172, 0.14526806217253652, 0.9674291405572664]
    assert derive_key(0, "ties") == 4422005155230521813
    assert derive_key(1, "ties") == 12881668404754051711
    assert derive_key(0, "mask", 3, 4) == 16005450257690554841


def test_hash_is_splitmix64():
    ids = [0, 1, 60_696, 2**40]
    assert hash_ids(np.array(ids)).tolist() == [splitmix64(i) for i in ids]
    assert int(mix(12345)) == splitmix64(12345)


def test_uniform_is_the_upper_bits_of_three_hashes():
    key, cell, gene = 2**63 + 5, 11, 4242
    bits = splitmix64(splitmix64(key ^ splitmix64(cell)) ^ gene)
    assert uniform(np.uint64(key), cell, gene) == (bits >> 11) / 2**53
    assert uniform_of(key, np.array([cell]), np.array([gene])).tolist() == [(bits >> 11) / 2**53]


def test_uniform_is_uniform_and_independent_of_neighbours():
    cells, genes = (x.ravel() for x in np.meshgrid(np.arange(300), np.arange(300)))
    x = uniform_of(derive_key(0, "test"), cells, genes)
    assert ((x >= 0) & (x < 1)).all()
    counts = np.histogram(x, bins=20, range=(0, 1))[0]
    assert ((counts - 4500) ** 2 / 4500).sum() < 50  # chi-square with 19 degrees of freedom: p > 1e-4
    table = x.reshape(300, 300)
    for axis in (0, 1):
        shifted = np.roll(table, 1, axis=axis)
        assert abs(np.corrcoef(table.ravel(), shifted.ravel())[0, 1]) < 0.02


@pytest.mark.parametrize("other", [(1, "mask", 2), (0, "ties", 2), (0, "mask", 3), (0, "mask"), (0, "mask", 2, 0)])
def test_keys_differ_in_seed_purpose_and_parts(other):
    assert derive_key(*other) != derive_key(0, "mask", 2)
    assert derive_key(0, "mask", 2) == derive_key(0, "mask", 2)
