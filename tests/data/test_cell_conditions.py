import numpy as np
import pandas as pd
import pytest

from scgpt.data import CellConditions


def obs(**columns) -> pd.DataFrame:
    return pd.DataFrame(columns, index=[f"cell{i}" for i in range(4)])


def test_categories_of_all_columns_are_numbered_in_turn():
    table = obs(drug=["ifn", None, "none", "ifn"], dose=[0.1, 1.0, 1.0, np.nan])
    conditions = CellConditions.read(["drug", "dose"], table)
    assert len(conditions) == 4
    assert conditions.codes(table, first=11).tolist() == [[11, 13], [0, 14], [12, 14], [11, 0]]
    assert CellConditions.read("dose", table).codes(table, 1).tolist() == [[1], [2], [2], [0]]


@pytest.mark.parametrize(
    "values",
    [
        pytest.param(pd.Categorical(["b", "a", None, "b"], categories=["c", "b", "a"]), id="categorical"),
        pytest.param(pd.array(["b", "a", None, "b"], dtype="string"), id="string"),
        pytest.param([7, 3, np.nan, 7], id="float"),
        pytest.param(pd.array([7, 3, None, 7], dtype="Int64"), id="Int64"),
        pytest.param(pd.Categorical([7, 3, None, 7]), id="categorical of integers"),
        pytest.param(pd.array([True, False, None, True], dtype="boolean"), id="boolean"),
    ],
)
def test_kinds_of_columns(values):
    table = obs(key=values)
    conditions = CellConditions.read("key", table)
    again = CellConditions.from_dict(conditions.to_dict())
    codes = conditions.codes(table, 1)
    assert len(conditions) == 2  # categories that no cell has are none
    assert sorted(set(codes[[0, 1]].ravel().tolist())) == [1, 2]
    assert codes[2] == 0
    assert codes[3] == codes[0]
    reversed_ = conditions.codes(table[::-1], 1)
    assert np.array_equal(reversed_[::-1], codes)
    assert np.array_equal(again.codes(table, 1), codes)


def test_whole_numbers_are_the_same_with_and_without_missing_ones():
    conditions = CellConditions.read("k", obs(k=[1, 2, np.nan, 2]))
    assert conditions.codes(obs(k=[2, 2, 1, 1]), 1).ravel().tolist() == [2, 2, 1, 1]


def test_a_column_given_twice_counts_once():
    assert len(CellConditions.read(["k", "k"], obs(k=list("abab")))) == 2


def test_wrong_columns():
    with pytest.raises(KeyError, match=r"cell_conditions='drug' is not a column of \.obs; there are \['k'\]"):
        CellConditions.read(["k", "drug"], obs(k=list("abab")))
    with pytest.raises(ValueError, match=r"No cell has a condition in \.obs\['k'\]"):
        CellConditions.read("k", obs(k=[None] * 4))
    conditions = CellConditions.read("k", obs(k=list("abab")))
    with pytest.raises(KeyError, match=r"\.obs\['k'\] must name"):
        conditions.codes(obs(), 1)
    with pytest.raises(ValueError, match=r"\.obs\['k'\] has conditions that .* not trained on: c, d\. It knows a, b\."):
        conditions.codes(obs(k=list("adcc")), 1)
