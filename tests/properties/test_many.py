"""All properties on many more examples, in a process of their own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent


@pytest.mark.slow
@pytest.mark.parametrize(
    "file", sorted(path.name for path in HERE.glob("test_*.py") if path.name != Path(__file__).name)
)
def test_properties_hold_on_many_examples(file):
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", str(HERE / file)],
        cwd=HERE.parents[1],
        env=os.environ | {"SCGPT_PROPERTIES": "many"},
        capture_output=True,
        text=True,
    )
    print(*(line for line in run.stdout.splitlines() if line.startswith("properties: ")))
    assert run.returncode == 0, run.stdout[-5000:]
