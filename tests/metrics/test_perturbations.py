import warnings

import anndata as ad
import numpy as np
import pandas as pd
import pytest

from scgpt.metrics import perturbed_by
from scgpt.metrics._perturbations import PerturbationGroups, canonical_name, canonical_names


def cells(names, key="perturbation") -> ad.AnnData:
    return ad.AnnData(obs=pd.DataFrame({key: list(names)}, index=[f"c{i}" for i in range(len(names))]))


# Names


@pytest.mark.parametrize(
    ("name", "genes"),
    [
        ("A", ("A",)),
        ("B+A", ("A", "B")),
        ("A+B", ("A", "B")),
        ("C+A+B", ("A", "B", "C")),
        ("A+control", ("A",)),
        ("control+A", ("A",)),
        ("A + B", ("A", "B")),
        ("control", ()),
        ("control+control", ()),
        ("A-B_C.1", ("A-B_C.1",)),
    ],
)
def test_a_name_is_the_genes_in_it_whatever_their_order(name, genes):
    assert perturbed_by(name) == genes
    assert canonical_name(name, "control", "+") == ("+".join(genes) or "control")


def test_label_and_separator_can_be_others():
    assert perturbed_by("STAT1_IRF1", sep="_") == ("IRF1", "STAT1")
    assert perturbed_by("STAT1+ctrl", control="ctrl") == ("STAT1",)
    assert perturbed_by("non-targeting", control="non-targeting", sep="-") == ()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("A+A", "'A\\+A' names A twice"),
        ("B+A+B+A", "names A, B twice"),
        ("A+", "'A\\+' names nothing on one side of '\\+'"),
        ("", "names nothing"),
        ("A++B", "names nothing"),
    ],
)
def test_a_name_that_makes_no_sense_is_an_error(name, message):
    with pytest.raises(ValueError, match=message):
        perturbed_by(name)


def test_lists_of_names_are_canonical_and_hold_each_once():
    assert canonical_names(["B+A", "control"], "control", "+", "x") == ["A+B", "control"]
    assert canonical_names("B+A", "control", "+", "x") == ["A+B"]
    with pytest.raises(ValueError, match="Of the list, these are named twice: A\\+B"):
        canonical_names(["A", "B+A", "A+B"], "control", "+", "the list")
    with pytest.raises(ValueError, match="2 of 3 names of the list are no text"):
        canonical_names(["A", np.nan, None], "control", "+", "the list")


# Groups


def test_rows_of_all_names_of_a_perturbation_are_its_rows():
    groups = PerturbationGroups.of(
        cells(["ctrl", "B+A", "A+ctrl", "A+B", "A", "ctrl"]), "perturbation", control="ctrl", sep="+"
    )
    assert {name: rows.tolist() for name, rows in groups.rows.items()} == {"A": [2, 4], "A+B": [1, 3]}
    assert groups.names == ["A", "A+B"]
    assert groups.control_rows.tolist() == [0, 5]


@pytest.mark.parametrize("kind", [object, "category", "str"])
def test_columns_of_any_kind_are_read(kind):
    adata = cells(["b", "a", "control", "a"], key="guide")
    adata.obs["guide"] = adata.obs["guide"].astype(kind)
    groups = PerturbationGroups.of(adata[[0, 1, 2, 3]], "guide", "control", "+")
    assert {name: rows.tolist() for name, rows in groups.rows.items()} == {"a": [1, 3], "b": [0]}


def test_names_may_be_numbers_and_control_may_be_absent():
    groups = PerturbationGroups.of(cells([2, 1, 2]), "perturbation", "control", "+", needs_control=False)
    assert {name: rows.tolist() for name, rows in groups.rows.items()} == {"1": [1], "2": [0, 2]}
    assert len(groups.control_rows) == 0
    only = PerturbationGroups.of(cells(["control"]), "perturbation", "control", "+")
    assert (only.names, only.control_rows.tolist()) == ([], [0])


@pytest.mark.parametrize(
    ("names", "key", "error", "message"),
    [
        (["A", "control"], "guide", KeyError, "no column 'guide' in .obs for the perturbation"),
        (["A", None, np.nan], "perturbation", ValueError, "2 of 3 cells have no perturbation .* leave them out"),
        (["A", "ctrl"], "perturbation", ValueError, "none is 'control' in .obs\\['perturbation'\\], which has A, ctrl"),
        (["A+A", "control"], "perturbation", ValueError, "names A twice"),
    ],
)
def test_a_wrong_column_is_an_error_that_says_what(names, key, error, message):
    with pytest.raises(error, match=message):
        PerturbationGroups.of(cells(names), key, "control", "+")


def test_few_cells_are_warned_of_in_one_line():
    groups = PerturbationGroups.of(cells(["control"] + ["A"] * 5 + ["B"] * 4 + ["C"]), "perturbation", "control", "+")
    with pytest.warns(UserWarning, match="2 perturbations have fewer than 5 cells, .*: B \\(4\\), C \\(1\\)") as caught:
        groups.warn_of_few_cells(groups.names)
    assert len(caught) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        groups.warn_of_few_cells(["A"])
