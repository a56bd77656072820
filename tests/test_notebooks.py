"""The tutorials in notebooks/: what is kept of them, and that they run."""

from __future__ import annotations

import importlib.util
import os
import re
from pathlib import Path
from types import ModuleType

import pytest

nbformat = pytest.importorskip("nbformat")
pytest.importorskip("nbclient")
pytest.importorskip("ipykernel")

FOLDER = Path(__file__).parents[1] / "notebooks"
NOTEBOOKS = {path.stem: path for path in sorted(FOLDER.glob("*.ipynb"))}
# Files that notebooks/README.md says where to get.
DATA = set(re.findall(r"`([\w-]+\.h5(?:ad|mu))`", (FOLDER / "README.md").read_text(encoding="utf-8")))
_QUICK = "quickstart"
_PLACE = re.compile(r"/(?:home|Users|work|root|opt|usr)/|site-packages|[A-Z]:\\\\")


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("execute", FOLDER / "execute.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def outputs_of(notebook):
    return [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_what_is_kept_was_run_from_top_to_bottom_and_says_nothing_of_a_machine(name):
    notebook = nbformat.read(NOTEBOOKS[name], as_version=4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    outputs = outputs_of(notebook)
    assert any("data" in output for output in outputs)
    assert [o for o in outputs if o.output_type == "error" or o.get("name") == "stderr"] == []
    assert not any(cell.metadata for cell in notebook.cells)
    texts = [cell.source for cell in notebook.cells]
    for output in outputs:
        texts += [output.get("text", "")] + [v for k, v in output.get("data", {}).items() if k.startswith("text/")]
    assert [text for text in texts if _PLACE.search(text)] == []
    assert NOTEBOOKS[name].stat().st_size < 650_000


@pytest.mark.parametrize(
    "name", [name if name == _QUICK else pytest.param(name, marks=pytest.mark.slow) for name in NOTEBOOKS]
)
def test_it_runs(name, script, tmp_path, monkeypatch, request):
    notebook = nbformat.read(NOTEBOOKS[name], as_version=4)
    sources = "".join(cell.source for cell in notebook.cells)
    files = {file for file in DATA if f'"{file}"' in sources}
    if files:
        data = Path(os.environ.get("SCGPT_DATA") or request.getfixturevalue("shared") / "data")
        if absent := sorted(file for file in files if not (data / file).is_file()):
            pytest.skip(f"{', '.join(absent)} not in {data}")
        monkeypatch.setenv("SCGPT_DATA", str(data))
    script.execute(notebook, tmp_path)  # raises where a cell does
    assert [output.text for output in outputs_of(notebook) if output.get("name") == "stderr"] == []
    assert list(tmp_path.iterdir()) == []
