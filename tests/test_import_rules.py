"""Which room may import what: the source is read, not run."""

import ast
import sys
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from importlib.util import resolve_name
from pathlib import Path
from typing import NamedTuple

import pytest

import scgpt

SOURCE = Path(scgpt.__file__).parent
FLOORS = {
    "_folders": 0,
    "_formats": 0,
    "_json": 0,
    "_lazy": 0,
    "_messages": 0,
    "_token_batch": 0,
    "metrics": 0,
    "data": 1,
    "nn": 1,
    "corpus": 2,
    "hub": 2,
    "module": 2,
    "index": 3,
    "train": 3,
    "get": 4,
    "model": 4,
    "pretraining": 4,
    "pl": 5,
    "pp": 5,
    "tl": 5,
    "cli": 6,
    "__main__": 7,
}
# Could be lifted out and used alone: imports nothing of scgpt.
APART = {"metrics"}
# Beyond the standard library and rooms below; rooms that are not named here may import what they like.
THIRD_PARTY = {
    "_folders": set(),
    "_formats": set(),
    "_json": set(),
    "_lazy": set(),
    "_messages": set(),
    "_token_batch": {"torch"},
    "nn": {"torch"},
}
# What a room uses where it is there: imported inside functions alone.
OPTIONAL = {"nn": {"flash_attn"}}
# Other limits of a room on modules that it could import by its floor.
FORBIDDEN = {"data": {"torch.nn", "scgpt.nn"}, "nn": {"scgpt.data", "scgpt.metrics"}}


def module_name(path: Path, source: Path) -> str:
    parts = ["scgpt", *path.relative_to(source).with_suffix("").parts]
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


class Import(NamedTuple):
    line: int
    name: str
    """Absolute, down to what is imported from a module."""
    in_function: bool


def imports_of(path: Path, source: Path) -> Iterator[Import]:
    """All that a file imports: anywhere in it, and for type checkers too."""
    name = module_name(path, source)
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    tree = ast.parse(path.read_text(encoding="utf-8"))
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    inside = {id(node) for function in functions for node in ast.walk(function)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            target = resolve_name("." * node.level + (node.module or ""), package) if node.level else node.module
            names = [f"{target}.{alias.name}" for alias in node.names]
        else:
            continue
        yield from (Import(node.lineno, name, id(node) in inside) for name in names)


def room_of(name: str) -> str:
    return name.split(".")[1] if "." in name else ""


def problems_of(path: Path, source: Path) -> Iterator[str]:
    """What a file imports against the rules."""
    room = room_of(module_name(path, source))
    if room == "":  # the package itself opens its rooms lazily, and imports nothing by itself
        return
    where = path.relative_to(source)
    if room not in FLOORS:
        yield f"{where}: {room} has no floor; give it one in this test and in the design"
        return
    for line, name, in_function in imports_of(path, source):
        top = name.split(".")[0]
        if any(name == f or name.startswith(f"{f}.") for f in FORBIDDEN.get(room, ())):
            yield f"{where}:{line} imports {name}, which {room} must not"
        elif top == "scgpt":
            if room_of(name) == room:
                continue
            if room in APART:
                yield f"{where}:{line} imports {name}, and {room} stands apart"
            elif FLOORS.get(room_of(name), 99) >= FLOORS[room]:
                yield f"{where}:{line} imports {name}, which is not below {room}"
        elif room in THIRD_PARTY and top not in sys.stdlib_module_names | THIRD_PARTY[room]:
            if not (in_function and top in OPTIONAL.get(room, ())):
                yield f"{where}:{line} imports {name}; {room} has only {sorted(THIRD_PARTY[room])} and Python"


def graph_of(source: Path) -> dict[str, set[str]]:
    """Module to modules of ours that it imports."""
    modules = {module_name(path, source): path for path in source.rglob("*.py")}

    def longest_known(name: str) -> str | None:
        while name not in modules and "." in name:
            name = name.rpartition(".")[0]
        return name if name in modules else None

    return {
        name: {t for found in imports_of(path, source) if (t := longest_known(found.name)) and t != name}
        for name, path in modules.items()
        if name != "scgpt"  # it names its rooms for type checkers alone
    }


FILES = sorted(SOURCE.rglob("*.py"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_imports_lead_downstairs(path):
    assert list(problems_of(path, SOURCE)) == []


def test_imports_go_in_no_circle():
    try:
        list(TopologicalSorter(graph_of(SOURCE)).static_order())
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


def test_the_package_itself_imports_only_what_it_needs_to_be_lazy():
    names = {found.name for found in imports_of(SOURCE / "__init__.py", SOURCE)}
    outside = {name for name in names if name.split(".")[0] != "scgpt"}
    assert {name.split(".")[0] for name in outside} <= sys.stdlib_module_names
    assert "scgpt._lazy.lazy" in names


# The rules themselves, on houses built to break them.


def build(tmp_path: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = tmp_path / "scgpt" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path / "scgpt"


@pytest.mark.parametrize(
    ("file", "line", "message"),
    [
        ("nn/_a.py", "import numpy", "nn has only ['torch']"),
        ("nn/_a.py", "def f():\n    from einops import rearrange", "nn has only ['torch']"),
        ("nn/_a.py", "from scgpt.data import GeneVocab", "which nn must not"),
        ("nn/__init__.py", "from ..data._vocab import GeneVocab", "which nn must not"),
        ("data/_a.py", "import torch.nn.functional as F", "which data must not"),
        ("data/_a.py", "from torch import nn", "which data must not"),
        ("data/_a.py", "from ..hub import read", "is not below data"),
        ("hub/_a.py", "from scgpt.module import ScGPTModule", "is not below hub"),
        ("train/_a.py", "if TYPE_CHECKING:\n    from scgpt.model import SCGPT", "is not below train"),
        ("model/_a.py", "import scgpt.tl", "is not below model"),
        ("model/_a.py", "from scgpt import tl", "is not below model"),
        ("tl/_a.py", "import scgpt", "is not below tl"),
        ("tl/_a.py", "from scgpt.pl import umap", "is not below tl"),
        ("metrics/_a.py", "from scgpt.data import GeneVocab", "metrics stands apart"),
        ("nn/_a.py", "from scgpt.metrics import ari", "which nn must not"),
        ("nn/_a.py", "import flash_attn", "nn has only ['torch']"),
        ("data/_a.py", "def f():\n    from scgpt import nn", "which data must not"),
        ("_lazy.py", "import torch", "_lazy has only []"),
        ("_token_batch.py", "import numpy", "_token_batch has only ['torch']"),
        ("utils/_a.py", "import os", "has no floor"),
    ],
)
def test_a_broken_rule_is_seen(file, line, message, tmp_path):
    source = build(tmp_path, {file: line})
    (problem,) = problems_of(source / file, source)
    assert message in problem


@pytest.mark.parametrize(
    ("file", "line"),
    [
        ("nn/_a.py", "import math, torch\nfrom torch import nn\nfrom . import _b\nfrom scgpt._token_batch import X"),
        ("nn/_a.py", "def f():\n    import flash_attn"),
        ("data/_a.py", "import numpy, torch\nfrom ._b import c"),
        ("tl/__init__.py", "from scgpt._lazy import lazy\nfrom ._embed import embed"),
        ("tl/_a.py", "from scgpt.metrics import ari\nfrom scgpt import model"),
        ("cli.py", "import scgpt.tl\nfrom scgpt import hub"),
        ("train/_a.py", "from scgpt.metrics import ari"),
        ("metrics/_a.py", "import scib_metrics\nfrom ._b import c"),
    ],
)
def test_what_is_allowed_is_let_through(file, line, tmp_path):
    source = build(tmp_path, {file: line})
    assert list(problems_of(source / file, source)) == []


def test_a_circle_is_seen(tmp_path):
    source = build(
        tmp_path,
        {"nn/__init__.py": "", "nn/_a.py": "from ._b import f", "nn/_b.py": "def f():\n    from . import _a"},
    )
    with pytest.raises(CycleError):
        list(TopologicalSorter(graph_of(source)).static_order())
