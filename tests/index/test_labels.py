import pandas as pd
import pytest

from scgpt.index._labels import Labels


def of(values, **kwargs):
    return Labels.of_column(pd.Series(values, **kwargs), "type", "the reference")


def test_categories_keep_order_and_those_without_a_cell():
    labels = of(pd.Categorical(["T", "B"], categories=["T", "NK", "B"]))
    assert (labels.codes.tolist(), labels.categories) == ([0, 2], ("T", "NK", "B"))


def test_other_values_are_sorted_and_become_text():
    assert of([10, 9, 10]).categories == ("9", "10")
    assert of(["b", "a"]).codes.tolist() == [1, 0]


def test_columns_are_joined_by_name():
    joined = Labels.joined([of(["B", "T"]), of(["NK", "T"])])
    assert joined.categories == ("B", "T", "NK")
    assert joined.codes.tolist() == [0, 1, 2, 1]


def test_cells_without_a_label_are_counted():
    with pytest.raises(ValueError, match=r"2 of 3 cells have no label in .obs\['type'\] of the reference"):
        of(["B", None, None])


def test_labels_that_read_the_same_are_refused():
    with pytest.raises(ValueError, match="read the same"):
        of([1, "1"], dtype=object)
