from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import anndata
import pytest

from scgpt.cli import main
from scgpt.model import SCGPT


@pytest.fixture
def folder(counts: anndata.AnnData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, with cells in ``cells.h5ad``."""
    counts.write_h5ad(tmp_path / "cells.h5ad")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="session")
def _model(_counts: anndata.AnnData, tmp_path_factory: pytest.TempPathFactory) -> Path:
    cells = _counts.copy()
    SCGPT.setup_anndata(cells)
    model = SCGPT(cells, d_model=8, n_layers=1, n_heads=2)
    model.is_trained_ = True
    folder = tmp_path_factory.mktemp("saved") / "model"
    model.save(folder)
    return folder


@pytest.fixture
def model(_model: Path) -> str:
    """Folder of a small model that knows the genes of the cells."""
    return str(_model)


@pytest.fixture
def fails(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Run a command that ends in an error, and return the one line that it says."""

    def fails(*arguments: str) -> str:
        there = {path.name for path in Path.cwd().iterdir()}
        assert main(list(map(str, arguments))) == 1
        (told,) = capsys.readouterr().err.splitlines()
        assert told.startswith(f"scgpt {arguments[0]}: ")
        assert {path.name for path in Path.cwd().iterdir()} == there
        return told

    return fails
