import sys

import anndata
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from scgpt.cli import main
from scgpt.corpus import Corpus, _assemble, _census, _soma, census

# The presets and messages need no library; what reads an experiment does.


def test_presets_are_the_queries_of_the_authors():
    presets = _census.presets()
    organs = ["heart", "blood", "brain", "lung", "kidney", "intestine", "pancreas"]
    assert list(presets) == [*organs, "others", "pan-cancer"]
    for organ in organs:
        assert presets[organ] == f"suspension_type != 'na' and disease == 'normal' and tissue_general == '{organ}'"
        assert f"'{organ}'" in presets["others"]
    assert "'glioblastoma'" in presets["pan-cancer"]
    assert "normal" not in presets["pan-cancer"]


def test_duplicates_are_left_out_unless_asked_for():
    assert _census.value_filter_of("a == 'x' or b == 1", True) == "(a == 'x' or b == 1) and is_primary_data == True"
    assert _census.value_filter_of("blood", False) == _census.presets()["blood"]
    with pytest.raises(ValueError, match="There is no query 'blod'; there are heart, blood"):
        _census.value_filter_of("blod", True)


def test_without_the_extra_the_message_names_it(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "tiledbsoma", None)
    with pytest.raises(ImportError, match=r"pip install 'scgpt-tools\[census\]'"):
        census("blood", tmp_path / "c.zarr", uri="somewhere")
    assert main(["corpus", "census", "blood", "--uri", "somewhere", "--out", str(tmp_path / "c.zarr")]) == 1
    assert len(capsys.readouterr().err.strip().splitlines()) == 1


@pytest.fixture
def cells() -> anndata.AnnData:
    """90 cells as the census holds them; the third of each four is a copy of another collection's."""
    rng = np.random.default_rng(0)
    obs = pd.DataFrame(
        {
            "tissue_general": np.repeat(["blood", "lung", "eye"], 30),
            "disease": np.tile(["normal", "glioblastoma", "normal"], 30),
            "suspension_type": np.tile(["cell"] * 9 + ["na"], 9),
            "is_primary_data": np.arange(90) % 4 != 2,
            "dataset_id": np.tile(["d1", "d2"], 45),
        },
        index=[f"obs{i}" for i in range(90)],
    )
    var = pd.DataFrame({"feature_name": [f"G{i}" for i in range(40)]}, index=[f"ENSG{i:011d}" for i in range(40)])
    return anndata.AnnData(sp.csr_matrix(rng.poisson(rng.gamma(0.6, 2, (90, 40))).astype(np.float32)), obs=obs, var=var)


@pytest.fixture
def experiment(cells, tmp_path) -> str:
    """The cells as an experiment; tiledbsoma's own way from AnnData does not know that of today."""
    soma = pytest.importorskip(
        "tiledbsoma", reason="the extra census wants an older pandas than the tests: run them in one of its own"
    )
    import pyarrow as pa

    uri = str(tmp_path / "experiment")

    def add(parent, name, frame):
        table = pa.Table.from_pandas(frame.assign(soma_joinid=np.arange(len(frame))), preserve_index=False)
        with parent.add_new_dataframe(name, schema=table.schema, domain=[[0, len(frame) - 1]]) as written:
            written.write(table)

    with soma.Experiment.create(uri) as whole:
        add(whole, "obs", cells.obs)
        with whole.add_new_collection("ms") as ms, ms.add_new_collection("RNA", soma.Measurement) as rna:
            add(rna, "var", cells.var.reset_index(names="feature_id"))
            values = cells.X.tocoo()
            table = {"soma_dim_0": values.row.astype(np.int64), "soma_dim_1": values.col.astype(np.int64)}
            with rna.add_new_collection("X") as x:
                with x.add_new_sparse_ndarray("raw", type=pa.float32(), shape=cells.shape) as raw:
                    raw.write(pa.table(table | {"soma_data": values.data}))
    return uri


def check(corpus: Corpus, cells: anndata.AnnData, expected: np.ndarray, part: str = "train") -> None:
    first = corpus.first(part)
    obs = corpus.obs()[first : first + corpus.n_cells(part)]
    joinids = obs["cell"].astype(int).to_numpy()
    assert np.array_equal(np.sort(joinids), np.flatnonzero(expected))
    rows = sp.vstack([m[:] for m in corpus.matrices(part)]).toarray()
    columns = pd.Index(cells.var["feature_name"]).get_indexer(corpus.vocab.genes)
    assert np.array_equal(rows, cells.X.toarray()[joinids][:, columns])


@pytest.mark.parametrize("primary", [True, False])
@pytest.mark.parametrize("query", ["blood", "pan-cancer", "others", "tissue_general == 'lung'"])
def test_cells_of_a_query_are_in(cells, experiment, tmp_path, query, primary, monkeypatch):
    monkeypatch.setattr(_soma, "_PORTION", 5)
    monkeypatch.setattr(_census, "_CELLS_OF_SOURCE", 12)
    corpus = census(query, tmp_path / "c.zarr", uri=experiment, primary=primary, min_genes=1)
    obs = cells.obs
    expected = {
        "blood": (obs.tissue_general == "blood") & (obs.disease == "normal") & (obs.suspension_type != "na"),
        "pan-cancer": (obs.disease == "glioblastoma") & (obs.suspension_type != "na"),
        "others": (obs.tissue_general == "eye") & (obs.disease == "normal") & (obs.suspension_type != "na"),
        "tissue_general == 'lung'": obs.tissue_general == "lung",
    }[query]
    check(corpus, cells, (expected & (obs.is_primary_data | (not primary))).to_numpy())
    assert corpus.vocab.genes == tuple(sorted(cells.var["feature_name"]))
    assert ("is_primary_data == True" in corpus.manifest["query"]) == primary


def test_held_out_and_excluded_cells(cells, experiment, tmp_path):
    lung = (cells.obs.tissue_general == "lung") & cells.obs.is_primary_data
    corpus = census(
        "tissue_general == 'lung'",
        tmp_path / "c.zarr",
        uri=experiment,
        held_out="dataset_id == 'd2'",
        exclude=[32, 33, 36],
        min_genes=1,
    )
    left_out = np.isin(np.arange(90), [32, 33, 36])
    check(corpus, cells, (lung & (cells.obs.dataset_id == "d1") & ~left_out).to_numpy())
    check(corpus, cells, (lung & (cells.obs.dataset_id == "d2") & ~left_out).to_numpy(), "held_out")


def test_a_census_goes_on_where_it_was_ended(cells, experiment, tmp_path, monkeypatch):
    monkeypatch.setattr(_census, "_CELLS_OF_SOURCE", 12)
    stage, calls = _assemble.stage, []

    def ended(*args):
        if len(calls) == 1:
            calls.append("ended")
            raise KeyboardInterrupt
        calls.append(args[0].name)
        stage(*args)

    monkeypatch.setattr(_assemble, "stage", ended)
    arguments = {"uri": experiment, "primary": False, "min_genes": 1}
    with pytest.raises(KeyboardInterrupt):
        census("tissue_general == 'lung'", tmp_path / "c.zarr", **arguments)
    corpus = census("tissue_general == 'lung'", tmp_path / "c.zarr", **arguments)
    assert calls == ["cells 30 to 41, train", "ended", "cells 42 to 53, train", "cells 54 to 59, train"]
    check(corpus, cells, (cells.obs.tissue_general == "lung").to_numpy())


def test_the_command(cells, experiment, tmp_path, capsys):
    out = str(tmp_path / "c.zarr")
    common = ["--uri", experiment, "--out", out, "--min-genes", "1"]
    assert main(["corpus", "census", "tissue_general == 'lung'", "--no-primary", *common]) == 0
    assert "Corpus of 30 cells, 40 genes" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("tissue_general == 'leg'", "No cell of"),
        ("organ == 'lung'", "cannot be used"),
        ("disease ==", "cannot be used"),
    ],
)
def test_a_filter_that_lets_nothing_through_or_is_wrong_is_an_error(experiment, tmp_path, query, message):
    with pytest.raises(ValueError, match=message):
        census(query, tmp_path / "c.zarr", uri=experiment)
