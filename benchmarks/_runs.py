"""Runs of a benchmark: each is a process of its own, for its time and peak memory, and is kept as JSON.

What is kept is made again only when the settings that it depends on have changed, so that a benchmark of hours can be
stopped and go on.
"""

from __future__ import annotations

import json
import os
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"


def machine() -> dict[str, str]:
    """Return the processor and the versions that a result depends on."""
    packages = ("scgpt-tools", "torch", "scvi-tools", "scanpy", "harmonypy", "scib-metrics", "scikit-learn")
    model = next(
        (line.split(":")[1].strip() for line in Path("/proc/cpuinfo").open() if line.startswith("model name")),
        platform.processor(),
    )
    return {"cpu": model, "cores": str(os.cpu_count())} | {name: version(name) for name in packages}


def measured(function: Callable[[], Any]) -> tuple[Any, dict[str, Any]]:
    """Call a function; return what it gives, and what it cost this process."""
    start = time.perf_counter()
    result = function()
    cost = {
        "seconds": round(time.perf_counter() - start, 1),
        "peak_GiB": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2),
        "threads": os.environ.get("OMP_NUM_THREADS", str(os.cpu_count())),
        "machine": machine(),
    }
    return result, cost


def kept(path: Path, settings: str) -> Mapping[str, Any] | None:
    """Return a result that is there, if it was made under the same settings."""
    if not path.exists():
        return None
    result = json.loads(path.read_text())
    return result if result["settings"] == settings else None


def keep(path: Path, result: Mapping[str, Any]) -> None:
    """Write a result down."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(result, indent=1) + "\n")


def in_process(script: str, arguments: Sequence[str]) -> Mapping[str, Any]:
    """Run a benchmark's script with ``--one``; the last line that it prints is the result as JSON."""
    command = [sys.executable, script, "--one", *arguments]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def file_name(*parts: object) -> str:
    """Return a file's name made of words that may hold anything."""
    return ".".join("".join(c if c.isalnum() or c == "_" else "_" for c in str(part)) for part in parts) + ".json"
