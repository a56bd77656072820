import anndata
import numpy as np
import pytest

from scgpt import tl
from scgpt.cli import main


def test_the_file_is_what_the_call_in_python_makes(folder, counts, model, capsys):
    options = ["--max-length", "30", "--precision", "float32", "--key-added", "X"]
    assert main(["embed", "cells.h5ad", "--model", model, "--out", "out.h5ad", *options]) == 0
    shown = capsys.readouterr()
    assert shown.out == "120 cells; 60 of 60 genes known (.var 'index')\nout.h5ad: .obsm['X']\n"
    assert "Embedding: 100%" in shown.err
    tl.embed(counts, model, max_length=30, precision="float32", key_added="X", progress_bar=False)
    written = anndata.read_h5ad("out.h5ad")
    np.testing.assert_array_equal(written.obsm["X"], counts.obsm["X"])
    assert written.uns["scgpt"]["X"]["model_sha256"] == counts.uns["scgpt"]["X"]["model_sha256"]
    assert "X" not in anndata.read_h5ad("cells.h5ad").obsm
    assert {path.name for path in folder.iterdir()} == {"cells.h5ad", "out.h5ad"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["cells.h5ad", "--model", "blod", "--out", "out.h5ad"], "neither a folder nor a known checkpoint"),
        (["none.h5ad", "--model", "mini", "--out", "out.h5ad"], "there is no file none.h5ad"),
        (["cells.h5ad", "--model", "mini", "--out", "cells.h5ad"], "--out names the input"),
        (["cells.h5ad", "--model", "{model}", "--out", "out.h5ad", "--layer", "raw"], "no layer 'raw'"),
        (["cells.h5mu", "--model", "mini", "--out", "out.h5ad"], "the input must be an .h5ad file"),
        (["cells.h5ad", "--model", "mini", "--out", "out.zarr"], "--out must be an .h5ad file"),
        (["cells.h5ad", "--model", "mini", "--out", "none/out.h5ad"], "no folder none to write to"),
        (
            ["text.h5ad", "--model", "mini", "--out", "out.h5ad"],
            "text.h5ad cannot be read, it is damaged or no h5ad file",
        ),
        (["cells.h5ad", "--model", "mini", "--out", "folder.h5ad"], "--out names a folder"),
    ],
)
def test_errors_are_one_line(folder, model, fails, arguments, message):
    (folder / "text.h5ad").write_text("no cells")
    (folder / "folder.h5ad").mkdir()
    assert message in fails("embed", *(a.format(model=model) for a in arguments))
