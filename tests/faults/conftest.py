from __future__ import annotations

import itertools
import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

HERE = Path(__file__).parent


class Folder:
    """Where a job works, with a folder of temporary files beside it."""

    def __init__(self, path: Path, like: Folder | None = None):
        self.path, self.work, self.tmp = path, path / "work", path / "tmp"
        self.tmp.mkdir(parents=True)
        if like is not None:
            shutil.copytree(like.work, self.work)

    def stamps(self) -> set[tuple[Path, int]]:
        """Return all files and when they were written."""
        return {(path, path.stat().st_mtime_ns) for path in self.work.rglob("*") if path.is_file()}

    def files(self) -> list[str]:
        return sorted(str(path.relative_to(self.work)) for path in self.work.rglob("*") if path.is_file())

    def log(self) -> str:
        return (self.path / "log").read_text()


@pytest.fixture(scope="session")
def ask() -> Iterator[Callable[..., dict]]:
    """Have a process of its own do something of a job of ``_jobs.py``, with a strike if one is named."""
    command = [sys.executable, str(HERE / "_server.py")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:

        def ask(job: str, do: str, folder: Folder, **strike: float | str) -> dict:
            server.stdin.write(json.dumps({"job": job, "do": do, "folder": str(folder.path), "strike": strike}) + "\n")
            server.stdin.flush()
            return json.loads(server.stdout.readline())

        yield ask
        server.stdin.close()


@pytest.fixture(scope="session")
def started(ask, tmp_path_factory) -> Callable[[str], Folder]:
    """Folders as they are before a job runs."""
    made: dict[str, Folder] = {}

    def started(job: str) -> Folder:
        if job not in made:
            made[job] = Folder(tmp_path_factory.mktemp("started") / "job")
            answer = ask(job, "start", made[job])
            assert "error" not in answer, made[job].log()
        return made[job]

    return started


@pytest.fixture
def folder_of(started, tmp_path) -> Callable[[str], Folder]:
    """Folders of a test's own, ready for a job."""
    numbers = itertools.count()
    return lambda job: Folder(tmp_path / str(next(numbers)), started(job))


@pytest.fixture(scope="session")
def undisturbed(ask, started, tmp_path_factory) -> Callable[[str], dict]:
    """How a job ends that is left alone: result, files, and what to choose a strike from."""
    known: dict[str, dict] = {}

    def undisturbed(job: str) -> dict:
        if job not in known:
            folder = Folder(tmp_path_factory.mktemp("undisturbed") / "job", started(job))
            old, before = ask(job, "read", folder).get("value"), folder.stamps()
            answer = ask(job, "run", folder)
            assert "error" not in answer, folder.log()
            assert list(folder.tmp.iterdir()) == []
            new = ask(job, "read", folder)["value"]
            assert new != old
            written = [path.stat().st_size for path in dict(folder.stamps() - before)]
            sizes = {"largest": max(written), "written": sum(written)}
            known[job] = answer | {"old": old, "new": new, "files": folder.files()} | sizes
        return known[job]

    return undisturbed


@pytest.fixture(scope="session")
def assert_whole(undisturbed) -> Callable[[str, dict], None]:
    """Check that what is read after a fault is the old result or the new one, or a clear refusal where there was none."""

    def assert_whole(job: str, found: dict) -> None:
        about = undisturbed(job)
        if "error" in found:
            assert about["old"] is None, found
            assert found["error"][0] in ("FileNotFoundError", "ArrayNotFoundError"), found  # of ours, and of zarr
        elif job == "embed":  # rows that are not there are NaN
            assert all(row in (None, whole) for row, whole in zip(found["value"], about["new"], strict=True))
        elif job != "pretrain":  # which has a model of each state
            assert found["value"] in (about["old"], about["new"])

    return assert_whole
