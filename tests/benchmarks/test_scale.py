import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "scale.py"


def test_made_up_cells_express_the_genes_that_they_should(script):
    rows = script("scale").made_up_cells(300, 0)
    assert rows.shape == (300, 2_000)
    assert 180 < np.diff(rows.indptr).mean() < 220


def test_the_exponent_is_that_of_time_in_cells(script):
    rows = [{"way": way, "cells": n, "seconds": 3 * n**e} for way, e in (("a", 1), ("b", 2)) for n in (10, 100, 1000)]
    assert script("scale").exponents(rows) == pytest.approx({"a": 1, "b": 2})


@pytest.mark.slow
def test_it_runs_and_saves_what_it_prints(tmp_path):
    command = [sys.executable, SCRIPT, "--quick", "--json", tmp_path / "scale.json"]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    result = json.loads((tmp_path / "scale.json").read_text())
    assert [row["cells"] for row in result["results"]] == [500] * 3 + [2000] * 3
    assert all(row["cells/s"] > 0 and row["MB"] >= 0 for row in result["results"])
    assert "exponent" in shown
