import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "attention.py"


def test_what_is_compared_is_the_same(script):
    attention = script("attention")
    batch = attention.TokenBatch(
        torch.zeros(30), torch.zeros(30), torch.tensor([0, 30]), torch.zeros(1), unknown=torch.arange(30) % 2 == 1
    )
    q, k, v = (torch.randn(30, attention.HEADS, attention.WIDTH) for _ in range(3))
    outs = {name: function(q, k, v, batch) for name, function in attention.METHODS.items()}
    torch.testing.assert_close(outs["ours"], outs["softmax"], rtol=0, atol=1e-5)
    torch.testing.assert_close(outs["mask"], outs["softmax"], rtol=0, atol=1e-5)
    assert (outs["all known"] - outs["softmax"]).abs().max() > 0.1


@pytest.mark.slow
def test_it_runs_and_saves_what_it_prints(tmp_path):
    command = [sys.executable, SCRIPT, "--quick", "--json", tmp_path / "costs.json"]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    rows = json.loads((tmp_path / "costs.json").read_text())["results"]
    assert {row["method"] for row in rows} == {"ours", "mask", "softmax", "all known"}
    assert all(str(row["ms"]) in shown for row in rows)
