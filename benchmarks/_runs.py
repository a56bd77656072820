"""Runs of a benchmark: each is a process of its own, for its time and peak memory, and is kept as JSON.

What is kept is made again only when the settings that it depends on have changed, so that a benchmark of hours can be
stopped and go on.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

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


def memory_MB(field: str) -> float:
    """Return what the system says of this process's memory: ``VmRSS`` is what it has, ``VmHWM`` the most that it had."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field)) / 2**10


def forget_peak() -> None:
    """Let ``VmHWM`` begin anew, without what was freed before: it would else hide what comes."""
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")


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


class Planned(NamedTuple):
    """A run: a method on a task, with the numbers of its part and seed, and the name of the file that keeps it."""

    task: str
    method: str
    numbers: tuple[int, ...]
    file: str


def command_line(doc: str | None, tasks: Iterable[str], methods: Iterable[str]) -> argparse.Namespace:
    """Read the arguments that the benchmarks of tasks and methods share; ``one`` has the numbers of a single run."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few cells and epochs, to see that it runs")
    parser.add_argument("--kept", action="store_true", help="report what is kept, run nothing")
    parser.add_argument("--json", type=Path, help="write all runs to this file, too")
    parser.add_argument("--task", action="append", choices=list(tasks))
    parser.add_argument("--method", action="append", choices=list(methods))
    parser.add_argument("--one", nargs="+", type=int, help=argparse.SUPPRESS)
    return parser.parse_args()


def collect(
    script: str, plans: Iterable[Planned], args: argparse.Namespace, settings: Callable[[str], str]
) -> list[Mapping[str, Any]]:
    """Return the results of runs: those kept under the settings of their method, and the others after making them."""
    folder = RESULTS / Path(script).stem
    results = []
    for plan in plans:
        result = None if args.quick else kept(folder / plan.file, settings(plan.method))
        if result is None and args.kept:
            continue
        if result is None:
            print(f"{plan.task}, {plan.method}, {', '.join(map(str, plan.numbers))} ...", flush=True)
            numbers = [str(number) for number in plan.numbers]
            quick = ["--quick"] * args.quick
            result = in_process(script, [*numbers, "--task", plan.task, "--method", plan.method, *quick])
            if not args.quick:
                keep(folder / plan.file, result)
        results.append(result)
    return results


def publish(script: str, text: str, results: Sequence[Mapping[str, Any]], args: argparse.Namespace) -> None:
    """Print a report; keep it where it is of all tasks and methods."""
    print(text)
    if args.json:
        args.json.write_text(json.dumps(results, indent=1) + "\n")
    if not args.quick and not (args.task or args.method):
        (RESULTS / f"{Path(script).stem}.md").write_text(text)
