import numpy as np
import pandas as pd
import pytest

from scgpt.data import as_categories, as_text, column_of, without_missing

CODES = [0, 1, 1, 0]
LETTERS = pd.Series(["a", "b", "b", "a"])
KINDS = {
    "object": (LETTERS.astype(object), "a"),
    "str": (LETTERS.astype("str"), "a"),
    "string in Python": (LETTERS.astype("string[python]"), "a"),
    "string in Arrow": (LETTERS.astype("string[pyarrow]"), "a"),
    "category": (LETTERS.astype("category"), "a"),
    "category with others": (pd.Series(pd.Categorical(LETTERS, categories=["z", "b", "a"])), "a"),
    "category of integers": (pd.Series(CODES).astype("category"), "0"),
    "integer": (pd.Series(CODES), "0"),
    "small integer": (pd.Series(CODES, dtype=np.uint8), "0"),
    "nullable integer": (pd.Series(CODES, dtype="Int64"), "0"),
    "integer in Arrow": (pd.Series(CODES, dtype="int64[pyarrow]"), "0"),
    "float": (pd.Series(CODES, dtype=float), "0"),
    "float with a point": (pd.Series(CODES) + 0.5, "0.5"),
    "bool": (pd.Series(CODES) > 0, "False"),
    "nullable bool": ((pd.Series(CODES) > 0).astype("boolean"), "False"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_groups_are_named_whatever_a_column_holds(kind):
    column, first = KINDS[kind]
    names = as_text(column, "group")
    assert names.dtype == object and all(type(name) is str for name in names)
    assert names[0] == names[3] == first
    assert names[1] == names[2] != first


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in ("integer", "small integer", "bool")])
def test_missing_values_stay_missing_and_are_counted(kind):
    column = KINDS[kind][0].copy()
    column.iloc[1] = None
    names = as_text(column, "group")
    assert names.isna().tolist() == [False, True, False, False]
    assert names.notna().sum() == 3 and type(names[0]) is str
    with pytest.raises(ValueError, match=r"^1 of 4 cells have no batch in \.obs\['group'\]; fill or drop them\.$"):
        without_missing(column, "group", "batch")


def test_values_that_read_the_same_are_refused():
    with pytest.raises(ValueError, match=r"\.obs\['group'\] read the same as text, \['1'\]; rename"):
        as_text(pd.Series([1, "1", "2"], dtype=object), "group")


def test_categories_keep_their_order():
    numbers = pd.Series([10, 2, 2])
    assert as_categories(numbers, "group").cat.categories.tolist() == ["2", "10"]
    chosen = pd.Series(pd.Categorical(["b", None], categories=["z", "b", "a"]))
    assert as_categories(chosen, "group").cat.categories.tolist() == ["z", "b", "a"]


@pytest.mark.parametrize("key", ["kind", None, 3, ["batch"], ("batch",)])
def test_a_column_that_is_not_there(key):
    obs = pd.DataFrame({"batch": [1], "3": [2]})
    with pytest.raises(KeyError, match=r"batch_key=.* is not a column of \.obs; there are \['batch', '3'\]"):
        column_of(obs, key, "batch_key")


def test_a_column_of_a_name_that_another_has():
    obs = pd.DataFrame([[1, 2]], columns=["batch", "batch"])
    with pytest.raises(ValueError, match="2 columns of reference.obs have the name batch_key='batch'"):
        column_of(obs, "batch", "batch_key", "reference.obs")
