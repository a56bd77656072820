import warnings

import pandas as pd
import pytest

from scgpt._messages import listed
from scgpt.data import GeneVocab, match_genes


def test_warnings_point_at_the_line_outside_the_package():
    var = pd.DataFrame({"symbol": ["A", "A", "B"]})
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        match_genes(var, GeneVocab.from_genes(["A", "B"]), gene_key="symbol")
    assert [warning.filename for warning in caught] == [__file__]
    with pytest.warns(UserWarning, match="carried by several variables"):
        match_genes(var, GeneVocab.from_genes(["A", "B"]))


@pytest.mark.parametrize(("n", "expected"), [(0, ""), (2, "a, b"), (3, "a, b, c"), (5, "a, b, c and 2 more")])
def test_of_many_names_the_first_are_listed(n, expected):
    assert listed(tuple("abcde"[:n]), most=3) == expected
