"""Embedding a matrix on dask: lazily, and by the workers of a cluster."""

import os
import pickle
from collections import Counter
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import torch

import scgpt
from scgpt.model import SCGPT
from scgpt.tl._embed_blocks import BlockEmbedder, ShippedEmbedder

dask_array = pytest.importorskip("dask.array")
distributed = pytest.importorskip("distributed")

N_CELLS, N_GENES, ROWS = 90, 120, 10
NAMES = [f"G{i:04d}" for i in range(N_GENES)]


@pytest.fixture(scope="module")
def matrix() -> sp.csr_matrix:
    return sp.csr_matrix(np.random.default_rng(3).poisson(0.5, (N_CELLS, N_GENES)).astype(np.float32))


@pytest.fixture(scope="module")
def model(golden) -> SCGPT:
    return SCGPT.from_pretrained(golden / "checkpoint")


def cells(matrix) -> anndata.AnnData:
    return anndata.AnnData(matrix, var=pd.DataFrame(index=NAMES))


def on_dask(matrix, log: Path | None = None, chunks=(ROWS, N_GENES), deadly: int = -1) -> anndata.AnnData:
    """Cells whose matrix, block by block, says which process computed it; one block kills the first that tries."""

    # Defined here, it goes to workers as it is: they do not import this file.
    def tell(block, log, block_info=None):
        import os
        import signal
        from pathlib import Path

        import scipy.sparse as sp

        if log is not None:
            number = block_info[0]["chunk-location"][0]
            first = not Path(log).exists() or f" {number}\n" not in Path(log).read_text()
            with open(log, "a") as file:
                file.write(f"{os.getpid()} {number}\n")
            if number == deadly and first:
                os.kill(os.getpid(), signal.SIGKILL)
        return sp.csr_matrix(block)

    blocks = dask_array.from_array(matrix.toarray(), chunks=chunks)
    meta = sp.csr_matrix((0, 0), dtype=np.float32)
    return cells(blocks.map_blocks(tell, log and str(log), dtype=np.float32, meta=meta))


def told(log: Path) -> list[tuple[int, int]]:
    """Process and block of each computation."""
    return [tuple(map(int, line.split())) for line in log.read_text().splitlines()]


def embed(adata, model, **kwargs):
    return scgpt.tl.embed(adata, model, progress_bar=False, **kwargs)


@pytest.fixture(scope="module")
def expected(matrix, model) -> np.ndarray:
    adata = cells(matrix)
    embed(adata, model)
    return adata.obsm["X_scGPT"]


@pytest.fixture
def threads_as_workers():
    """A cluster of two workers in this process."""
    options = {"n_workers": 2, "threads_per_worker": 1, "processes": False, "dashboard_address": None}
    with distributed.LocalCluster(**options) as cluster, distributed.Client(cluster) as client:
        yield client


@pytest.fixture(scope="module")
def processes_as_workers():
    options = {"n_workers": 2, "threads_per_worker": 1, "processes": True, "dashboard_address": None}
    with distributed.LocalCluster(**options) as cluster, distributed.Client(cluster) as client:
        yield client


def test_lazy_computes_what_is_asked_for(matrix, model, expected, tmp_path):
    adata = on_dask(matrix, tmp_path / "log")
    embed(adata, model, lazy=True)
    embedding = adata.obsm["X_scGPT"]
    assert isinstance(embedding, dask_array.Array)
    assert (embedding.shape, embedding.dtype) == (expected.shape, np.float32)
    assert embedding.chunks[0] == (ROWS,) * 9
    assert not (tmp_path / "log").exists()
    assert np.allclose(embedding[25:35].compute(), expected[25:35], atol=1e-6)
    assert {block for _, block in told(tmp_path / "log")} == {2, 3}
    assert adata.uns["scgpt"]["X_scGPT"]["n_genes_matched"] == N_GENES


def test_lazy_is_the_model_of_the_call(matrix, golden, expected):
    model = SCGPT.from_pretrained(golden / "checkpoint")
    adata = on_dask(matrix)
    embed(adata, model, lazy=True)
    with torch.no_grad():
        model.module.network.genes.embedding.weight.zero_()
    assert np.allclose(adata.obsm["X_scGPT"].compute(), expected, atol=1e-6)


@pytest.mark.parametrize("chunks", [(ROWS, 50), ((40, 7, 43), N_GENES), (1000, 1000)])
def test_lazy_of_any_chunks(matrix, model, expected, chunks):
    adata = cells(dask_array.from_array(matrix.toarray(), chunks=chunks))
    embed(adata, model, lazy=True)
    assert np.allclose(adata.obsm["X_scGPT"].compute(), expected, atol=1e-6)


def test_lazy_of_views_copies_and_layers(matrix, model, expected):
    copy = embed(on_dask(matrix)[[70, 3, 4, 5]], model, lazy=True, copy=True)
    assert np.allclose(copy.obsm["X_scGPT"].compute(), expected[[70, 3, 4, 5]], atol=1e-6)
    adata = on_dask(matrix)
    adata.layers["counts"], adata.X = adata.X, None
    embed(adata, model, lazy=True, layer="counts")
    assert np.allclose(adata.obsm["X_scGPT"].compute(), expected, atol=1e-6)


def test_labels_of_cells_travel_with_the_model(counts):
    SCGPT.setup_anndata(counts, batch_key="batch", cell_conditions="cell_type")
    model = SCGPT(counts, d_model=8, n_layers=1, n_heads=2, input_norm="domain")
    with torch.no_grad():
        for tensor in model.module.network.state_dict().values():
            if tensor.is_floating_point():  # what a training leaves, of norms, too
                tensor.add_(torch.rand(tensor.shape, generator=torch.Generator().manual_seed(len(tensor))))
    model.is_trained_ = True
    expected = model.get_latent_representation(counts, progress_bar=False)
    lazy = counts.copy()
    lazy.X = dask_array.from_array(counts.X.toarray(), chunks=(50, 60))
    embed(lazy, model, lazy=True)
    assert np.allclose(lazy.obsm["X_scGPT"].compute(), expected, atol=1e-6)
    for column, value in (("batch", "a"), ("cell_type", "B")):
        other = lazy.copy()
        other.obs[column] = value
        embed(other, model, lazy=True)
        moved = np.abs(other.obsm["X_scGPT"].compute() - expected).max(axis=1) > 1e-4
        assert np.array_equal(moved, (counts.obs[column] != value).to_numpy())


def test_wrong_arguments_are_named_at_once_and_wrong_values_in_the_end(matrix, model, tmp_path):
    with pytest.raises(ValueError, match="lazy=True needs a matrix on dask"):
        embed(cells(matrix), model, lazy=True)
    with pytest.raises(ValueError, match="leave out one of the two"):
        embed(on_dask(matrix), model, lazy=True, store=tmp_path / "e.zarr")
    with pytest.raises(KeyError, match="no layer 'counts'"):
        embed(on_dask(matrix), model, lazy=True, layer="counts")
    with pytest.raises(ValueError, match="max_length must be"):
        embed(on_dask(matrix), model, lazy=True, max_length=1)
    negative = matrix.copy()
    negative[77, 5] = -1
    adata = on_dask(negative)
    embed(adata, model, lazy=True)
    with pytest.raises(ValueError, match=r"negative values.*rows \[77\]"):
        adata.obsm["X_scGPT"].compute()


@pytest.mark.usefixtures("auto_is_float32")
def test_a_shipped_model_leaves_the_data_behind_and_is_built_once(grouped_cells, monkeypatch):
    SCGPT.setup_anndata(grouped_cells)
    model = SCGPT(grouped_cells, d_model=8, n_layers=1, n_heads=2)
    model.is_trained_ = True
    read = model.cells_to_embed(grouped_cells, model.match(grouped_cells))
    pickled = pickle.dumps(BlockEmbedder(model, read, 1200, "float32"))
    assert b"cell89" not in pickled
    built = []
    start = SCGPT.from_pretrained
    monkeypatch.setattr(SCGPT, "from_pretrained", lambda checkpoint: built.append(1) or start(checkpoint))
    shipped = pickle.loads(pickle.dumps(ShippedEmbedder(pickled)))
    assert not built
    rows = [shipped(grouped_cells.X[first : first + 30], first) for first in (0, 30, 60)]
    assert built == [1]
    expected = model.get_latent_representation(grouped_cells, progress_bar=False)
    assert np.allclose(np.concatenate(rows), expected, atol=1e-6)
    assert len(pickle.dumps(shipped)) < len(pickled) + 1000


def test_two_workers_give_what_memory_gives(matrix, model, expected, tmp_path, threads_as_workers):
    adata = on_dask(matrix, tmp_path / "log")
    threads = torch.get_num_threads()
    embed(adata, model)
    assert isinstance(adata.obsm["X_scGPT"], np.ndarray)
    assert np.allclose(adata.obsm["X_scGPT"], expected, atol=1e-6)
    assert Counter(block for _, block in told(tmp_path / "log")) == Counter(range(9))
    assert torch.get_num_threads() == threads
    in_memory = cells(matrix)
    embed(in_memory, model)  # dask has nothing to do
    assert np.array_equal(in_memory.obsm["X_scGPT"], expected)


def test_what_goes_wrong_in_a_worker_is_said_here(matrix, model, tmp_path, threads_as_workers):
    negative = matrix.copy()
    negative[77, 5] = -1
    adata = on_dask(negative)
    with pytest.raises(ValueError, match=r"negative values.*rows \[77\]"):
        embed(adata, model)
    with pytest.raises(ValueError, match=r"negative values.*rows \[77\]"):
        embed(adata, model, store=tmp_path / "e.zarr")
    assert "X_scGPT" not in adata.obsm


def test_workers_write_their_own_shards(matrix, model, expected, tmp_path, threads_as_workers):
    for _ in range(2):
        adata = on_dask(matrix, tmp_path / "log")
        embed(adata, model, store=tmp_path / "e.zarr")
        assert isinstance(adata.obsm["X_scGPT"], dask_array.Array)
        assert np.allclose(adata.obsm["X_scGPT"].compute(), expected, atol=1e-6)
    assert Counter(block for _, block in told(tmp_path / "log")) == Counter(range(9))
    (tmp_path / "e.zarr" / "c" / "4" / "0").unlink()
    irregular = on_dask(matrix, tmp_path / "more", chunks=((45, 3, 42), N_GENES))
    embed(irregular, model, store=tmp_path / "e.zarr")  # the store keeps its shards
    assert np.allclose(irregular.obsm["X_scGPT"].compute(), expected, atol=1e-6)
    assert {block for _, block in told(tmp_path / "more")} == {0, 1, 2}


@pytest.mark.slow  # starting a worker means importing torch once more
def test_processes_give_what_memory_gives(matrix, model, expected, tmp_path, processes_as_workers):
    adata = on_dask(matrix, tmp_path / "log")
    embed(adata, model)
    assert np.allclose(adata.obsm["X_scGPT"], expected, atol=1e-6)
    assert Counter(block for _, block in told(tmp_path / "log")) == Counter(range(9))
    assert os.getpid() not in {process for process, _ in told(tmp_path / "log")}


@pytest.mark.slow
@pytest.mark.parametrize("stored", [False, True])
def test_a_worker_that_is_killed_costs_its_own_part_alone(
    matrix, model, expected, tmp_path, stored, processes_as_workers
):
    adata = on_dask(matrix, tmp_path / "log", deadly=5)
    embed(adata, model, **({"store": tmp_path / "e.zarr"} if stored else {}))
    assert np.allclose(np.asarray(adata.obsm["X_scGPT"]), expected, atol=1e-6)
    computed = told(tmp_path / "log")
    killed = next(process for process, block in computed if block == 5)
    by_others = Counter(block for process, block in computed if process != killed)
    assert set(by_others.values()) == {1}
    assert set(by_others) | {block for process, block in computed if process == killed} == set(range(9))
    assert by_others[5] == 1
