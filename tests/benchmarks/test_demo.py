import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "demo.py"


@pytest.mark.slow
def test_demo_runs_and_saves_what_it_prints(tmp_path):
    command = [sys.executable, SCRIPT, "--quick", "--json", tmp_path / "scores.json", "--out", tmp_path / "out"]
    shown = subprocess.run(command, capture_output=True, text=True, check=True, env=os.environ | {"MPLBACKEND": "agg"})
    result = json.loads((tmp_path / "scores.json").read_text())
    methods = {"PCA", "scGPT from scratch", "scgpt-mini, zero-shot", "scgpt-mini, fine-tuned"}
    assert {row["method"] for row in result["scores"]} == methods
    for row in result["scores"]:
        assert row["method"] in shown.stdout
        assert f"{row['kNN accuracy']:.3f}" in shown.stdout
    assert len(list((tmp_path / "out").glob("umap-*.png"))) == len(methods)
