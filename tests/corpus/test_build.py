import errno
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import annbatch
import anndata
import mudata
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from scgpt.corpus import Corpus, _assemble, _sources, build
from scgpt.data import GeneVocab


def expression(corpus: Corpus) -> dict[tuple[str, str], dict[str, float]]:
    """What each cell, by its file and name, expresses."""
    rows = sp.vstack([m[:] for part in ("train", "held_out") for m in corpus.matrices(part)]).tocsr()
    found = {}
    for i, (file, cell) in enumerate(corpus.obs()[["file", "cell"]].itertuples(index=False)):
        row = rows[i]
        found[file, cell] = {corpus.vocab.genes[j]: v for j, v in zip(row.indices, row.data.tolist(), strict=True)}
    assert len(found) == rows.shape[0]
    return found


def in_files(files: list[Path]) -> dict[tuple[str, str], dict[str, float]]:
    found = {}
    for path in files:
        adata = anndata.read_h5ad(path)
        for name, row in zip(adata.obs_names, adata.X.toarray().tolist(), strict=True):
            found[path.name, name] = {gene: v for gene, v in zip(adata.var_names, row, strict=True) if v > 0}
    return found


def entry(corpus: Corpus, name: str) -> dict:
    return next(file for file in corpus.manifest["files"] if file["name"] == name)


def content(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


# What is in it


@pytest.mark.parametrize("per_dataset", [1000, 45])
def test_every_cell_is_in_with_its_values(files, tmp_path, per_dataset, monkeypatch):
    monkeypatch.setattr(_sources, "_PORTION", 400)
    corpus = build(files, tmp_path / "c.zarr", min_genes=1, cells_per_dataset=per_dataset)
    assert expression(corpus) == in_files(files)
    assert corpus.n_cells() == 120
    assert len(corpus.manifest["datasets"]) == (1 if per_dataset == 1000 else 3)
    assert corpus.vocab.genes == tuple(sorted(f"G{i}" for i in range(40)))
    assert not (tmp_path / ".c.zarr.build").exists()


def test_cells_of_all_files_are_mixed_by_the_seed(files, tmp_path):
    one, same, other = (
        build(files, tmp_path / f"{i}.zarr", min_genes=1, seed=seed) for i, seed in enumerate([0, 0, 1])
    )
    assert content(one.path) == content(same.path)
    assert not one.obs().equals(other.obs())
    assert expression(one) == expression(other)
    assert one.obs()["file"][:40].nunique() == 3
    place = one.obs()["cell"].str[4:].astype(int).to_numpy()
    assert abs(np.corrcoef(place, np.arange(120))[0, 1]) < 0.3


def test_genes_are_matched_to_a_vocabulary(write, tmp_path):
    vocab = GeneVocab.from_genes(["A", "B", "C", "D"])
    vocab.save(tmp_path / "vocab.json")
    ids = write("a.h5ad", genes=["ENSG00000000001.3", "ENSG00000000002.1", "ENSG00000000009"], seed=1)
    symbols = write("b.h5ad", genes=["C", "B", "other"], seed=2)
    table = {"ENSG00000000001": "A", "ENSG00000000002": "B"}
    corpus = build([ids, symbols], tmp_path / "c.zarr", vocab=tmp_path / "vocab.json", gene_mapping=table, min_genes=1)
    assert corpus.vocab == vocab
    assert (entry(corpus, "a.h5ad")["genes_matched"], entry(corpus, "a.h5ad")["genes_unmatched"]) == (2, 1)
    assert corpus.measured().tolist() == [[True, True, False, False], [False, True, True, False]]
    for (file, _), genes in expression(corpus).items():
        assert set(genes) <= ({"A", "B"} if file == "a.h5ad" else {"B", "C"})


@pytest.mark.parametrize(
    ("name", "as_stored"),
    [("a.zarr", sp.csr_matrix), ("a.h5ad", sp.csc_matrix), ("a.h5ad", np.asarray), ("a.zarr", np.asarray)],
)
def test_matrices_may_be_stored_in_any_way(write, tmp_path, name, as_stored, monkeypatch):
    monkeypatch.setattr(_sources, "_PORTION", 300)
    plain = build([write("plain.h5ad")], tmp_path / "plain.zarr.corpus.zarr", min_genes=1)
    other = build([write(name, as_stored=as_stored)], tmp_path / "other.zarr", min_genes=1)
    assert {c: v for (_, c), v in expression(plain).items()} == {c: v for (_, c), v in expression(other).items()}


def test_of_several_modalities_the_rna_is_taken(files, tmp_path):
    adata = anndata.read_h5ad(files[0])
    protein = anndata.AnnData(np.ones((50, 2), np.float32), obs=adata.obs, var=pd.DataFrame(index=["p", "q"]))
    mudata.MuData({"rna": adata, "protein": protein}).write_h5mu(tmp_path / "a.h5mu")
    corpus = build([tmp_path / "a.h5mu"], tmp_path / "c.zarr", min_genes=1)
    assert {c: v for (_, c), v in expression(corpus).items()} == {c: v for (_, c), v in in_files(files[:1]).items()}


def test_another_layer(write, tmp_path):
    adata = anndata.read_h5ad(write("a.h5ad"))
    adata.layers["counts"], adata.X = adata.X, -adata.X
    adata.write_h5ad(tmp_path / "b.h5ad")
    corpus = build([tmp_path / "b.h5ad"], tmp_path / "c.zarr", layer="counts", min_genes=1)
    assert corpus.n_cells() == 30
    with pytest.raises(ValueError, match=r"b\.h5ad has no layer 'raw'; there are \['counts'\]"):
        build([tmp_path / "b.h5ad"], tmp_path / "d.zarr", layer="raw")


def test_counts_are_kept_small_and_other_values_as_they_are(write, tmp_path):
    whole = build([write("a.h5ad")], tmp_path / "a.zarr", min_genes=1)
    assert whole.matrices()[0].dtype == np.uint16
    matrix = np.log1p(np.array([[0, 1, 2, 3], [7, 6, 5, 4], [9, 8, 11, 10]], np.float32))
    logged = build([write("b.h5ad", genes=list("ABCD"), matrix=matrix)], tmp_path / "b.zarr", min_genes=1)
    assert logged.matrices()[0].dtype == np.float32
    assert (
        sorted(v for cell in expression(logged).values() for v in cell.values()) == np.sort(matrix.ravel())[1:].tolist()
    )


def test_annbatch_reads_it_by_itself(files, tmp_path):
    build(files, tmp_path / "c.zarr", min_genes=1)
    loader = annbatch.Loader(batch_size=10, chunk_size=20, preload_nchunks=2)
    loader.use_collection(annbatch.DatasetCollection(tmp_path / "c.zarr", mode="r"))
    assert sum(batch["X"].shape[0] for batch in loader) == 120


# What is left out


def test_cells_with_too_few_genes_are_counted(files, tmp_path):
    corpus = build(files, tmp_path / "c.zarr", min_genes=17)
    expected = {k: v for k, v in in_files(files).items() if len(v) >= 17}
    assert 0 < len(expected) < 120
    assert expression(corpus) == expected
    for file in corpus.manifest["files"]:
        assert file["kept"] + file["dropped"]["too few genes"] == file["cells"]


def test_cells_to_exclude_never_enter_not_even_from_another_file(files, write, tmp_path):
    a = anndata.read_h5ad(files[0])
    copy = anndata.AnnData(np.log1p(a.X.toarray())[:, ::-1].copy(), var=a.var[::-1])
    copy.obs_names = [f"renamed{i}" for i in range(50)]
    copy.write_h5ad(tmp_path / "copy.h5ad")
    # The copy comes first, and would keep its cells if only names counted.
    corpus = build(
        [tmp_path / "copy.h5ad", *files], tmp_path / "c.zarr", exclude={"a": ["cell3", "cell7"]}, min_genes=1
    )
    cells = set(expression(corpus))
    assert not cells & {("a.h5ad", "cell3"), ("a.h5ad", "cell7"), ("copy.h5ad", "renamed3"), ("copy.h5ad", "renamed7")}
    assert entry(corpus, "copy.h5ad")["dropped"] == {"same as an excluded cell": 2}
    assert entry(corpus, "a.h5ad")["dropped"] == {"excluded": 2, "same as another cell": 48}


@pytest.mark.parametrize(
    ("exclude", "message"),
    [
        ({"a": ["cell3", "cel4"]}, "a.h5ad has no cells cel4, which are to be excluded"),
        ({"d": ["cell3"]}, "exclude names 'd', which is no file of the corpus"),
    ],
)
def test_what_cannot_be_excluded_is_an_error(files, tmp_path, exclude, message):
    with pytest.raises(ValueError, match=message):
        build(files, tmp_path / "c.zarr", exclude=exclude, on_error="skip")
    assert not (tmp_path / "c.zarr").exists()


def test_a_file_with_the_content_of_another_is_skipped_and_its_exclusions_hold(files, tmp_path):
    (tmp_path / "copy.h5ad").write_bytes(files[0].read_bytes())
    corpus = build([files[0], tmp_path / "copy.h5ad"], tmp_path / "c.zarr", exclude={"copy": ["cell3"]}, min_genes=1)
    assert entry(corpus, "copy.h5ad")["skipped"] == "same content as a.h5ad"
    assert entry(corpus, "copy.h5ad")["sha256"] == entry(corpus, "a.h5ad")["sha256"]
    assert set(expression(corpus)) == set(in_files(files[:1])) - {("a.h5ad", "cell3")}
    assert corpus.files == ["a.h5ad"]


def test_held_out_files_are_a_part_of_their_own(files, write, tmp_path):
    a = anndata.read_h5ad(files[0])
    a[:5].write_h5ad(tmp_path / "held.h5ad")
    corpus = build(files[:2], tmp_path / "c.zarr", held_out=[files[2], tmp_path / "held.h5ad"], min_genes=1)
    obs = corpus.obs()
    n_train = corpus.n_cells("train")
    assert corpus.first("held_out") == n_train == 85  # five cells are in a held-out file, too
    assert set(obs["file"][:n_train]) == {"a.h5ad", "b.h5ad"}
    assert set(obs["file"][n_train:]) == {"c.h5ad", "held.h5ad"}
    assert [corpus.files[i] for i in corpus.file_of_cell("held_out")] == obs["file"][n_train:].tolist()
    assert "35 of them held out" in repr(corpus)


# Bad files


@pytest.fixture
def truncated(files, tmp_path) -> Path:
    path = tmp_path / "truncated.h5ad"
    path.write_bytes(files[0].read_bytes()[:-3000])
    return path


@pytest.fixture
def out_of_range(files, tmp_path) -> Path:
    """A file that opens and whose matrix has a column that is not there."""
    import h5py

    path = tmp_path / "range.h5ad"
    path.write_bytes(files[1].read_bytes())
    with h5py.File(path, "a") as file:
        file["X/indices"][7] = 4000
    return path


@pytest.fixture
def text(tmp_path) -> Path:
    path = tmp_path / "text.h5ad"
    path.write_text("no cells")
    return path


@pytest.fixture
def scaled(write) -> Path:
    return write("scaled.h5ad", matrix=np.random.default_rng(0).standard_normal((20, 40)).astype(np.float32))


@pytest.fixture
def mice(write) -> Path:
    return write("mice.h5ad", genes=["Cd3d", "Cd79a"])


BAD = {
    "truncated": r"truncated\.h5ad cannot be read",
    "out_of_range": r"range\.h5ad cannot be read",
    "text": r"text\.h5ad cannot be read",
    "scaled": r"scaled\.h5ad: The expression matrix holds negative values",
    "mice": r"mice\.h5ad",
}


@pytest.mark.parametrize("kind", BAD)
@pytest.mark.parametrize("given", [False, True], ids=["union", "vocab"])
def test_a_bad_file_stops_the_build_or_is_skipped_as_asked(files, tmp_path, request, kind, given):
    bad = request.getfixturevalue(kind)
    settings = {"vocab": GeneVocab.from_genes([f"G{i}" for i in range(40)]) if given else None, "min_genes": 1}
    with pytest.raises(ValueError, match=BAD[kind]) as error:
        build([bad, *files], tmp_path / "c.zarr", **settings)
    assert not (tmp_path / "c.zarr").exists()
    corpus = build([bad, *files], tmp_path / "c.zarr", on_error="skip", **settings)
    assert entry(corpus, bad.name)["skipped"] == str(error.value)
    assert expression(corpus) == in_files(files)


def test_no_gene_in_the_vocabulary_names_the_file_and_its_genes(mice, tmp_path):
    with pytest.raises(ValueError, match=r"mice\.h5ad: None of the 2 genes is in the vocabulary.*Cd3d"):
        build([mice], tmp_path / "c.zarr", vocab=GeneVocab.from_genes(["CD3D", "CD79A"]))
    with pytest.raises(ValueError, match=r"No file is left.*mice\.h5ad"):
        build([mice], tmp_path / "c.zarr", vocab=GeneVocab.from_genes(["CD3D"]), on_error="skip")


def test_no_cell_left_says_why(files, tmp_path):
    with pytest.raises(ValueError, match="No cell to train on is left: 120 too few genes"):
        build(files, tmp_path / "c.zarr", min_genes=41)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"min_genes": 0}, "min_genes must be at least 1, not 0"),
        ({"seed": -1}, "seed must be at least 0"),
        ({"on_error": "ignore"}, "on_error must be 'raise' or 'skip'"),
        ({"held_out": ["a.h5ad"]}, "named twice"),
    ],
)
def test_settings_out_of_range_are_refused(files, tmp_path, settings, message, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=message):
        build(["a.h5ad"], "c.zarr", **settings)


def test_a_file_that_is_not_there_is_an_error_also_where_bad_ones_are_skipped(files, tmp_path):
    with pytest.raises(FileNotFoundError, match="no.h5ad"):
        build([*files, tmp_path / "no.h5ad"], tmp_path / "c.zarr", on_error="skip")


# Interruptions


def full(*args, **kwargs):
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("where", ["_stage.profiles_of", "_assemble.write_dataset", "_assemble.finish_collection"])
def test_a_full_disk_is_one_clear_error_and_the_next_run_goes_on(files, tmp_path, where, monkeypatch):
    expected = build(files, tmp_path / "expected.zarr", min_genes=1)
    with monkeypatch.context() as patch:
        patch.setattr(f"scgpt.corpus.{where}", full)
        with pytest.raises(OSError, match=r"The disk that holds .*c\.zarr is full. Make room and run the same again"):
            build(files, tmp_path / "c.zarr", min_genes=1)
    assert not (tmp_path / "c.zarr").exists()
    corpus = build(files, tmp_path / "c.zarr", min_genes=1)
    assert content(corpus.path) == content(expected.path)


KILLED = """
import os, signal, sys
from pathlib import Path
from scgpt.corpus import _assemble, _stage, build

name, times, folder = sys.argv[1], int(sys.argv[2]), Path(sys.argv[3])
module = _stage if name == "profiles_of" else _assemble
function = getattr(module, name)
calls = 0

def killed(*args, **kwargs):
    global calls
    calls += 1
    if calls == times:
        os.kill(os.getpid(), signal.SIGKILL)
    return function(*args, **kwargs)

setattr(module, name, killed)
build([folder / f"{n}.h5ad" for n in "abc"], folder / "c.zarr", min_genes=1, cells_per_dataset=45)
"""


@pytest.mark.parametrize(("name", "times", "staged", "written"), [("profiles_of", 3, 1, 3), ("write_dataset", 3, 0, 1)])
def test_a_killed_build_goes_on_and_ends_in_the_same_bytes(files, tmp_path, name, times, staged, written, monkeypatch):
    expected = build(files, tmp_path / "expected.zarr", min_genes=1, cells_per_dataset=45)
    command = [sys.executable, "-c", KILLED, name, str(times), str(tmp_path)]
    environment = os.environ | {"PYTHONPATH": str(Path(_assemble.__file__).parents[2])}
    assert subprocess.run(command, env=environment, capture_output=True).returncode == -signal.SIGKILL
    assert not (tmp_path / "c.zarr").exists()
    calls = {"stage": 0, "write_dataset": 0}
    for counted in calls:
        function = getattr(_assemble, counted)

        def count(*args, function=function, counted=counted, **kwargs):
            calls[counted] += 1
            return function(*args, **kwargs)

        monkeypatch.setattr(_assemble, counted, count)
    corpus = build(files, tmp_path / "c.zarr", min_genes=1, cells_per_dataset=45)
    assert calls == {"stage": staged, "write_dataset": written}
    assert content(corpus.path) == content(expected.path)
    assert {p.name for p in tmp_path.iterdir()} == {"a.h5ad", "b.h5ad", "c.h5ad", "c.zarr", "expected.zarr"}


def test_what_was_made_from_other_files_or_settings_is_not_used(files, write, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(_assemble, "finish_collection", full)
        with pytest.raises(OSError, match="full"):
            build(files, tmp_path / "c.zarr", min_genes=1, cells_per_dataset=45)
    write("b.h5ad", 20, seed=9)
    corpus = build(files, tmp_path / "c.zarr", min_genes=2, seed=3, cells_per_dataset=1000)
    assert expression(corpus) == {k: v for k, v in in_files(files).items() if len(v) >= 2}
    assert content(corpus.path) == content(
        build(files, tmp_path / "d.zarr", min_genes=2, seed=3, cells_per_dataset=1000).path
    )


def test_a_corpus_is_replaced_on_request_alone(files, tmp_path):
    build(files[:1], tmp_path / "c.zarr", min_genes=1)
    with pytest.raises(FileExistsError, match="overwrite=True"):
        build(files, tmp_path / "c.zarr", min_genes=1)
    assert build(files, tmp_path / "c.zarr", min_genes=1, overwrite=True).n_cells() == 120
    (tmp_path / "other").mkdir()
    with pytest.raises(FileExistsError, match="is no corpus"):
        build(files, tmp_path / "other", overwrite=True)


# Reading


def test_what_is_no_corpus_is_refused(files, tmp_path):
    with pytest.raises(FileNotFoundError, match="There is no corpus"):
        Corpus(tmp_path / "none.zarr")
    with pytest.raises(ValueError, match="is no corpus; make one by `scgpt corpus build`"):
        Corpus(tmp_path)
    corpus = build(files, tmp_path / "c.zarr", min_genes=1)
    (corpus.path / "manifest.json").write_text(json.dumps(corpus.manifest | {"format": 99}))
    with pytest.raises(ValueError, match="has format 99, and this version reads 1"):
        Corpus(corpus.path)


@pytest.mark.real
def test_test_cells_of_the_benchmarks_stay_out(shared, tmp_path):
    splits = Path(__file__).parents[2] / "benchmarks" / "splits"
    names = ["pbmc_facs.h5ad", "sc_mixology.h5ad", "bmmc_cite_d2.h5mu"]
    test = {name: json.loads((splits / f"{Path(name).stem}.json").read_text())["test_cells"] for name in names}
    corpus = build([shared / "data" / name for name in names], tmp_path / "c.zarr", exclude=test)
    for file, cells in corpus.obs().groupby("file", observed=True)["cell"]:
        assert not set(cells) & set(test[file])
        assert entry(corpus, file)["kept"] == len(cells)
        assert entry(corpus, file)["dropped"]["excluded"] == len(test[file])


def test_a_corpus_that_lacks_a_part_is_refused(files, tmp_path):
    corpus = build(files, tmp_path / "corpus.zarr", min_genes=1)
    vocab = (corpus.path / "vocab.json").read_text()
    (corpus.path / "vocab.json").write_text(vocab.replace('"G0"', '"X0"'))
    with pytest.raises(ValueError, match=r"is damaged: vocab\.json is not what was written\. Copy it again"):
        _ = Corpus(corpus.path).vocab
    part = next(path for path in corpus.path.glob("dataset_0/X/data/c/*") if path.is_file())
    part.unlink()  # zarr would read zeros
    with pytest.raises(ValueError, match="is damaged: parts of the expression matrix are missing"):
        Corpus(corpus.path).matrices()
    manifest = json.loads((corpus.path / "manifest.json").read_text())
    manifest["datasets"][0].pop("cells")
    (corpus.path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ValueError, match=r"is damaged: manifest\.json does not list its files and datasets"):
        Corpus(corpus.path)
