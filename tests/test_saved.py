"""What earlier versions saved is read, and says what it said then; what later versions save is refused as such."""

from __future__ import annotations

import json
import runpy
import shutil
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import scgpt
from scgpt.corpus import Corpus
from scgpt.hub import read_checkpoint
from scgpt.index import ReferenceIndex
from scgpt.model import SCGPT

HERE = Path(__file__).parent / "saved"
MAKE = runpy.run_path(str(HERE / "make.py"))
QUESTIONS: dict[str, Callable[[Path, Path], Any]] = MAKE["QUESTIONS"]
VERSIONS = sorted(path.name for path in HERE.iterdir() if path.is_dir() and path.name != "__pycache__")
ANSWERS = [path.relative_to(HERE) for made in VERSIONS for path in sorted((HERE / made / "answers").iterdir())]
# Of what is computed from what was read. Steps of training that follow add to the difference between two processors.
CLOSE = {"run": 1e-3}

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*does not have many workers", "ignore:`weights_only` was not set"),
    pytest.mark.usefixtures("auto_is_float32"),
]


def test_this_version_has_its_folder():
    assert version("scgpt-tools") in VERSIONS


@pytest.mark.parametrize("answer", ANSWERS, ids=str)
def test_what_was_saved_says_the_same(answer, tmp_path):
    then, now = HERE / answer, QUESTIONS[answer.stem](HERE / answer.parts[0], tmp_path)
    if then.suffix == ".json":
        assert now == json.loads(then.read_text())
        return
    expected, close = np.load(then, allow_pickle=False), CLOSE.get(answer.stem, 1e-4)
    assert now.dtype == expected.dtype
    np.testing.assert_allclose(now, expected, rtol=close, atol=close * np.abs(expected).max())


@pytest.mark.parametrize("answer", [answer for answer in ANSWERS if answer.suffix == ".npy"], ids=str)
def test_answers_differ_by_more_than_is_let_pass(answer):
    then = np.load(HERE / answer, allow_pickle=False)
    assert then.std(axis=0).max() > 30 * CLOSE.get(answer.stem, 1e-4) * np.abs(then).max()


@pytest.mark.parametrize("made", VERSIONS)
def test_a_version_is_small_and_holds_nothing_of_a_machine(made):
    files = {path: path.read_bytes() for path in (HERE / made).rglob("*") if path.is_file()}
    assert sum(map(len, files.values())) < 1e6
    for content in files.values():
        assert not any(place in content for place in (str(HERE).encode(), b"/home/", b"/root/", b"/Users/", b"/tmp/"))


# Formats of versions to come


@pytest.fixture
def saved(tmp_path) -> Path:
    return Path(shutil.copytree(HERE / VERSIONS[-1], tmp_path / "saved"))


def newer(file: Path, *where: str) -> None:
    """Raise the number of the format in a file."""
    content = json.loads(file.read_text())
    inside = content
    for name in where:
        inside = inside[name]
    inside["format"] += 1
    file.write_text(json.dumps(content))


NEWER = r"has format 2, and this version reads 1: it was made by a newer version of scgpt-tools; update this one\."


@pytest.mark.parametrize(
    ("file", "read"),
    [
        ("checkpoint/config.json", lambda path: read_checkpoint(path / "checkpoint")),
        ("scgpt/config.json", lambda path: SCGPT.load(path / "scgpt")),
        ("query/config.json", lambda path: SCGPT.from_pretrained(path / "query")),
        ("index/index.json", lambda path: ReferenceIndex.load(path / "index")),
        ("corpus.zarr/manifest.json", lambda path: Corpus(path / "corpus.zarr")),
    ],
)
def test_a_newer_format_is_named(file, read, saved):
    newer(saved / file)
    with pytest.raises(ValueError, match=NEWER):
        read(saved)


def test_a_newer_format_of_a_stored_embedding_is_named(saved):
    newer(saved / "embedding.zarr" / "zarr.json", "attributes", "scgpt")
    with pytest.raises(ValueError, match=NEWER):
        scgpt.tl.embed(MAKE["cells"](saved), saved / "checkpoint", store=saved / "embedding.zarr", progress_bar=False)
