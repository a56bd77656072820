"""What the documentation of public names says, and that its examples run."""

from __future__ import annotations

import ast
import doctest
import inspect
import logging
import re
from collections.abc import Iterator
from dataclasses import is_dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import pytest

import scgpt

SOURCE = Path(scgpt.__file__).parent
API = (Path(__file__).parents[1] / "docs" / "api.md").read_text(encoding="utf-8")
NAMES = re.findall(r"^    (\w+(?:\.\w+)*)$", API, re.MULTILINE)
# The examples of all others run.
SKIPPED = {
    "corpus.census": "asks a server",
    "hub.read_official": "reads files of the authors, which have to be downloaded",
}
# Beside what a test environment always has.
NEEDED = {"metrics/baselines/_annotation.py: celltypist": "celltypist"}
# Lists of names that docs/api.md has in full; the others have parts that only other modules need.
COMPLETE = ["get", "metrics", "metrics.baselines", "model", "pl", "pp", "tl"]
# In these lists because the verbs need them, and of no use to anybody else.
FOR_VERBS = {"model.Precision", "model.Prompt", "model.epochs_of", "model.resolve_precision", "model.resolve_prompt"}


def documented(path: Path) -> Iterator[tuple[str, str]]:
    """Names of functions, classes and methods in a file, with their docstrings; those of private files, too."""

    def within(body: list[ast.stmt], before: str) -> Iterator[tuple[str, str]]:
        for node in body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                yield before + node.name, ast.get_docstring(node) or ""
                yield from within(node.body, f"{before}{node.name}.")

    yield from within(ast.parse(path.read_text(encoding="utf-8")).body, f"{path.relative_to(SOURCE).as_posix()}: ")


def examples_in(docstring: str) -> list[doctest.Example]:
    """Those that run, without what they import."""
    examples = doctest.DocTestParser().get_examples(docstring)
    return [e for e in examples if doctest.SKIP not in e.options and not e.source.startswith(("import ", "from "))]


EXAMPLES = {
    name: docstring
    for path in sorted(SOURCE.rglob("*.py"))
    for name, docstring in documented(path)
    if examples_in(docstring)
}


@pytest.mark.parametrize("name", EXAMPLES)
def test_examples_run_by_themselves(name, tmp_path, monkeypatch, caplog):
    if name in NEEDED:
        pytest.importorskip(NEEDED[name])
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SCGPT_CACHE", str(tmp_path))
    caplog.set_level(logging.WARNING, logger="scvi")  # it logs to where examples print to
    test = doctest.DocTestParser().get_doctest(EXAMPLES[name], {}, name, name, 0)
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    report: list[str] = []
    runner.run(test, out=report.append)
    plt.close("all")
    assert not runner.failures, "".join(report)


def public(name: str) -> Any:
    """What ``scgpt.<name>`` is."""
    module, _, attribute = f"scgpt.{name}".rpartition(".")
    return getattr(import_module(module), attribute)


def sections_of(docstring: str) -> set[str]:
    return set(re.findall(r"^(\w+)\n-+$", docstring, re.MULTILINE))


def own_parameters(what: Any) -> list[str]:
    """Those that a docstring has to describe: of a class not what it has from its parent."""
    if is_dataclass(what) and "__init__" in vars(what):
        return [field for field, kind in inspect.get_annotations(what).items() if "ClassVar" not in str(kind)]
    if inspect.isclass(what) and not {"__init__", "_fields"} & vars(what).keys():
        return []
    return [p.name for p in inspect.signature(what).parameters.values() if p.kind is not p.VAR_KEYWORD]


@pytest.mark.parametrize("name", NAMES)
def test_docstrings_say_what_goes_in_and_what_comes_out(name):
    what = public(name)
    docstring = inspect.getdoc(what) or ""
    sections = sections_of(docstring)
    parameters = own_parameters(what)
    if parameters:
        assert "Parameters" in sections
        described = docstring.partition("Parameters\n-")[2]
        assert [p for p in parameters if not re.search(rf"^(?! ).*\b{p}\b.*\n    \S", described, re.MULTILINE)] == []
    if not inspect.isclass(what) and inspect.signature(what).return_annotation not in (None, "None"):
        assert sections & {"Returns", "Yields"}
    assert examples_in(docstring) or name in SKIPPED


@pytest.mark.parametrize("name", SKIPPED)
def test_examples_that_cannot_run_are_there(name):
    docstring = inspect.getdoc(public(name))
    assert ">>> " in docstring
    assert not examples_in(docstring)


@pytest.mark.parametrize("room", COMPLETE)
def test_every_name_of_a_public_room_is_documented(room):
    names = {f"{room}.{name}" for name in import_module(f"scgpt.{room}").__all__}
    assert names - FOR_VERBS - {"metrics.baselines"} <= set(NAMES)


def test_every_documented_name_is_public():
    rooms = {name.rpartition(".")[0] for name in NAMES}
    lists = {room: import_module(f"scgpt.{room}" if room else "scgpt").__all__ for room in rooms}
    assert [name for name in NAMES if name.rpartition(".")[2] not in lists[name.rpartition(".")[0]]] == []
    assert len(NAMES) == len(set(NAMES))
