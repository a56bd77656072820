import contextlib
import io
from pathlib import Path

import anndata
import numpy as np
import pytest

from scgpt.cli import main
from scgpt.model import SCGPT

from ._bytes import damage_bytes, fresh_copy
from ._oracle import Case, content


@pytest.fixture(scope="module")
def things(_cells: anndata.AnnData, model: SCGPT, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what commands take."""
    folder = tmp_path_factory.mktemp("things")
    _cells.write_h5ad(folder / "cells.h5ad")
    model.save(folder / "model")
    (folder / "folder.h5ad").mkdir()
    (folder / "text.h5ad").write_text("no cells")
    (folder / "run.yaml").write_text("corpus: none.zarr\nout: run\nmax_steps: 1\n")
    (folder / "mapping.tsv").write_text("a\tGENE0\n")
    (folder / "exclude.json").write_text('{"cells": ["cell1"]}')
    return folder


def test_commands(fuzz, things: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    folder = tmp_path / "things"

    def make(rng: np.random.Generator) -> Case:
        fresh_copy(things, folder)
        monkeypatch.chdir(folder)
        arguments = list(COMMANDS[rng.integers(len(COMMANDS))])
        if rng.random() < 0.25:
            name = damage_bytes(
                rng, folder / str(rng.choice(["cells.h5ad", "run.yaml", "mapping.tsv", "exclude.json"]))
            )
        else:
            at = int(rng.integers(len(arguments)))
            odd = str(ODD[rng.integers(len(ODD))])
            kind = rng.choice(["replace", "replace", "drop", "add", "twice"])
            if kind == "add":
                arguments.insert(at, odd)
            elif kind != "drop":
                arguments[at : at + 1] = [arguments[at]] * 2 if kind == "twice" else [odd]
            else:
                del arguments[at]
            name = str(kind)
        return Case(f"{name}: scgpt {' '.join(arguments)}", lambda: _run(arguments), is_right)

    def is_right(answer: tuple[int, str, dict[str, str]]) -> None:
        status, shown, before = answer
        lines = shown.splitlines()
        if status == 0:
            return
        assert "Traceback" not in shown
        assert lines
        assert 20 <= len(lines[-1]) < 2000
        told = [line for line in lines if line.startswith("scgpt")]
        assert told == lines[-1:], "an error is one line, the last"
        assert there() == before, "files are left behind"

    def there() -> dict[str, str]:
        """All files, but for the hidden folder from which a build of a corpus goes on."""
        return {path: hashed for path, hashed in content(folder).items() if ".build" not in path}

    def _run(arguments: list[str]) -> tuple[int, str, dict[str, str]]:
        before, shown = there(), io.StringIO()
        with contextlib.redirect_stderr(shown), contextlib.redirect_stdout(io.StringIO()):
            try:
                status = main(arguments)
            except SystemExit as end:  # of argparse
                status = int(end.code or 0)
        return status, shown.getvalue(), before

    fuzz(make, 25)


COMMANDS = (
    ("embed", "cells.h5ad", "--model", "model", "--out", "out.h5ad", "--max-length", "100"),
    ("embed", "cells.h5ad", "--model", "model", "--out", "out.h5ad", "--layer", "log", "--gene-mapping", "mapping.tsv"),
    ("embed", "cells.h5ad", "--model", "model", "--out", "out.h5ad", "--gene-key", "symbol", "--key-added", "X"),
    ("map", "cells.h5ad", "--reference", "cells.h5ad", "--labels", "cell_type", "--model", "model", "--out", "out.h5ad", "--k", "3"),
    ("annotate", "cells.h5ad", "--labels", "cell_type", "--model", "model", "--out", "out.h5ad", "--max-epochs=1", "--seed", "1"),
    ("annotate", "cells.h5ad", "--reference", "cells.h5ad", "--labels", "cell_type", "--out", "out.h5ad", "--max-epochs=1", "--save", "new"),
    ("integrate", "cells.h5ad", "--batch", "batch", "--out", "out.h5ad", "--max-epochs=1", "--n-top-genes", "9", "--seed", "1"),
    ("convert", "model", "converted"),
    ("convert", "model", "model", "--overwrite"),
    ("corpus", "build", "text.h5ad", "--out", "corpus.zarr", "--min-genes", "1", "--seed", "1"),
    ("corpus", "build", "cells.h5ad", "--out", "corpus.zarr", "--exclude", "exclude.json", "--vocab", "model", "--min-genes", "99"),
    ("pretrain", "--config", "run.yaml", "--set", "lr=1e-3", "network.d_model=16"),
)  # fmt: skip
ODD = (
    "", "-", "--", "-1", "0", "1e400", "nan", "none.h5ad", "cells.h5ad", "folder.h5ad", "text.h5ad", "model", "run.yaml", "nowhere/out.h5ad",
    "/dev/null", ".", "..", "é", "--out", "--none", "--help-me", "=", "lr=[", "lr.x=3", "network=3", ".=1", "lr=2020-13-13", "embed",
    "out=model", "whole-humans", "--version=", "x" * 300, "999999999999999999999", "mapping.tsv",
)  # fmt: skip
