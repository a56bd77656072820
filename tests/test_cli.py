import json
import runpy

import anndata
import numpy as np
import pytest

from scgpt.cli import main
from scgpt.corpus import Corpus
from scgpt.hub import read_checkpoint, read_official


@pytest.fixture
def cells(tmp_path, rng):
    adata = anndata.AnnData(rng.poisson(0.5, (20, 60)).astype(np.float32))
    adata.var_names = [f"G{i:04d}" for i in range(60)]
    adata.write_h5ad(tmp_path / "in.h5ad")
    return tmp_path / "in.h5ad"


def test_embed_writes_a_new_file(cells, golden, tmp_path):
    out = tmp_path / "out.h5ad"
    assert (
        main(["embed", str(cells), "--model", str(golden / "checkpoint"), "--out", str(out), "--key-added", "X"]) == 0
    )
    assert anndata.read_h5ad(out).obsm["X"].shape == (20, 64)
    assert "X" not in anndata.read_h5ad(cells).obsm
    assert {p.name for p in tmp_path.iterdir()} == {"in.h5ad", "out.h5ad"}


def test_convert_writes_safetensors(golden, tmp_path, capsys):
    assert main(["convert", str(golden / "checkpoint"), str(tmp_path / "model")]) == 0
    assert "loaded genes, values, layers" in capsys.readouterr().out
    ours, theirs = read_checkpoint(tmp_path / "model"), read_official(golden / "checkpoint")
    assert ours.config == theirs.config
    assert all((ours.state_dict[name] == tensor).all() for name, tensor in theirs.state_dict.items())


@pytest.mark.parametrize(
    "exclude", [{"in": ["3", "7"]}, {"in.h5ad": ["3", "7"]}, {"data": "in", "n_test": 2, "test_cells": ["3", "7"]}]
)
def test_corpus_build_tells_what_became_of_every_file(cells, tmp_path, capsys, exclude):
    (tmp_path / "text.h5ad").write_text("no cells")
    (tmp_path / "exclude.json").write_text(json.dumps(exclude))
    arguments = ["corpus", "build", str(cells), str(tmp_path / "text.h5ad"), "--out", str(tmp_path / "c.zarr")]
    options = ["--exclude", str(tmp_path / "exclude.json"), "--min-genes", "1", "--on-error", "skip"]
    assert main([*arguments, *options]) == 0
    shown = capsys.readouterr().out
    assert "in.h5ad: 18 of 20 cells; 2 excluded" in shown
    assert "text.h5ad: skipped," in shown
    assert "Corpus of 18 cells, 60 genes, 1 files" in shown
    assert not {"3", "7"} & set(Corpus(tmp_path / "c.zarr").obs()["cell"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["embed", "{cells}", "--model", "blod", "--out", "{tmp}/out.h5ad"], "neither a folder nor a known checkpoint"),
        (["embed", "{tmp}/none.h5ad", "--model", "{golden}", "--out", "{tmp}/out.h5ad"], "none.h5ad"),
        (["embed", "{cells}", "--model", "{golden}", "--out", "{cells}"], "--out names the input"),
        (["embed", "{cells}", "--model", "{golden}", "--out", "{tmp}/o.h5ad", "--layer", "raw"], "no layer 'raw'"),
        (["convert", "{golden}", "{tmp}"], "--overwrite"),
        (["convert", "{golden}", "{tmp}", "--overwrite"], "holds other files than a checkpoint"),
        (["embed", "{tmp}/in.h5mu", "--model", "{golden}", "--out", "{tmp}/o.h5ad"], "the input must be an .h5ad file"),
        (["embed", "{cells}", "--model", "{golden}", "--out", "{tmp}/o.zarr"], "--out must be an .h5ad file"),
        (["embed", "{cells}", "--model", "{golden}", "--out", "{tmp}/none/o.h5ad"], "no folder"),
        (["corpus", "build", "{tmp}/none.h5ad", "--out", "{tmp}/c.zarr"], "There is no file"),
        (["corpus", "build", "{cells}", "--out", "{tmp}/in.h5ad"], "is no corpus"),
        (["corpus", "build", "{cells}", "--out", "{tmp}/c.zarr", "--exclude", "{cells}"], "is not valid JSON"),
        (["corpus", "build", "{cells}", "--out", "{tmp}/c.zarr", "--vocab", "{tmp}/none.json"], "none.json"),
        (["corpus", "census", "blod", "--out", "{tmp}/c.zarr"], "There is no query 'blod'"),
    ],
)
def test_errors_are_one_line(cells, golden, tmp_path, capsys, arguments, message):
    names = {"cells": cells, "golden": golden / "checkpoint", "tmp": tmp_path}
    assert main([a.format(**names) for a in arguments]) == 1
    shown = capsys.readouterr().err
    assert message in shown
    assert len(shown.strip().splitlines()) == 1
    assert {p.name for p in tmp_path.iterdir()} == {"in.h5ad"}


def test_as_a_module(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["scgpt", "--version"])
    with pytest.raises(SystemExit, match="0"):
        runpy.run_module("scgpt", run_name="__main__")
    assert "scgpt-tools" in capsys.readouterr().out
