"""Memory that a build, an epoch and a pretraining take, each in a process of its own, as the corpus grows."""

import json
import os
import subprocess
import sys
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

import scgpt

N_GENES, N_CELLS = 2000, 4000

PEAK = """
import resource, sys
from pathlib import Path
from scgpt.corpus import Corpus, _sources, build
from scgpt.data import Tokenizer

what, folder = sys.argv[1], Path(sys.argv[2])
if what == "build":
    _sources._PORTION = 2**20
    build(sorted(folder.glob("*.h5ad")), folder / "c.zarr", cells_per_dataset=4000)
elif what == "pretraining":
    from scgpt.pretraining import PretrainingConfig, pretrain
    tiny = {"d_model": 8, "n_heads": 1, "n_layers": 1, "d_feed_forward": 8}
    settings = PretrainingConfig(
        corpus=str(folder / "c.zarr"), out=str(folder / "run"), network=tiny, tokenizer={"max_length": 32}, batch_size=128,
        max_epochs=1, batches_per_read=8, loggers=[], accelerator="cpu", devices=1,
    )
    pretrain(settings, progress_bar=False)
else:
    from scgpt.train import CorpusLoader
    corpus = Corpus(folder / "c.zarr")
    loader = CorpusLoader(corpus, Tokenizer(corpus.vocab), 128, mask_share=0.4, batches_per_read=8, prefetch=2)
    assert sum(batch.n_cells for batch in loader) > 0.98 * corpus.n_cells()
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
"""


def peak_mb(what: str, folder: Path) -> float:
    environment = os.environ | {"PYTHONPATH": str(Path(scgpt.__file__).parents[1])}
    command = [sys.executable, "-c", PEAK, what, str(folder)]
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return float(done.stdout.splitlines()[-1])


@pytest.mark.slow
def test_memory_is_flat_as_the_corpus_grows_fourfold(tmp_path):
    rng = np.random.default_rng(0)
    peaks = {}
    for size in (4, 16):  # below that, one dataset is the whole corpus
        folder = tmp_path / str(size)
        folder.mkdir()
        for i in range(size):
            rows = sp.random(N_CELLS, N_GENES, 0.25, format="csr", dtype=np.float32, rng=rng)
            rows.data[:] = rng.integers(1, 30, rows.nnz)
            adata = anndata.AnnData(rows, var=pd.DataFrame(index=[f"G{j}" for j in range(N_GENES)]))
            adata.write_h5ad(folder / f"{i:02}.h5ad")
        peaks[size] = {what: peak_mb(what, folder) for what in ("build", "epoch", "pretraining")}
        n_cells = json.loads((folder / "c.zarr" / "manifest.json").read_text())["datasets"]
        assert sum(dataset["cells"] for dataset in n_cells) == size * N_CELLS
    # The larger corpus has 24,000,000 more values: 140 MB as they are stored, 190 MB in memory.
    for what in peaks[4]:
        assert peaks[16][what] - peaks[4][what] < 30, peaks
