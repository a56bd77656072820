from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from scgpt import ReferenceIndex

from ._bytes import damage_folder, fresh_copy
from ._json import damage_json
from ._oracle import Case, content

N, D = 60, 8
VECTORS = np.random.default_rng(0).standard_normal((N, D)).astype(np.float32)


@pytest.fixture(scope="module", params=[True, False], ids=["exact", "compressed"])
def saved(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    labels = pd.DataFrame({"type": np.arange(N) % 3, "donor": ["d1", "d2"] * (N // 2)}).astype(str)
    folder = tmp_path_factory.mktemp("saved") / "index"
    ReferenceIndex.from_embeddings(VECTORS, labels, exact=request.param).save(folder)
    return folder


def test_index(fuzz, saved: Path, tmp_path: Path):
    folder = tmp_path / "index"
    right = _labelled(saved)

    def make(rng: np.random.Generator) -> Case:
        fresh_copy(saved, folder)
        if rng.random() < 0.5:
            name, verify = damage_json(rng, folder / "index.json"), False
        else:
            name, verify = damage_folder(rng, folder), True
        return Case(
            f"{name}, verify={verify}", lambda: _labelled(folder, verify=verify), is_right, lambda: content(tmp_path)
        )

    def is_right(answer: tuple[np.ndarray, ...]) -> None:
        for given, expected in zip(answer[:2], right[:2], strict=True):
            assert np.array_equal(given, expected)
        # Names of columns may be others, and so the order of their votes.
        assert all(((votes > 0) & (votes <= 1)).all() for votes in answer[2:])

    fuzz(make, 12)


def _labelled(folder: Path, *, verify: bool = False) -> tuple[np.ndarray, ...]:
    index = ReferenceIndex.load(folder, verify=verify)
    neighbors = index.query(VECTORS[:5] + 0.01, k=3)
    votes = [index.vote(neighbors, label).confidence for label in sorted(index.labels)]
    return *neighbors, *votes
