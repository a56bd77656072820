"""The scripts in benchmarks/ import one another by name, from their own folder."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(scope="session")
def script() -> Iterator[Callable[[str], ModuleType]]:
    """Import a script of benchmarks/."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(BENCHMARKS)
        yield importlib.import_module


@pytest.fixture
def data(script: Callable[[str], ModuleType]) -> ModuleType:
    return script("_data")


@pytest.fixture
def maker(script: Callable[[str], ModuleType]) -> ModuleType:
    return script("_make_splits")


@pytest.fixture(scope="session")
def load(script: Callable[[str], ModuleType], shared: Path) -> Callable:
    """Read a data set, each once in the session; skips where the data are absent."""
    read = {}

    def cached(name: str):
        if name not in read:
            read[name] = script("_data").load(name, shared / "data")
        return read[name]

    return cached
