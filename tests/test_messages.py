import builtins
import logging
import warnings

import pandas as pd
import pytest

from scgpt import _messages
from scgpt._messages import inform, listed
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


@pytest.mark.parametrize("in_notebook", [True, False])
def test_messages_stand_among_the_outputs_of_a_notebook_and_else_on_stderr(in_notebook, monkeypatch, capsys):
    logger = logging.Logger("apart")  # one that nothing was set for, as the package's is at first
    monkeypatch.setattr(_messages, "logger", logger)
    monkeypatch.setattr(builtins, "__IPYTHON__", in_notebook, raising=False)
    inform("Learning 2 types.")
    shown = capsys.readouterr()
    assert (shown.out, shown.err) == (("Learning 2 types.\n", "") if in_notebook else ("", "Learning 2 types.\n"))
