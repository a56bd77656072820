import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "integration.py"


@pytest.mark.slow
@pytest.mark.real
def test_every_method_runs_and_is_scored_on_all_and_on_test_cells(shared, tmp_path):
    command = [sys.executable, SCRIPT, "--quick", "--json", tmp_path / "runs.json"]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    runs = json.loads((tmp_path / "runs.json").read_text())
    methods = {run["method"] for run in runs}
    assert {"scGPT, from scratch", "scGPT, fine-tuned", "scGPT, zero-shot"} < methods
    assert {"HVG + PCA", "Harmony", "scVI", "scANVI"} < methods
    for run in runs:
        assert run["n_test"] < run["n_cells"] == 300
        assert set(run["scores"]) == {"all cells", "test cells"}
        assert all(0 <= score <= 1 for scores in run["scores"].values() for score in scores.values())
        assert f"{run['scores']['all cells']['AvgBIO']:.3f}" in shown
