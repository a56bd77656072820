import anndata
import numpy as np
import pytest

import scgpt


@pytest.fixture
def cells() -> anndata.AnnData:
    influence = np.array(
        [
            [[0.5, 0.9, 0.2, np.nan], [0.1, 0.5, 0.6, 0.4], [0.7, 0.3, 0.5, 0.8], [np.nan, 0.2, 0.1, 0.5]],
            [[0.5, 0.1, 0.2, np.nan], [0.9, 0.5, 0.6, 0.4], [0.8, 0.3, 0.5, 0.8], [np.nan, 0.2, 0.1, 0.5]],
            np.full((4, 4), 0.5),
        ],
        dtype=np.float32,
    )
    adata = anndata.AnnData(np.zeros((2, 4), np.float32))
    adata.uns["scgpt_attention"] = {
        "genes": np.array(["G1", "G2", "G3", "G4"], dtype=object),
        "groups": np.array(["ctrl", "stim", "other"], dtype=object),
        "n_cells": np.array([3, 4, 5]),
        "control": "ctrl",
        "influence": influence,
        "n_both": np.where(np.isnan(influence), 0, np.array([3, 4, 5])[:, None, None]),
    }
    return adata


def targets(*args, **kwargs):
    table = scgpt.get.attention_targets(*args, **({"min_cells": 1} | kwargs))
    return list(zip(table["target"], table["rank"], [round(float(x), 2) for x in table["score"]], strict=True))


def test_targets_in_each_mode(cells):
    assert targets(cells, "G1", group="stim", mode="control") == [("G3", 1, 0.7), ("G2", 2, 0.1)]
    assert targets(cells, "G1", group="stim", mode="perturbed") == [("G2", 1, 0.9), ("G3", 2, 0.8)]
    assert targets(cells, "G1", group="stim", mode="difference") == [("G2", 1, 0.8), ("G3", 2, 0.1)]
    assert targets(cells, "G2", group="stim", n_targets=1) == [("G1", 1, -0.8)]  # what falls counts, too
    table = scgpt.get.attention_targets(cells, ["G1", "G3"], group="stim", min_cells=1)
    assert list(table.columns) == ["regulator", "group", "mode", "target", "rank", "score"]
    assert list(table["regulator"].unique()) == ["G1", "G3"]
    assert set(table["mode"]) == {"difference"}


def test_a_matrix_of_regulators_by_targets(cells):
    matrix = scgpt.get.attention_matrix(cells, group="stim", mode="perturbed", min_cells=1)
    assert (matrix.index.name, matrix.columns.name) == ("regulator", "target")
    assert matrix.loc["G1", "G2"] == np.float32(0.9)
    assert np.isnan(matrix.loc["G1", "G4"])
    change = scgpt.get.attention_matrix(cells, group="stim", min_cells=1)
    assert change.loc["G2", "G1"] == pytest.approx(-0.8, abs=1e-6)


def test_one_group_without_control_needs_no_name(cells):
    cells.uns["scgpt_attention"] |= {
        "control": "",
        "groups": np.array(["all"], dtype=object),
        "influence": cells.uns["scgpt_attention"]["influence"][:1],
        "n_both": cells.uns["scgpt_attention"]["n_both"][:1],
    }
    assert targets(cells, "G1", n_targets=1) == [("G3", 1, 0.7)]
    with pytest.raises(ValueError, match=r"mode='difference' needs a control"):
        targets(cells, "G1", mode="difference")


def test_bad_input(cells):
    with pytest.raises(KeyError, match="'g1' is not among the 4 genes whose attention was read; did you mean 'G1'"):
        targets(cells, "g1", group="stim")
    with pytest.raises(KeyError, match="pass it to scgpt.tl.attention_network as one of regulators="):
        targets(cells, "STAT1", group="stim")
    with pytest.raises(ValueError, match=r"Name the group of cells by group=, one of \['stim', 'other'\]"):
        targets(cells, "G1")
    with pytest.raises(KeyError, match="There is no group 'no'"):
        targets(cells, "G1", group="no")
    with pytest.raises(ValueError, match="mode must be"):
        targets(cells, "G1", group="stim", mode="up")
    with pytest.raises(ValueError, match="n_targets must be a whole number of at least 1"):
        targets(cells, "G1", group="stim", n_targets=0)
    with pytest.raises(KeyError, match="call scgpt.tl.attention_network first"):
        scgpt.get.attention_matrix(cells, key="other")


def test_pairs_that_few_cells_have_are_missing(cells):
    cells.uns["scgpt_attention"]["n_both"][1, 1, 0] = 2
    assert targets(cells, "G1", group="stim", mode="perturbed", min_cells=3) == [("G3", 1, 0.8)]
    assert targets(cells, "G1", group="stim", min_cells=3)[0][0] == "G2"  # enough cells of the control have it
    assert targets(cells, "G1", group="stim", min_cells=5) == []


def test_in_a_difference_cells_without_a_gene_count_as_chance(cells):
    found = cells.uns["scgpt_attention"]
    found["n_both"][1, 1, 0] = 1  # G2 and G1 in one of four stimulated cells: 0.5 + 0.4 / 4
    expected = 0.4 / 4 - (0.1 - 0.5)
    assert scgpt.get.attention_matrix(cells, group="stim", min_cells=1).loc["G1", "G2"] == pytest.approx(expected)
    found["n_both"][0, 1, 0], found["influence"][0, 1, 0] = 0, np.nan  # in no cell of the control
    assert scgpt.get.attention_matrix(cells, group="stim", min_cells=1).loc["G1", "G2"] == pytest.approx(0.4 / 4)
