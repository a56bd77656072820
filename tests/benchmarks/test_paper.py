import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "paper.py"


def run(*arguments) -> str:
    return subprocess.run([sys.executable, SCRIPT, *arguments], capture_output=True, text=True, check=True).stdout


@pytest.mark.slow
def test_stand_ins_go_the_whole_way(tmp_path):
    shown = run("--quick", "--json", tmp_path / "scores.json")
    scores = json.loads((tmp_path / "scores.json").read_text())["scores"]
    assert set(scores) == {"zero-shot", "fine-tuned", "HVG + PCA"}
    for row in scores.values():
        assert f"{row['AvgBIO']:.3f}" in shown
    assert "published" not in shown
