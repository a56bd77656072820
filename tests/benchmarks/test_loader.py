import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "loader.py"


def test_made_up_cells_are_of_the_size_of_real_ones(script):
    rows = script("loader").made_up_cells(200, np.random.default_rng(0))
    assert rows.shape == (200, 60_000)
    assert 1200 < np.median(np.diff(rows.indptr)) < 2500
    assert np.median(rows.data) == 1
    assert rows.data.max() > 100


@pytest.mark.slow
def test_it_runs_and_saves_what_it_prints(tmp_path):
    command = [sys.executable, SCRIPT, "--quick", "--cells", "2000", "--json", tmp_path / "speed.json"]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    result = json.loads((tmp_path / "speed.json").read_text())
    assert len(result["results"]) == 8
    assert all(row["tokens/s"] > 100 * row["cells/s"] > 0 for row in result["results"])
    assert "tokens/s" in shown
