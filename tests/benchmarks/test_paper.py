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


@pytest.mark.slow
def test_stand_ins_are_annotated(tmp_path):
    shown = run("--annotate", "pancreas", "--quick", "--json", tmp_path / "scores.json")
    scores = json.loads((tmp_path / "scores.json").read_text())["scores"]
    assert set(scores) == {"scGPT, fine-tuned", "logistic regression"}
    assert scores["logistic regression"]["accuracy"] > 0.6
    assert f"{scores['scGPT, fine-tuned']['macro_F1']:.3f}" in shown
    assert "published" not in shown


def test_annotation_asks_for_its_files():
    failed = subprocess.run([sys.executable, SCRIPT, "--annotate", "myeloid"], capture_output=True, text=True)
    assert failed.returncode == 2
    assert "--annotate needs --reference and --query" in failed.stderr
