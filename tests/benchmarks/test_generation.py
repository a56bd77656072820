import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "generation.py"


def test_cells_are_like_themselves_and_means_have_no_variance_within_types(script, rng):
    compared = script("generation").compared
    types = np.repeat(["a", "b", "c"], 30)
    cells = rng.gamma(2, size=(3, 50)).repeat(30, 0) + rng.normal(size=(90, 50))
    same = compared(cells, cells, types)
    assert (same["own type"], same["own type, raw"]) == ("3 of 3", "3 of 3")
    assert [same[name] for name in ("variance, correlation", "variance, ratio", "gene-gene")] == pytest.approx(
        [1, 1, 1]
    )
    means = np.concatenate([np.tile(cells[types == of].mean(0), (30, 1)) for of in "abc"])
    assert compared(means, cells, types)["own type"] == "3 of 3"
    assert compared(means, cells, types)["variance, ratio"] < 0.9
    others = np.roll(means, 30, axis=0)
    assert compared(others, cells, types)["own type"] == "0 of 3"


@pytest.mark.slow
@pytest.mark.real
def test_it_runs(shared):
    command = [sys.executable, SCRIPT, "--quick", "--data", "sc_mixology"]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    for method in ("cell prompts, drawn", "type prompts", "gene prompts, drawn", "training cells", "type mean"):
        assert f"| {method} " in shown
