import tracemalloc
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from scgpt.data import Cells, Conditions, GeneVocab, Tokenizer, _cells, dask_matrix

N_CELLS, N_VARS = 60, 25
INDICES = {
    "consecutive": np.arange(10, 30),
    "all": np.arange(N_CELLS),
    "one": np.array([17]),
    "none": np.array([], dtype=np.int64),
    "rising": np.array([0, 3, 4, 50, 59]),
    "shuffled": np.random.default_rng(1).permutation(N_CELLS)[:40],
    "repeated": np.array([5, 5, 59, 0, 5, 59]),
}


@pytest.fixture
def counts(rng) -> sp.csr_matrix:
    return sp.csr_matrix(rng.poisson(0.6, (N_CELLS, N_VARS)).astype(np.float32))


def on_disk(counts, path: Path, form) -> ad.AnnData:
    ad.AnnData(form(counts)).write_h5ad(path / "cells.h5ad")
    return ad.read_h5ad(path / "cells.h5ad", backed="r")


def backed_view(counts, path: Path, form) -> ad.AnnData:
    """A view on a file, of every row but in another order, among rows that are not in it."""
    order = np.random.default_rng(2).permutation(N_CELLS)
    shuffled = sp.vstack([counts[np.argsort(order)], counts[:7] * 2], format="csr")
    return on_disk(shuffled, path, form)[order]


def with_dask(counts, path: Path, form) -> ad.AnnData:
    dask_array = pytest.importorskip("dask.array")
    blocks = dask_array.from_array(counts.toarray(), chunks=(16, N_VARS))
    return ad.AnnData(blocks.map_blocks(form))


def with_zarr(counts, path: Path, form) -> ad.AnnData:
    """A matrix that stays in a zarr store: a sparse data set, or a zarr array."""
    import zarr

    group = zarr.open_group(str(path / "cells.zarr"), mode="w")
    ad.io.write_elem(group, "X", form(counts))
    stored = group["X"] if form is dense else ad.io.sparse_dataset(group["X"])
    return ad.AnnData(stored, obs=names(counts.shape[0]), var=names(counts.shape[1]))


def names(n: int) -> pd.DataFrame:
    return pd.DataFrame(index=[f"name {i}" for i in range(n)])


def dense(x):
    return x.toarray() if sp.issparse(x) else np.asarray(x)


FORMS = {
    "CSR": lambda counts, path: ad.AnnData(counts),
    "CSR array": lambda counts, path: ad.AnnData(sp.csr_array(counts)),
    "CSC": lambda counts, path: ad.AnnData(counts.tocsc()),
    "dense": lambda counts, path: ad.AnnData(counts.toarray()),
    "dense, Fortran order": lambda counts, path: ad.AnnData(np.asfortranarray(counts.toarray())),
    "dense, half precision": lambda counts, path: ad.AnnData(counts.toarray().astype(np.float16)),
    "integers": lambda counts, path: ad.AnnData(counts.astype(np.int64)),
    "view": lambda counts, path: ad.AnnData(sp.vstack([counts[:9], counts], format="csr"))[9:],
    "view of CSC": lambda counts, path: ad.AnnData(sp.vstack([counts[:9], counts], format="csc"))[9:],
    "view of dense": lambda counts, path: ad.AnnData(np.vstack([np.ones((9, N_VARS)), counts.toarray()]))[9:],
    "layer": lambda counts, path: ad.AnnData(np.ones(counts.shape), layers={"counts": counts}),
    "layer of a view": lambda counts, path: ad.AnnData(
        np.ones((N_CELLS + 9, N_VARS)), layers={"counts": sp.vstack([counts[:9], counts], format="csr")}
    )[9:],
    "backed CSR": lambda counts, path: on_disk(counts, path, sp.csr_matrix),
    "backed CSC": lambda counts, path: on_disk(counts, path, sp.csc_matrix),
    "backed dense": lambda counts, path: on_disk(counts, path, dense),
    "backed CSR view": lambda counts, path: backed_view(counts, path, sp.csr_matrix),
    "backed CSC view": lambda counts, path: backed_view(counts, path, sp.csc_matrix),
    "backed dense view": lambda counts, path: backed_view(counts, path, dense),
    "dask, CSR blocks": lambda counts, path: with_dask(counts, path, sp.csr_matrix),
    "dask, dense blocks": lambda counts, path: with_dask(counts, path, dense),
    "dask, view": lambda counts, path: with_dask(sp.vstack([counts[:9], counts]), path, sp.csr_matrix)[9:],
    "zarr CSR": lambda counts, path: with_zarr(counts, path, sp.csr_matrix),
    "zarr CSC": lambda counts, path: with_zarr(counts, path, sp.csc_matrix),
    "zarr dense": lambda counts, path: with_zarr(counts, path, dense),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_a_matrix_gives_the_same_rows(form, counts, tmp_path):
    adata = FORMS[form](counts, tmp_path)
    cells = Cells(adata, np.arange(N_VARS), layer="counts" if "layer" in form else None)
    assert len(cells) == N_CELLS
    for index in INDICES.values():
        rows = cells.rows(index)
        assert isinstance(rows, sp.csr_matrix)
        assert rows.shape == (len(index), N_VARS)
        assert np.array_equal(rows.toarray(), counts.toarray()[index])


@pytest.mark.parametrize(
    "form", ["CSR", "CSC", "dense", "backed CSR", "backed CSC", "backed dense", "zarr CSR", "dask, CSR blocks"]
)
@pytest.mark.parametrize(
    ("rows", "columns"),
    [
        (slice(5, 50, 2), np.array([7, 3, 20])),
        (np.array([9, 2, 40, 41]), slice(3, None)),
        (np.arange(N_CELLS) % 3 == 0, np.arange(N_VARS) % 2 == 0),
        (np.array([9, 2, 40, 41]), np.array([7, 3, 20])),
    ],
    ids=["slice, numbers", "numbers, slice", "masks", "numbers"],
)
def test_a_view_of_cells_and_genes_gives_its_own(form, rows, columns, counts, tmp_path):
    view = FORMS[form](counts, tmp_path)[rows, columns]
    expected = counts.toarray()[rows][:, columns]
    index = np.array([3, 0, 3, len(expected) - 1])
    read = Cells(view, np.arange(expected.shape[1])).rows(index)
    assert np.array_equal(read.toarray(), expected[index])
    # A view of the view, too.
    read = Cells(view[::-1][1:], np.arange(expected.shape[1])).rows(np.array([2, 0]))
    assert np.array_equal(read.toarray(), expected[::-1][1:][[2, 0]])


def test_columns_of_a_file_are_read_in_blocks(counts, tmp_path, monkeypatch):
    monkeypatch.setattr(_cells, "_COLUMN_BLOCK", 10)  # 25 columns: two whole blocks and a part
    cells = Cells(on_disk(counts, tmp_path, sp.csc_matrix), np.arange(N_VARS))
    assert np.array_equal(cells.rows(INDICES["shuffled"]).toarray(), counts.toarray()[INDICES["shuffled"]])


def test_tokens_come_with_their_cells_and_labels(counts):
    tokenizer, token_ids = Tokenizer(GeneVocab.from_genes(f"G{i}" for i in range(N_VARS))), np.arange(N_VARS)
    cells = Cells(ad.AnnData(counts), token_ids, batch_labels=np.arange(N_CELLS) % 3, labels=np.arange(N_CELLS) % 7)
    index = INDICES["repeated"]
    batch = cells.tokenize(index, tokenizer)
    plain = tokenizer(counts[index], token_ids)
    assert batch.gene_ids.tolist() == plain.gene_ids.tolist()
    assert batch.values.tolist() == plain.values.tolist()
    assert batch.cell_index.tolist() == index.tolist()
    assert batch.batch_labels.tolist() == (index % 3).tolist()
    assert batch.labels.tolist() == (index % 7).tolist()
    assert Cells(ad.AnnData(counts), token_ids).tokenize(index, tokenizer).labels is None


def test_the_values_of_all_measured_genes(counts):
    tokenizer = Tokenizer(GeneVocab.from_genes(f"G{i}" for i in range(N_VARS)), max_length=4)
    token_ids = np.arange(N_VARS)[::-1].copy()
    token_ids[:2], token_ids[2:5] = -1, 7  # two genes that the vocabulary lacks, and one that four variables carry
    cells = Cells(ad.AnnData(counts), token_ids)
    index = INDICES["repeated"]
    batch = cells.tokenize(index, tokenizer, levels=True)
    genes = sorted(set(token_ids.tolist()) - {-1})
    assert batch.measured.tolist() == genes
    dense = counts.toarray()[index]
    # All genes count, those beyond max_length too.
    expected = [[bool((row[token_ids == gene] > 0).any()) for gene in genes] for row in dense]
    assert (batch.levels > 0).tolist() == expected
    for cell, levels in zip(batch.split(1), batch.levels, strict=True):
        told = {int(gene): float(value) for gene, value in zip(batch.measured, levels, strict=True) if value > 0}
        values = dict(zip(cell.gene_ids[1:].tolist(), cell.values[1:].tolist(), strict=True))
        assert told == dict.fromkeys(told, np.inf) | values
    assert batch.levels.isinf().any()
    assert cells.tokenize(index, tokenizer).levels is None


def test_ties_are_spread_by_the_key_and_the_cell(counts):
    tokenizer = Tokenizer(GeneVocab.from_genes(f"G{i}" for i in range(N_VARS)), ties="spread")
    cells = Cells(ad.AnnData(counts), np.arange(N_VARS))
    together = cells.tokenize(np.arange(N_CELLS), tokenizer, key=4).split(1)
    alone = cells.tokenize(np.array([33]), tokenizer, key=4)
    assert alone.values.tolist() == together[33].values.tolist()
    assert alone.values.tolist() != cells.tokenize(np.array([33]), tokenizer, key=5).values.tolist()


@pytest.mark.parametrize("form", ["backed CSR", "backed CSC", "backed dense"])
@pytest.mark.parametrize(
    ("rows", "columns"),
    [(slice(None), slice(None)), (slice(None, None, 2), slice(None)), (slice(None, None, 2), slice(None, None, 3))],
    ids=["whole", "view of cells", "view of cells and genes"],
)
def test_a_file_is_not_loaded_whole(form, rows, columns, rng, tmp_path, monkeypatch):
    monkeypatch.setattr(_cells, "_COLUMN_BLOCK", 50)
    whole = sp.random(8_000, 1_000, 0.1, format="csr", dtype=np.float32, rng=rng)
    size = whole.shape[0] * whole.shape[1] * 4 if form == "backed dense" else whole.nnz * 8
    adata = FORMS[form](whole, tmp_path)
    if rows != slice(None):
        adata = adata[rows, columns]
    expected = whole[rows, columns]
    index = rng.permutation(expected.shape[0])[:64]
    tracemalloc.start()
    try:
        read = Cells(adata, np.arange(adata.n_vars)).rows(index)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert (read != expected[index]).nnz == 0
    assert peak < 0.25 * size


def test_a_dask_matrix_is_computed_where_it_is_asked_for(counts):
    dask_array = pytest.importorskip("dask.array")
    computed = []

    def block(x, block_info=None):
        computed.append(block_info[0]["chunk-location"][0])
        return sp.csr_matrix(x)

    lazy = dask_array.from_array(counts.toarray(), chunks=(10, N_VARS)).map_blocks(
        block, dtype=np.float32, meta=sp.csr_matrix((0, 0), dtype=np.float32)
    )
    Cells(ad.AnnData(lazy), np.arange(N_VARS)).rows(np.array([12, 15, 41]))
    assert sorted(computed) == [1, 4]


@pytest.mark.parametrize(("layer", "message"), [("raw", r"no layer 'raw'; there are \['counts'\] and \.X")])
def test_a_layer_that_is_not_there_is_an_error(layer, message, counts):
    with pytest.raises(KeyError, match=message):
        Cells(ad.AnnData(counts, layers={"counts": counts}), np.arange(N_VARS), layer=layer)


def test_data_without_a_matrix_says_which_layers_there_are(counts):
    adata = ad.AnnData(layers={"counts": counts})
    with pytest.raises(ValueError, match=r"adata\.X is empty; .*\['counts'\]"):
        Cells(adata, np.arange(N_VARS))
    assert np.array_equal(
        Cells(adata, np.arange(N_VARS), layer="counts").rows(np.arange(3)).toarray(), counts.toarray()[:3]
    )


def test_data_without_cells_are_refused(counts):
    with pytest.raises(ValueError, match="no cell"):
        Cells(ad.AnnData(counts)[:0], np.arange(N_VARS))


@pytest.mark.real
def test_a_real_file_gives_the_same_tokens_from_disk_and_memory(shared):
    path = shared / "data" / "kang_ifnb.h5ad"
    memory, disk = ad.read_h5ad(path), ad.read_h5ad(path, backed="r")
    tokenizer = Tokenizer(GeneVocab.from_genes(memory.var_names))
    index = np.random.default_rng(0).permutation(memory.n_obs)[:200]
    a, b = (Cells(x, np.arange(memory.n_vars)).tokenize(index, tokenizer) for x in (memory, disk))
    assert a.gene_ids.equal(b.gene_ids)
    assert a.values.equal(b.values)
    assert 0 < a.values[a.gene_ids != tokenizer.vocab.cls_id].min() <= a.values.max() <= 50
    disk.file.close()


def test_a_block_keeps_the_numbers_of_its_rows(counts):
    labels = np.arange(N_CELLS)
    cells = Cells(ad.AnnData(counts), np.arange(N_VARS), batch_labels=labels)
    vocab = GeneVocab([*map(str, range(N_VARS)), "<cls>"])
    index = np.arange(20, 30)
    for block in (counts[20:30], counts[20:30].tocsc(), counts[20:30].toarray()):
        given = cells.at_hand(block, 20)
        assert len(given) == N_CELLS
        assert np.array_equal(given.rows(index[3:]).toarray(), counts[23:30].toarray())
        batch = given.tokenize(index, Tokenizer(vocab))
        assert np.array_equal(batch.cell_index, index)
        assert np.array_equal(batch.batch_labels, index)
    assert np.array_equal(cells.rows(index).toarray(), counts[20:30].toarray())  # the others stay as they are
    with pytest.raises(ValueError, match=r"negative values.*rows \[22\]"):
        cells.at_hand(np.where(np.arange(10)[:, None] == 2, -1, counts[20:30].toarray()), 20).tokenize(
            index, Tokenizer(vocab)
        )


def test_a_digest_tells_genes_and_labels_apart_but_not_expression(counts):
    ids, labels = np.arange(N_VARS), np.zeros(N_CELLS, int)
    measured = np.ones((2, N_VARS), bool)
    conditions = Conditions(np.zeros((N_VARS, 0), int), np.zeros((N_CELLS, 1), int))
    others = Conditions(np.zeros((N_VARS, 0), int), np.ones((N_CELLS, 1), int))
    adata = ad.AnnData(counts)
    digests = [
        Cells(adata, ids).digest(),
        Cells(adata, ids[::-1]).digest(),
        Cells(adata, ids, batch_labels=labels).digest(),
        Cells(adata, ids, batch_labels=labels + 1).digest(),
        Cells(adata, ids, batch_labels=labels, measured=measured).digest(),
        Cells(adata, ids, batch_labels=labels, measured=~measured).digest(),
        Cells(adata, ids, conditions=conditions).digest(),
        Cells(adata, ids, conditions=others).digest(),
    ]
    assert len(set(digests)) == len(digests)
    assert Cells(ad.AnnData(counts * 2), ids).digest() == digests[0]


@pytest.mark.parametrize("form", FORMS)
def test_a_dask_matrix_is_known_and_no_other_is_loaded(form, counts, tmp_path):
    adata = FORMS[form](counts, tmp_path)
    matrix = dask_matrix(adata, "counts" if "layer" in form else None)
    assert (matrix is not None) == form.startswith("dask")
    if matrix is not None:
        assert np.array_equal(dense(matrix.compute()), counts.toarray())
    assert dask_matrix(adata, "no such layer") is None


@pytest.mark.parametrize("form", [sp.csr_matrix, sp.csc_matrix])
@pytest.mark.parametrize(("part", "at", "value"), [("indices", 3, 10**6), ("indices", 3, -1), ("indptr", 2, 10**6)])
def test_a_sparse_matrix_that_does_not_fit_itself_is_refused(counts, form, part, at, value):
    adata = ad.AnnData(form(counts))
    getattr(adata.X, part)[at] = value
    with pytest.raises(ValueError, match="sparse expression matrix is damaged.*read or build it anew"):
        Cells(adata, np.arange(N_VARS)).rows(np.arange(N_CELLS))
