"""The maker of the splits: same files on each run, nothing overwritten."""

import json

import numpy as np
import pandas as pd
import pytest


@pytest.fixture
def run(maker, monkeypatch, tmp_path, capsys):
    """Run the maker on one small data set and return its exit status and what it said."""
    # The data set inside scanpy is always at hand.
    rules = {"toy": maker.Fifth(("cell_type", "batch")), "pbmc68k_reduced": maker.AsInDemo("bulk_labels")}
    monkeypatch.setattr(maker, "RULES", rules)
    (tmp_path / "data").mkdir()

    def run(adata):
        adata.write_h5ad(tmp_path / "data" / "toy.h5ad")
        command = ["_make_splits.py", str(tmp_path / "data"), "--out", str(tmp_path / "splits")]
        monkeypatch.setattr("sys.argv", command)
        status = maker.main()
        return status, "".join(capsys.readouterr())

    return run


@pytest.mark.real
def test_second_run_gives_the_same_files(data, maker, shared, tmp_path):
    for name in maker.RULES:
        assert maker.write(maker.make(name, shared / "data"), tmp_path) == "written"
        assert (tmp_path / f"{name}.json").read_bytes() == (data.SPLITS / f"{name}.json").read_bytes()


def test_split_of_the_cells_inside_scanpy_is_made_again(data, maker):
    assert maker.make("pbmc68k_reduced", data.FOLDER) == data.read_split("pbmc68k_reduced")


def test_split_is_written_once(run, counts, tmp_path):
    status, said = run(counts)
    assert status == 0
    assert "24 of    120 cells  written" in said
    file = tmp_path / "splits" / "toy.json"
    first = file.read_bytes()
    assert set(json.loads(first)["test_cells"]) <= set(counts.obs_names)
    status, said = run(counts[::-1])
    assert status == 0
    assert "unchanged" in said
    assert file.read_bytes() == first


def test_other_cells_are_refused(run, counts, tmp_path):
    run(counts)
    first = (tmp_path / "splits" / "toy.json").read_bytes()
    status, said = run(counts[:-1])
    assert status == 1
    assert "toy.json is there already and differs (the data hold other cells)" in said
    assert (tmp_path / "splits" / "toy.json").read_bytes() == first


def test_another_draw_is_refused(run, counts, maker, monkeypatch, tmp_path):
    run(counts)
    first = (tmp_path / "splits" / "toy.json").read_bytes()
    monkeypatch.setattr(maker, "SEED", 1)
    status, said = run(counts)
    assert status == 1
    assert "(same cells)" in said
    assert (tmp_path / "splits" / "toy.json").read_bytes() == first


def test_data_set_without_a_rule_is_an_error(run, counts, tmp_path):
    (tmp_path / "data" / "new.h5ad").touch()
    status, said = run(counts)
    assert status == 1
    assert "new has no rule in _make_splits.py" in said


def test_names_must_identify_cells(run, counts):
    counts.obs_names = ["cell"] * counts.n_obs
    with pytest.warns(UserWarning, match="Observation names are not unique"):
        status, said = run(counts)
    assert status == 1
    assert "share a name" in said


def test_small_strata_are_pooled(maker):
    sizes = [1, 2, 3, 1, 4, 12, 1, 1, 5, 6, 2, 2, 40]
    strata = pd.DataFrame({"type": np.repeat(np.arange(len(sizes)), sizes)})
    strata.index = [f"cell{i}" for i in range(len(strata))]
    drawn = maker.draw_fifth(strata)
    assert drawn.is_unique
    assert len(drawn) == len(strata) / 5
    numbers = strata.loc[drawn, "type"].value_counts().reindex(range(len(sizes)), fill_value=0)
    assert ((numbers - np.array(sizes) / 5).abs() < 1).all()
    assert (numbers[np.array(sizes) >= 5] >= 1).all()


def test_draw_knows_neither_order_of_rows_nor_other_strata(maker):
    strata = pd.DataFrame({"type": np.repeat(["a", "b"], 50)}, index=[f"cell{i}" for i in range(100)])
    drawn = maker.draw_fifth(strata)
    assert set(drawn) == set(maker.draw_fifth(strata[::-1]))
    assert set(drawn[:10]) == set(maker.draw_fifth(strata[:50]))
    kept = set(strata.index[::3])
    others = maker.draw_fifth(strata, kept)
    assert len(others) == 20
    assert not kept & set(others)
