import json

import anndata
import h5py
import numpy as np
import pandas as pd
import pytest

from scgpt import ReferenceIndex
from scgpt.index import _compressed, _reference

LABELS = ["type", "donor"]


def cosines_of(queries, vectors):
    return (queries / np.linalg.norm(queries, axis=1, keepdims=True)) @ (
        vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    ).T


def recall(found, truth):
    return (
        np.mean([len(np.intersect1d(a, b)) for a, b in zip(found.rows, truth.rows, strict=True)]) / found.rows.shape[1]
    )


def same(one, other):
    return np.array_equal(one.rows, other.rows) and np.array_equal(one.similarities, other.similarities)


@pytest.fixture(params=["exact", "compressed"])
def exact(request) -> bool:
    return request.param == "exact"


# Neighbours


def test_exact_search_is_numpys(embedded):
    cells, query = embedded(700), embedded(50, seed=1)
    found = ReferenceIndex.from_anndata(cells).query(query, 7)
    cosines = cosines_of(query.obsm["X_scGPT"], cells.obsm["X_scGPT"])
    order = np.argsort(-cosines, axis=1)[:, :7]
    assert np.array_equal(found.rows, order)
    assert np.allclose(found.similarities, np.take_along_axis(cosines, order, axis=1), atol=1e-6)
    assert (found.rows.dtype, found.similarities.dtype) == (np.int64, np.float32)


def test_a_compressed_index_finds_nearly_the_same(embedded):
    cells, query = embedded(4000), embedded(200, seed=1)
    exact = ReferenceIndex.from_anndata(cells).query(query)
    index = ReferenceIndex.from_anndata(cells, exact=False)
    found = index.query(query)
    assert recall(found, exact) > 0.95
    assert (np.diff(found.similarities, axis=1) <= 0).all()
    true = np.take_along_axis(cosines_of(query.obsm["X_scGPT"], cells.obsm["X_scGPT"]), found.rows, axis=1)
    assert np.abs(found.similarities - true).max() < 0.002
    assert not index.is_exact
    assert index.nbytes == 4000 * (32 + 8 + 16) + (63 + 32) * 32 * 4  # codes, numbers, fine codes; centres, rotation


def test_more_probes_find_more(embedded):
    cells, query = embedded(4000), embedded(200, seed=1)
    exact = ReferenceIndex.from_anndata(cells).query(query)
    index = ReferenceIndex.from_anndata(cells, exact=False)
    few, many = (recall(index.query(query, n_probes=n), exact) for n in (2, 1000))
    assert few < 0.9 < 0.95 < many


def test_all_cells_are_found_if_asked_for(embedded, exact):
    index = ReferenceIndex.from_anndata(embedded(300), exact=exact)
    found = index.query(embedded(5, seed=1), k=300, n_probes=1)
    assert (np.sort(found.rows, axis=1) == np.arange(300)).all()


def test_of_equal_cells_the_first_comes_first():
    vectors = np.tile(np.eye(3, dtype=np.float32), (4, 1))
    found = ReferenceIndex.from_embeddings(vectors).query(vectors[:1], k=4)
    assert found.rows.tolist() == [[0, 3, 6, 9]]


def test_small_references_are_exact_and_large_ones_not(embedded, monkeypatch):
    monkeypatch.setattr(_reference, "_EXACT_UP_TO", 200)
    assert ReferenceIndex.from_anndata(embedded(200)).is_exact
    assert not ReferenceIndex.from_anndata(embedded(201)).is_exact


def test_a_seed_gives_the_same_index(embedded):
    cells, query = embedded(1000), embedded(50, seed=1)
    one, other = (ReferenceIndex.from_anndata(cells, exact=False, seed=3).query(query, n_probes=2) for _ in range(2))
    assert same(one, other)


# Labels


def test_labels_of_neighbours_are_those_of_the_cells(embedded, exact):
    cells, query = embedded(500), embedded(60, seed=1)
    index = ReferenceIndex.from_anndata(cells, labels=LABELS, exact=exact)
    assert index.labels == ("type", "donor")
    assert index.categories("type") == ("B", "NK", "T", "monocyte")
    assert np.array_equal(index.codes("type"), cells.obs["type"].cat.codes)
    found = index.query(query, k=1)
    votes = index.vote(found, "type")
    assert votes.labels.tolist() == cells.obs["type"].to_numpy()[found.rows[:, 0]].tolist()
    assert (votes.confidence == 1).all()
    assert np.mean(index.vote(index.query(query), "type").labels == query.obs["type"].to_numpy()) > 0.95


def test_an_unknown_column_is_named(embedded):
    with pytest.raises(KeyError, match="no column 'celltype'"):
        ReferenceIndex.from_anndata(embedded(20), labels=["celltype"])
    index = ReferenceIndex.from_anndata(embedded(20), labels="type")
    with pytest.raises(KeyError, match=r"no labels 'donor', only \['type'\]"):
        index.vote(index.query(embedded(1)), "donor")


# Added, and read from files


def test_adding_is_building_at_once(embedded, exact):
    one, two, query = embedded(900), embedded(600, seed=1), embedded(80, seed=2)
    index = ReferenceIndex.from_anndata(one, labels=LABELS, exact=exact)
    index.add(two)
    both = anndata.concat([one, two], uns_merge="same")
    at_once = ReferenceIndex.from_anndata(both, labels=LABELS, exact=exact)
    assert len(index) == len(at_once) == 1500
    found, expected = index.query(query), at_once.query(query)
    assert same(found, expected) if exact else recall(found, expected) > 0.95
    for name in LABELS:
        names = [np.array(i.categories(name))[i.codes(name)].tolist() for i in (index, at_once)]
        assert names[0] == names[1] == both.obs[name].tolist()


def test_an_index_that_grows_large_is_compressed(embedded, monkeypatch):
    monkeypatch.setattr(_reference, "_EXACT_UP_TO", 1000)
    one, two, query = embedded(900), embedded(600, seed=1), embedded(80, seed=2)
    index = ReferenceIndex.from_anndata(one)
    index.add(two)
    assert not index.is_exact
    assert same(index.query(query), ReferenceIndex.from_anndata(anndata.concat([one, two])).query(query))


def test_cells_unlike_all_others_get_lists_of_their_own(embedded):
    one, strange = embedded(3000), embedded(3000, seed=1, first_type=9)
    query = embedded(100, seed=2, first_type=9)
    index = ReferenceIndex.from_anndata(one, exact=False)
    index.add(strange)
    found = index.query(query, n_probes=8)
    at_once = ReferenceIndex.from_anndata(anndata.concat([one, strange]), exact=False).query(query, n_probes=8)
    truth = ReferenceIndex.from_anndata(anndata.concat([one, strange])).query(query)
    assert recall(found, truth) > recall(at_once, truth) - 0.03


def test_files_are_one_data_set(embedded, exact, tmp_path, monkeypatch):
    monkeypatch.setattr("scgpt.index._vectors.PORTION", 128)
    parts = [embedded(300), embedded(10, seed=1), embedded(450, seed=2)]
    paths = [tmp_path / f"{i}.h5ad" for i in range(3)]
    for part, path in zip(parts, paths, strict=True):
        part.write_h5ad(path)
    index = ReferenceIndex.from_files(paths, labels=LABELS, exact=exact)
    whole = ReferenceIndex.from_anndata(anndata.concat(parts), labels=LABELS, exact=exact)
    query = embedded(40, seed=3)
    assert same(index.query(query), whole.query(query))
    assert all(np.array_equal(index.codes(name), whole.codes(name)) for name in LABELS)
    assert index.settings["model_sha256"] == "bb" * 32


def test_files_that_do_not_go_together_are_refused(embedded, tmp_path):
    paths = [tmp_path / name for name in ("a.h5ad", "b.h5ad")]
    embedded(10).write_h5ad(paths[0])
    with pytest.raises(FileNotFoundError, match=r"b\.h5ad"):
        ReferenceIndex.from_files(paths)
    embedded(10, made={"model_sha256": "cc" * 32}).write_h5ad(paths[1])
    with pytest.raises(ValueError, match=r"embedding of b\.h5ad is by another model"):
        ReferenceIndex.from_files(paths)
    embedded(10, n_dims=8).write_h5ad(paths[1])
    with pytest.raises(ValueError, match=r"b\.h5ad has 8 dimensions, that of a\.h5ad 32"):
        ReferenceIndex.from_files(paths)
    with pytest.raises(KeyError, match=r"no \.obsm\['X_pca'\] in a\.h5ad"):
        ReferenceIndex.from_files(paths, use_rep="X_pca")
    paths[1].write_bytes(b"no file of cells")
    with pytest.raises(ValueError, match="not an h5ad file"):
        ReferenceIndex.from_files(paths)
    with h5py.File(paths[1], "w") as file:
        file["X"] = np.zeros(3)
    with pytest.raises(ValueError, match="lacks obs or obsm"):
        ReferenceIndex.from_files(paths)
    with pytest.raises(TypeError, match="list of files"):
        ReferenceIndex.from_files(paths[0])
    with pytest.raises(ValueError, match="no files"):
        ReferenceIndex.from_files([])


# What is refused


def test_two_models_are_refused(embedded):
    index = ReferenceIndex.from_anndata(embedded(20), labels=["type"])
    other = embedded(5, made={"model_sha256": "cc" * 32, "checkpoint": "folder/two"})
    with pytest.raises(
        ValueError, match=r"of the query is by another model \(two, hash cccc.* of the reference \(one, hash bbbb"
    ):
        index.query(other)
    with pytest.raises(ValueError, match="cells to add is by another model"):
        index.add(other)
    with pytest.raises(ValueError, match="by another model"):
        index.query(embedded(5, made={"checkpoint_sha256": "cc" * 32}))
    index.query(embedded(5, made=None))  # nothing is known of it
    index.query(embedded(5, made={"model_sha256": "bb" * 32, "checkpoint_sha256": ""}))


@pytest.mark.parametrize("value", [0.0, np.nan, np.inf])
def test_embeddings_without_direction_are_refused(embedded, value, exact):
    cells = embedded(20)
    index = ReferenceIndex.from_anndata(cells, exact=exact)
    cells.obsm["X_scGPT"][7] = value
    with pytest.raises(ValueError, match=r"1 embeddings are zero, NaN or infinite, such as rows \[7\]"):
        ReferenceIndex.from_anndata(cells, exact=exact)
    with pytest.raises(ValueError, match="zero, NaN or infinite"):
        index.query(cells, k=2)


def test_cells_to_add_are_checked(embedded):
    index = ReferenceIndex.from_anndata(embedded(20), labels="type")
    with pytest.raises(KeyError, match=r"no column 'type' in \.obs of the cells to add"):
        index.add(anndata.AnnData(obsm={"X_scGPT": np.ones((2, 32))}, shape=(2, 0)))
    with pytest.raises(KeyError, match=r"no \.obsm\['X_scGPT'\] in the cells to add"):
        index.add(anndata.AnnData(np.ones((2, 3))))
    for make in (index.add, ReferenceIndex.from_anndata):
        with pytest.raises(TypeError, match="Expected an AnnData, not str; of files, from_files makes an index"):
            make("cells.h5ad")
    assert len(index) == 20


def test_what_cannot_be_asked(embedded):
    index = ReferenceIndex.from_anndata(embedded(20))
    with pytest.raises(ValueError, match="k=21: it must be at least 1 and at most 20"):
        index.query(embedded(3), k=21)
    with pytest.raises(ValueError, match="k must be a whole number of at least 1, not 0"):
        index.query(embedded(3), k=0)
    with pytest.raises(ValueError, match="n_probes must be a whole number of at least 1, not 0"):
        index.query(embedded(3), n_probes=0)
    with pytest.raises(ValueError, match="have 8 dimensions and the reference 32"):
        index.query(embedded(3, n_dims=8))
    with pytest.raises(ValueError, match="numeric matrix"):
        index.query(np.ones(32))
    with pytest.raises(KeyError, match=r"no \.obsm\['X_pca'\]"):
        index.query(embedded(3), use_rep="X_pca")
    with pytest.raises(ValueError, match="no cells"):
        ReferenceIndex.from_anndata(embedded(5)[:0].copy())
    with pytest.raises(ValueError, match="2 embeddings and 1 rows"):
        ReferenceIndex.from_embeddings(np.eye(2), pd.DataFrame({"a": ["x"]}))
    assert index.query(np.empty((0, 32))).rows.shape == (0, 10)


# Saved and loaded


@pytest.fixture
def saved(embedded, exact, tmp_path):
    ReferenceIndex.from_anndata(embedded(400), labels=LABELS, exact=exact).save(tmp_path / "index")
    return tmp_path / "index"


def test_a_loaded_index_answers_the_same(embedded, exact, tmp_path):
    index = ReferenceIndex.from_anndata(embedded(400), labels=LABELS, exact=exact)
    index.save(tmp_path / "deep" / "index")
    loaded = ReferenceIndex.load(tmp_path / "deep" / "index", verify=True)
    query = embedded(50, seed=1)
    assert same(index.query(query), loaded.query(query))
    assert isinstance(loaded.codes("type"), np.memmap)
    assert repr(loaded) == repr(index)
    assert (loaded.settings, loaded.use_rep) == (index.settings, index.use_rep)
    votes = [i.vote(i.query(query), "type", weights="distance") for i in (index, loaded)]
    assert votes[0].labels.tolist() == votes[1].labels.tolist()
    assert np.array_equal(votes[0].probabilities, votes[1].probabilities)
    assert not [p for p in (tmp_path / "deep").iterdir() if p.name != "index"]


def test_a_loaded_index_grows_and_is_saved_in_its_place(embedded, exact, saved):
    loaded, old = ReferenceIndex.load(saved), ReferenceIndex.load(saved)
    loaded.add(embedded(300, seed=1))
    query = embedded(50, seed=2)
    before = old.query(query)
    found = loaded.query(query)
    assert len(ReferenceIndex.load(saved)) == 400
    with pytest.raises(FileExistsError, match="overwrite=True"):
        loaded.save(saved)
    loaded.save(saved, overwrite=True)
    again = ReferenceIndex.load(saved)
    assert len(again) == 700
    assert same(again.query(query), found)
    assert same(loaded.query(query), found)
    assert same(old.query(query), before)  # of files that are gone
    again.save(saved, overwrite=True)  # while its files are in use
    assert same(again.query(query), found)
    assert same(ReferenceIndex.load(saved).query(query), found)


def test_nothing_is_pickled(saved):
    names = {path.name for path in saved.iterdir()}
    assert {"index.json", "labels_0.npy", "labels_1.npy"} < names
    for path in saved.glob("*.npy"):
        np.load(path, allow_pickle=False)


def test_a_folder_of_other_things_is_not_replaced(embedded, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(FileExistsError, match=r"holds other things than an index, such as notes\.txt"):
        ReferenceIndex.from_anndata(embedded(20)).save(tmp_path, overwrite=True)
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_a_failed_save_leaves_the_old_index(embedded, saved, monkeypatch, exact):
    index = ReferenceIndex.from_anndata(embedded(30), labels=["type"])

    def fail(*args, **kwargs):
        raise OSError("disk full")

    monkeypatch.setattr(_reference.np, "save", fail)
    with pytest.raises(OSError, match="disk full"):
        index.save(saved, overwrite=True)
    monkeypatch.undo()
    assert len(ReferenceIndex.load(saved, verify=True)) == 400
    assert [path.name for path in saved.parent.iterdir()] == ["index"]


def vectors_of(folder):
    return next(folder.glob("vectors.*"))


def test_damage_is_found(saved):
    path = vectors_of(saved)
    whole = path.read_bytes()
    path.write_bytes(whole[:-100])
    with pytest.raises(ValueError, match=rf"damaged: {path.name} has {len(whole) - 100} bytes instead of {len(whole)}"):
        ReferenceIndex.load(saved)
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(ValueError, match=f"damaged: {path.name} is not what was written"):
        ReferenceIndex.load(saved, verify=True)
    path.write_bytes(bytes(len(whole)))
    with pytest.raises(ValueError, match="damaged"):
        ReferenceIndex.load(saved)
    path.unlink()
    with pytest.raises(FileNotFoundError, match=f"lacks {path.name}"):
        ReferenceIndex.load(saved)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": 2}, "has format 2, and this version reads 1"),
        ({"kind": "something"}, "is no reference index"),
        ({"n_dims": 16}, "400 of 32 dimensions, not 400 of 16"),
        ({"n_obs": 401}, "400 of 32 dimensions, not 401 of 32"),
        ({"vectors": "vectors.pkl"}, "damaged"),
        ({"files": None}, "lists no files"),
        ({"files": {"../index.json": {}}}, "lacks"),
        ({"labels": [{"name": "type", "categories": ["B"], "file": "labels_0.npy"}]}, "labels 'type' do not fit"),
        ({"labels": [{"name": "type"}]}, "damaged"),
    ],
)
def test_a_manifest_that_does_not_fit_is_refused(saved, change, message):
    manifest = json.loads((saved / "index.json").read_text())
    (saved / "index.json").write_text(json.dumps(manifest | change))
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        ReferenceIndex.load(saved)


def relisted(folder):
    """Make the manifest of an index say the sizes that its files have."""
    manifest = json.loads((folder / "index.json").read_text())
    for name, file in manifest["files"].items():
        file["bytes"] = (folder / name).stat().st_size
    (folder / "index.json").write_text(json.dumps(manifest))


@pytest.mark.parametrize(
    ("name", "rows", "message"),
    [("rotation.npy", 3, "its rotation is of shape"), ("fine.npy", 7, "its fine codes are of shape")],
)
def test_parts_of_a_compressed_index_that_do_not_fit_are_damage(embedded, tmp_path, name, rows, message):
    ReferenceIndex.from_anndata(embedded(40), exact=False).save(tmp_path / "index")
    path = tmp_path / "index" / name
    np.save(path, np.load(path)[:rows])
    relisted(tmp_path / "index")
    with pytest.raises(ValueError, match=f"is damaged: {message}"):
        ReferenceIndex.load(tmp_path / "index")


def test_an_index_of_faiss_of_another_kind_is_damage(embedded, tmp_path):
    import faiss

    ReferenceIndex.from_anndata(embedded(40), exact=False).save(tmp_path / "index")
    faiss.write_index(faiss.IndexFlatIP(32), str(vectors_of(tmp_path / "index")))
    relisted(tmp_path / "index")
    with pytest.raises(ValueError, match="is damaged: it holds a IndexFlatIP"):
        ReferenceIndex.load(tmp_path / "index")


def test_other_folders_are_no_index(tmp_path):
    with pytest.raises(FileNotFoundError, match="no folder"):
        ReferenceIndex.load(tmp_path / "nothing")
    with pytest.raises(ValueError, match=r"no reference index: it lacks index\.json"):
        ReferenceIndex.load(tmp_path)
    (tmp_path / "index.json").write_text("{")
    with pytest.raises(ValueError, match="not valid JSON"):
        ReferenceIndex.load(tmp_path)


def test_few_cells_can_be_compressed(embedded, capfd):
    index = ReferenceIndex.from_anndata(embedded(3), exact=False)
    assert index.query(embedded(2, seed=1), k=3).rows.shape == (2, 3)
    assert "WARNING" not in "".join(capfd.readouterr())


def test_vectors_are_sampled_alike_in_any_portions(rng):
    vectors = rng.standard_normal((500, 4)).astype(np.float32)
    whole = _compressed._sample([vectors], 500, 3, 0)
    assert np.array_equal(whole, _compressed._sample(np.array_split(vectors, 7), 500, 3, 0))
    assert whole.shape == (192, 4)
