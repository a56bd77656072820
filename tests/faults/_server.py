"""A process that has imported everything, forks a job for each line that it is given, and strikes it on request.

Requests and answers are lines of JSON. Importing takes many seconds and forking some milliseconds, so that a job can be
struck down dozens of times.
"""

import faulthandler
import gc
import importlib
import json
import os
import resource
import select
import signal
import sys
import tempfile
import time
import traceback
import warnings
from contextlib import suppress
from pathlib import Path

import _disks

# Events of Python's audit that change a folder.
CHANGES = {"open", "os.rename", "os.mkdir", "os.remove", "os.rmdir", "os.chmod", "os.truncate"}
# What the jobs import when they need it, so that none of them has to.
IMPORTED_LATE = ("annbatch", "faiss", "lightning.pytorch", "mudata", "scvi.train", "yaml", "zarr")
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT


class Changes:
    """Counts what is about to change files, and kills the process before one of these."""

    def __init__(self, folder: Path, kill_at: int | None):
        self.folder, self.kill_at, self.n = str(folder), kill_at, 0

    def __call__(self, event: str, args: tuple) -> None:
        if event not in CHANGES or (event == "open" and not args[2] & WRITING):
            return
        path = os.fsdecode(args[0]) if isinstance(args[0], str | bytes) else ""
        if os.path.isabs(path) and not path.startswith(self.folder):
            return
        if self.n == self.kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
        self.n += 1


def run(job, request: dict, answer: int) -> None:
    """Do what is asked for in this process, a forked one, and end it."""
    folder, strike = Path(request["folder"]), request["strike"]
    log = os.open(folder / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(os.open(os.devnull, os.O_WRONLY) if "bytes" in strike else log, 1)
    os.dup2(1 if "bytes" in strike else log, 2)
    faulthandler.enable()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    tempfile.tempdir = str(folder / "tmp")
    os.chdir(folder)
    known = set(sys.modules)
    changes = Changes(folder, strike.get("change"))
    sys.addaudithook(changes)
    if "bytes" in strike:  # the write that makes a file longer is cut off, and the process dies of it
        signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_FSIZE, (strike["bytes"],) * 2)
    os.write(answer, b"\n")  # the job begins
    began, result = time.perf_counter(), {}
    try:
        do, work = request["do"], folder / "work"
        result["value"] = getattr(job, do)(work) if hasattr(job, do) else getattr(_disks, do)(job, work, **strike)
    except BaseException as error:  # noqa: BLE001 - the other side is told
        traceback.print_exc()
        result["error"] = [type(error).__name__, str(error)]
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    result |= {"seconds": time.perf_counter() - began, "changes": changes.n, "new": sorted(set(sys.modules) - known)}
    sys.stdout.flush()
    os.write(answer, json.dumps(result).encode())
    os._exit(0)


def struck(job, request: dict) -> dict:
    """Have a forked process do it, with the strike that is asked for, and tell how it ended."""
    strike = request["strike"]
    reading, writing = os.pipe()
    pid = os.fork()
    if not pid:
        os.close(reading)
        run(job, request, writing)
    os.close(writing)
    with os.fdopen(reading, "rb") as answer:
        answer.readline()
        if "seconds" in strike and not select.select([answer], [], [], strike["seconds"])[0]:
            os.kill(pid, getattr(signal, strike.get("signal", "SIGKILL")))
        told = answer.read()
    exit_code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    return {"exit": exit_code, **(json.loads(told) if told else {})}


def main() -> None:
    from _jobs import JOBS

    for name in IMPORTED_LATE:
        importlib.import_module(name)
    # pandas imports pyarrow, whose allocator has a thread of its own.
    warnings.filterwarnings("ignore", "This process .* is multi-threaded", DeprecationWarning)
    for line in sys.stdin:
        request = json.loads(line)
        answer = struck(JOBS[request["job"]], request)
        for name in answer.pop("new", ()):  # what a job imports, the next one finds
            with suppress(Exception):
                importlib.import_module(name)
        gc.freeze()
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
