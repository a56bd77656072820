import warnings

import pandas as pd
import pytest

from scgpt.data import GeneVocab, match_genes


def test_warnings_point_at_the_line_outside_the_package():
    var = pd.DataFrame({"symbol": ["A", "A", "B"]})
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        match_genes(var, GeneVocab.from_genes(["A", "B"]), gene_key="symbol")
    assert [warning.filename for warning in caught] == [__file__]
    with pytest.warns(UserWarning, match="carried by several variables"):
        match_genes(var, GeneVocab.from_genes(["A", "B"]))
