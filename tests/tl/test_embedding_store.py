"""Embeddings that are written to disk shard by shard."""

import errno
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import zarr

import scgpt
from scgpt.model import SCGPT
from scgpt.tl import _embedding_store
from scgpt.tl._embedding_store import EmbeddingStore, ShardWriter

dask_array = pytest.importorskip("dask.array")


@pytest.fixture
def cells() -> anndata.AnnData:
    matrix = sp.csr_matrix(np.random.default_rng(5).poisson(0.5, (50, 120)).astype(np.float32))
    obs = pd.DataFrame(index=[f"cell{i}" for i in range(50)])
    return anndata.AnnData(matrix, obs, pd.DataFrame(index=[f"G{i:04d}" for i in range(120)]))


@pytest.fixture(scope="module")
def model(golden) -> SCGPT:
    return SCGPT.from_pretrained(golden / "checkpoint")


@pytest.fixture(autouse=True)
def small_shards(monkeypatch):
    monkeypatch.setattr(_embedding_store, "SHARD_ROWS", 8)


def embed(adata, model, **kwargs):
    return scgpt.tl.embed(adata, model, progress_bar=False, **kwargs)


def files(folder: Path) -> dict[str, tuple[int, int]]:
    """Which files a store has, and which of them are the same as before."""
    stats = {str(path.relative_to(folder)): path.stat() for path in folder.rglob("*") if path.is_file()}
    return {name: (stat.st_ino, stat.st_mtime_ns) for name, stat in stats.items()}


@pytest.mark.parametrize("storage", ["memory", "csc", "backed", "dask", "view"])
def test_any_data_go_to_a_store(cells, model, tmp_path, storage):
    embed(cells, model)
    expected = cells.obsm.pop("X_scGPT")
    given = cells
    if storage == "csc":
        given.X = given.X.tocsc()
    elif storage == "backed":
        cells.write_h5ad(tmp_path / "cells.h5ad")
        given = anndata.read_h5ad(tmp_path / "cells.h5ad", backed="r")
    elif storage == "dask":
        given.X = dask_array.from_array(given.X.toarray(), chunks=(9, 120))
    elif storage == "view":
        given, expected = given[10:31].copy(), expected[10:31]
    embed(given, model, store=tmp_path / "e.zarr")
    embedding = given.obsm["X_scGPT"]
    assert isinstance(embedding, dask_array.Array)
    assert embedding.chunks[0][0] == 8
    assert np.allclose(embedding.compute(), expected, atol=1e-6)
    stored = zarr.open_array(tmp_path / "e.zarr", mode="r")
    assert (stored.shape, stored.dtype) == (expected.shape, np.float32)
    assert np.allclose(stored[:], expected, atol=1e-6)
    assert given.uns["scgpt"]["X_scGPT"]["store"] == str(tmp_path / "e.zarr")
    if storage == "backed":
        given.file.close()


def test_a_copy_and_a_file_hold_the_embedding(cells, model, tmp_path):
    embed(cells, model)
    copy = embed(cells, model, store=tmp_path / "e.zarr", key_added="X_stored", copy=True)
    assert "X_stored" not in cells.obsm
    copy.write_h5ad(tmp_path / "cells.h5ad")
    read = anndata.read_h5ad(tmp_path / "cells.h5ad")
    assert np.array_equal(read.obsm["X_stored"], read.obsm["X_scGPT"])
    assert np.array_equal(read.obsm["X_stored"], cells.obsm["X_scGPT"])


def test_a_whole_store_is_not_written_again(cells, model, tmp_path):
    embed(cells, model, store=tmp_path / "e.zarr")
    before = files(tmp_path / "e.zarr")
    assert len(before) == 8  # 7 shards of 50 cells
    embed(cells, model, store=tmp_path / "e.zarr", key_added="X_again")
    assert files(tmp_path / "e.zarr") == before
    assert np.array_equal(cells.obsm["X_again"].compute(), cells.obsm["X_scGPT"].compute())


KILLED = """
import os, signal, sys
from pathlib import Path
import anndata
import scgpt.tl
from scgpt.tl import _embedding_store

folder, checkpoint = map(Path, sys.argv[1:])
_embedding_store.SHARD_ROWS = 8
flush, shards = os.fsync, 0

def killed(file):  # the fourth shard is in its file, which has not its name yet
    global shards
    shards += 1
    if shards == 4:
        os.kill(os.getpid(), signal.SIGKILL)
    flush(file)

os.fsync = killed
adata = anndata.read_h5ad(folder / "cells.h5ad")
scgpt.tl.embed(adata, checkpoint, store=folder / "e.zarr", progress_bar=False)
"""


def test_a_killed_process_goes_on_where_it_was(cells, model, golden, tmp_path, monkeypatch):
    cells.write_h5ad(tmp_path / "cells.h5ad")
    command = [sys.executable, "-c", KILLED, str(tmp_path), str(golden / "checkpoint")]
    environment = os.environ | {"PYTHONPATH": str(Path(scgpt.__file__).parents[1])}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    left = files(tmp_path / "e.zarr")
    assert {name for name in left if name.endswith("/0")} == {"c/0/0", "c/1/0", "c/2/0"}
    assert len(left) == 5  # and the one without a name
    assert np.isnan(zarr.open_array(tmp_path / "e.zarr")[24:]).all()

    n_cells = []
    start = SCGPT.embed_cells
    count = lambda self, cells, index, **kwargs: n_cells.append(len(index)) or start(self, cells, index, **kwargs)
    monkeypatch.setattr(SCGPT, "embed_cells", count)
    embed(cells, model, store=tmp_path / "e.zarr")
    assert n_cells == [50 - 3 * 8]
    now = files(tmp_path / "e.zarr")
    assert len(now) == 8
    assert all(now[f"c/{shard}/0"] == left[f"c/{shard}/0"] for shard in range(3))
    embed(cells, model, key_added="X_memory")
    assert np.allclose(cells.obsm["X_scGPT"].compute(), cells.obsm["X_memory"], atol=1e-6)


@pytest.mark.usefixtures("auto_is_float32")
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"max_length": 40}, r"max_length \(1\d+, now 40\)"),
        ({"precision": "bfloat16"}, r"precision \(float32, now bfloat16\)"),
        ({"layer": "counts"}, r"layer \(X, now counts\)"),
        ({"obs_names": "other"}, r"differs in obs_names \(\w{16}, now \w{16}\)"),
        ({"n": 49}, r"differs in n_obs \(50, now 49\), obs_names"),
        ({"genes": 100}, "differs in genes and labels of cells"),
        ({"seed": 1}, "differs in model_sha256"),
    ],
)
def test_the_store_of_another_job_is_refused(cells, model, tmp_path, change, message):
    embed(cells, model, store=tmp_path / "e.zarr")
    before = files(tmp_path / "e.zarr")
    cells.layers["counts"] = cells.X
    if "obs_names" in change:
        cells.obs_names = [change.pop("obs_names"), *cells.obs_names[1:]]
    cells = cells[: change.pop("n", None), : change.pop("genes", None)].copy()
    if "seed" in change:
        SCGPT.setup_anndata(cells)
        model = SCGPT(cells, d_model=64, n_layers=1, n_heads=2, **change)
        model.is_trained_, change = True, {}
    with pytest.raises(ValueError, match=f"another job.*{message}.*Give another store, or delete this one"):
        embed(cells, model, store=tmp_path / "e.zarr", **change)
    assert files(tmp_path / "e.zarr") == before


def test_what_is_no_store_is_left_alone(cells, model, tmp_path):
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "a.txt").write_text("mine")
    zarr.create_array(tmp_path / "other.zarr", shape=(50, 64), dtype="float32")
    for path in (tmp_path / "notes", tmp_path / "notes" / "a.txt", tmp_path / "other.zarr"):
        with pytest.raises(FileExistsError, match=f"{path} is there and holds no embedding"):
            embed(cells, model, store=path)
    assert (tmp_path / "notes" / "a.txt").read_text() == "mine"
    (tmp_path / "empty").mkdir()
    embed(cells, model, store=tmp_path / "empty")
    (tmp_path / "empty" / "zarr.json").write_text("{")
    with pytest.raises(ValueError, match=r"zarr\.json is not valid JSON"):
        embed(cells, model, store=tmp_path / "empty")


def test_a_job_is_checked_before_its_store_is_made(cells, model, tmp_path):
    with pytest.raises(KeyError, match="no layer"):
        embed(cells, model, layer="counts", store=tmp_path / "e.zarr")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (errno.ENOSPC, r"The disk that holds .*e\.zarr is full. Free some space and repeat the call"),
        (errno.EROFS, r"e\.zarr cannot be written to. Give a store"),
    ],
)
def test_a_disk_that_cannot_be_written_to_is_named(cells, model, tmp_path, monkeypatch, code, message):
    flush, calls = os.fsync, []

    def full(file):
        calls.append(file)
        if len(calls) == 3:
            raise OSError(code, os.strerror(code))
        flush(file)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match=message):
            embed(cells, model, store=tmp_path / "e.zarr")
    assert set(files(tmp_path / "e.zarr")) == {"zarr.json", "c/0/0", "c/1/0"}
    embed(cells, model, store=tmp_path / "e.zarr")
    assert not np.isnan(cells.obsm["X_scGPT"].compute()).any()


def test_rows_that_come_in_any_portions_fill_shards(tmp_path):
    store = EmbeddingStore.open(tmp_path / "e.zarr", {}, (21, 3), 5)
    rows = np.arange(63, dtype=np.float32).reshape(21, 3)
    store.write(1, rows[5:10])
    assert store.missing() == [0, 2, 3, 4]
    wanted = store.rows_of(store.missing())
    writer = ShardWriter(store, store.missing())
    for part in np.split(rows[wanted], [1, 2, 11, 11, 15]):
        writer(part)
    assert np.array_equal(store.finish().compute(), rows)
    assert json.loads((tmp_path / "e.zarr" / "zarr.json").read_text())["attributes"]["scgpt"]["format"] == 1


def test_a_store_that_a_worker_does_not_see_is_named(tmp_path):
    store = EmbeddingStore(tmp_path / "elsewhere", (4, 2), 4)
    with pytest.raises(FileNotFoundError, match="a folder that all workers share"):
        store.write(0, np.zeros((4, 2), np.float32))
    with pytest.raises(OSError, match="lacks 1 of 1 shards"):
        store.finish()
    assert not list(tmp_path.iterdir())


def test_without_dask_there_is_a_way_out(cells, model, tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"pip install 'scgpt-tools\[dask\]'"):
        embed(cells, model, store=tmp_path / "e.zarr")


def test_a_shard_that_was_cut_off_is_written_anew(cells, model, tmp_path):
    embed(cells, model, store=tmp_path / "e.zarr")
    expected = cells.obsm["X_scGPT"].compute()
    shard = tmp_path / "e.zarr" / "c" / "2" / "0"
    shard.write_bytes(shard.read_bytes()[:100])
    embed(cells, model, store=tmp_path / "e.zarr")
    np.testing.assert_array_equal(cells.obsm["X_scGPT"].compute(), expected)
    metadata = tmp_path / "e.zarr" / "zarr.json"
    metadata.write_text(metadata.read_text().replace('"little"', '"big"'))
    with pytest.raises(ValueError, match=r"zarr\.json is damaged, it describes no embedding"):
        embed(cells, model, store=tmp_path / "e.zarr")
