"""Memory that the attention between 1,200 genes takes, in a process of its own, as the cells become more."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import scgpt

PEAK = """
import json, resource, sys, time
import anndata, numpy as np, scipy.sparse as sp
from scgpt.model import SCGPT

n_cells = int(sys.argv[1])
values = sp.random(n_cells, 1200, density=0.1, format="csr", random_state=0, dtype=np.float32)
values.data[:] = np.ceil(values.data * 5)
cells = anndata.AnnData(values)
cells.var_names = [f"GENE{i}" for i in range(1200)]
SCGPT.setup_anndata(cells)
model = SCGPT(cells, d_model=16, n_layers=2, n_heads=2)
model.is_trained_ = True
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
start = time.perf_counter()
found = model.get_gene_attention(cells.var_names, groups=np.arange(n_cells) % 2, progress_bar=False)
seconds = time.perf_counter() - start
assert found.influence.shape == (2, 1200, 1200)
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
print(json.dumps({"before": before, "peak": peak, "seconds": seconds}))
"""


def measured(n_cells: int) -> dict[str, float]:
    environment = os.environ | {"PYTHONPATH": str(Path(scgpt.__file__).parents[1])}
    command = [sys.executable, "-W", "ignore", "-c", PEAK, str(n_cells)]
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.slow
def test_memory_is_flat_as_cells_become_tenfold():
    few, many = measured(200), measured(2000)
    print(few, many)
    # The matrices of all cells together would take 11 GB.
    assert many["peak"] < few["peak"] + 60
