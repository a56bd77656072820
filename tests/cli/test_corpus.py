import json

import pytest

from scgpt.cli import main
from scgpt.corpus import Corpus


@pytest.mark.parametrize(
    "exclude",
    [{"cells": ["3", "7"]}, {"cells.h5ad": ["3", "7"]}, {"data": "cells", "n_test": 2, "test_cells": ["3", "7"]}],
)
def test_a_build_tells_what_became_of_every_file(folder, counts, capsys, exclude):
    counts.obs_names = [str(i) for i in range(120)]
    counts.write_h5ad("cells.h5ad")
    (folder / "text.h5ad").write_text("no cells")
    (folder / "exclude.json").write_text(json.dumps(exclude))
    options = ["--exclude", "exclude.json", "--min-genes", "1", "--on-error", "skip"]
    assert main(["corpus", "build", "cells.h5ad", "text.h5ad", "--out", "c.zarr", *options]) == 0
    shown = capsys.readouterr().out
    assert "cells.h5ad: 118 of 120 cells; 2 excluded" in shown
    assert "text.h5ad: skipped," in shown
    assert "Corpus of 118 cells, 60 genes, 1 files" in shown
    assert not {"3", "7"} & set(Corpus("c.zarr").obs()["cell"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["build", "none.h5ad", "--out", "c.zarr"], "There is no file"),
        (["build", "cells.h5ad", "--out", "cells.h5ad"], "is no corpus"),
        (["build", "cells.h5ad", "--out", "c.zarr", "--exclude", "cells.h5ad"], "is not valid JSON"),
        (["build", "cells.h5ad", "--out", "c.zarr", "--vocab", "none.json"], "none.json"),
        (["census", "blod", "--out", "c.zarr"], "There is no query 'blod'"),
    ],
)
def test_errors_are_one_line(folder, fails, arguments, message):
    assert message in fails("corpus", *arguments)
