"""The test cells that benchmarks/splits names, against the data sets."""

import json
from pathlib import Path

import numpy as np
import pytest

FOLDER = Path(__file__).parents[2] / "benchmarks" / "splits"
SPLITS = {path.stem: json.loads(path.read_text()) for path in FOLDER.glob("*.json")}
FIFTHS = sorted(name for name, split in SPLITS.items() if split["rule"].startswith("a fifth"))
LEFT_OUT = {  # column, values of the cells that stay for training
    "kang_ifnb": ("condition", {"control"}),
    "papalexi_thp1": ("perturbation_multi", {"non-targeting", "unassigned"}),
    "schraivogel_tapseq": ("perturbation_multi", {"non-targeting", "unassigned"}),
}
TWINS = [("kang_8donors", "kang_ifnb", 742), ("bmmc_cite_d2", "bmmc_cite_d5", 36)]

real = pytest.mark.real


def test_every_data_set_has_a_split(maker):
    assert set(SPLITS) == set(maker.RULES)


@real
def test_every_file_of_the_data_folder_has_a_split(data, shared):
    assert set(data.available(shared / "data")) == set(SPLITS)


@pytest.mark.parametrize("name", sorted(SPLITS))
def test_split_names_each_cell_once(name):
    split = SPLITS[name]
    assert split["data"] == name
    assert split["test_cells"] == sorted(set(split["test_cells"]))
    assert 0 < len(split["test_cells"]) == split["n_test"] < split["n_cells"]


@real
@pytest.mark.parametrize("name", sorted(SPLITS))
def test_test_and_training_cells_are_the_whole_data_set(data, load, name):
    cells = load(name)
    assert cells.obs_names.is_unique
    assert cells.n_obs == SPLITS[name]["n_cells"]
    mask = data.is_test(name, cells)
    test, train = set(cells.obs_names[mask]), set(cells.obs_names[~mask])
    assert test == set(data.test_cells(name))
    assert not test & train
    assert test | train == set(cells.obs_names)


@real
@pytest.mark.parametrize("name", FIFTHS)
def test_strata_give_a_fifth_of_their_cells(data, maker, load, name):
    cells = load(name)
    by = SPLITS[name]["stratified_by"]
    labels = maker.labels(cells)[by].assign(test=data.is_test(name, cells))
    assert not labels.isna().any(axis=None)
    for columns in (by, by[:1]):
        strata = labels.groupby(columns, observed=True)["test"].agg(["size", "sum"])
        assert ((strata["sum"] - strata["size"] / 5).abs() <= 1).all()
        assert (strata["sum"] >= 1)[strata["size"] >= 5].all()
    assert abs(labels["test"].sum() - len(labels) / 5) <= 1


@real
@pytest.mark.parametrize("name", sorted(LEFT_OUT))
def test_no_response_is_for_training(data, load, name):
    cells = load(name)
    column, training = LEFT_OUT[name]
    test = data.is_test(name, cells)
    assert set(cells.obs[column][~test]) == training
    assert not set(cells.obs[column][test]) & training


@real
@pytest.mark.parametrize(("one", "other", "n_twins"), TWINS)
def test_cells_of_two_data_sets_are_for_training_in_both(data, load, one, other, n_twins):
    a, b = (load(name)["rna"] if name.startswith("bmmc") else load(name) for name in (one, other))
    names_in_a = b.obs_names.str.removesuffix("-control")
    twins = a.obs_names.intersection(names_in_a)
    assert len(twins) == n_twins
    # they are the same cells, not the same barcode by chance
    rows = names_in_a.get_indexer(twins)
    genes = a.var_names.intersection(b.var_names)
    assert (a[twins, genes].X != b[rows, genes].X).nnz == 0
    assert not set(twins) & set(data.test_cells(one))
    assert not set(b.obs_names[rows]) & set(data.test_cells(other))


def test_demo_holds_out_the_cells_of_its_split(data, script):
    cells = data.load("pbmc68k_reduced")
    train, test = script("demo").split(cells)
    assert sorted(cells.obs_names[test]) == list(data.test_cells("pbmc68k_reduced"))
    mask = data.is_test("pbmc68k_reduced", cells)
    assert mask[test].all()
    assert not mask[train].any()


def test_mask_follows_the_order_of_the_cells(data):
    cells = data.load("pbmc68k_reduced")
    order = np.random.default_rng(0).permutation(cells.n_obs)
    mask = data.is_test("pbmc68k_reduced", cells)
    assert (data.is_test("pbmc68k_reduced", cells[order]) == mask[order]).all()


def test_other_cells_are_refused(data):
    cells = data.load("pbmc68k_reduced")
    with pytest.raises(ValueError, match="not the cells that the split of 'pbmc68k_reduced' was made for"):
        data.is_test("pbmc68k_reduced", cells[:-1])
    renamed = cells.copy()
    renamed.obs_names = [f"{name}-new" for name in cells.obs_names]
    with pytest.raises(ValueError, match="filtered or renamed"):
        data.is_test("pbmc68k_reduced", renamed)


def test_unknown_names_are_named(data, tmp_path):
    with pytest.raises(ValueError, match=r"'nothing' has no split.* pbmc_facs"):
        data.test_cells("nothing")
    with pytest.raises(FileNotFoundError, match=r"'pbmc_facs' in .*At hand: pbmc68k_reduced"):
        data.load("pbmc_facs", tmp_path)
