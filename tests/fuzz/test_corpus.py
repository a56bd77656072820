from pathlib import Path

import anndata
import numpy as np
import pytest

from scgpt.corpus import Corpus, build
from scgpt.data import Tokenizer
from scgpt.train import CorpusLoader

from ._bytes import damage_folder, fresh_copy
from ._json import damage_json
from ._oracle import Case, content


@pytest.fixture(scope="module")
def saved(_cells: anndata.AnnData, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("saved")
    _cells[:16].copy().write_h5ad(folder / "a.h5ad")
    _cells[16:].copy().write_h5ad(folder / "b.h5ad")
    return build(
        [folder / "a.h5ad"], folder / "corpus.zarr", held_out=[folder / "b.h5ad"], min_genes=1, cells_per_dataset=24
    ).path


def test_corpus(fuzz, saved: Path, tmp_path: Path):
    folder = tmp_path / "corpus.zarr"
    right = _read(saved)

    def make(rng: np.random.Generator) -> Case:
        fresh_copy(saved, folder)
        kind = rng.random()
        if kind < 0.3:
            name = damage_json(rng, folder / "manifest.json")
        elif kind < 0.5:
            name = damage_json(rng, folder / "vocab.json")
        else:
            name = damage_folder(rng, folder)
        return Case(name, lambda: _read(folder), is_right, lambda: content(tmp_path))

    def is_right(answer: dict[str, np.ndarray]) -> None:
        for name, values in answer.items():
            assert np.array_equal(values, right[name]), name

    fuzz(make, 8)


def _read(folder: Path) -> dict[str, np.ndarray]:
    """What a run of pretraining reads."""
    corpus = Corpus(folder)
    tokenizer = Tokenizer(corpus.vocab, n_bins=None, include_zeros=True)
    read: dict[str, np.ndarray] = {}
    for part in ("train", "held_out"):
        loader = CorpusLoader(corpus, tokenizer, 8, mask_share=0.4, held_out=part == "held_out")
        batches = list(loader)
        for name in ("gene_ids", "targets", "cell_index"):
            read[f"{part} {name}"] = np.concatenate([getattr(batch, name).numpy() for batch in batches])
    return read
