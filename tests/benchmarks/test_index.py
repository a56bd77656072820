import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "index.py"


def test_the_truth_is_that_of_all_cosines(script, tmp_path, monkeypatch):
    index = script("index")
    monkeypatch.setattr(index, "PORTION", 300)
    index.prepare("mixture", 1000, tmp_path)
    vectors, queries, truth = (np.load(tmp_path / f"{name}.npy") for name in ("vectors", "queries", "truth"))
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    nearest = np.argsort(-queries @ vectors.T, axis=1)[:, :10]
    assert np.array_equal(np.sort(truth, axis=1), np.sort(nearest, axis=1))


@pytest.mark.slow
def test_it_runs_and_saves_what_it_prints(tmp_path):
    command = [sys.executable, SCRIPT, "--quick", "--json", tmp_path / "scores.json"]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    rows = {row["method"]: row for row in json.loads((tmp_path / "scores.json").read_text())["results"]}
    assert rows["exact"]["recall@10"] == 1
    assert rows["ReferenceIndex"]["recall@10"] > 0.95
    assert rows["ReferenceIndex"]["MB"] < 0.5 * rows["exact"]["MB"]
    assert all(name in shown for name in rows)
