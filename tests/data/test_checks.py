import anndata as ad
import numpy as np
import pytest

from scgpt.data import check_anndata, check_mudata
from scgpt.data._checks import NEGATIVE, NOT_FINITE, raise_for_values


def test_no_flag_is_no_error():
    raise_for_values(np.zeros(3, np.uint8), np.arange(3))


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([0, NOT_FINITE, 0, NOT_FINITE], r"NaN or infinite values.*layer=.*rows \[11, 13\]"),
        ([NEGATIVE, 0, 0, 0], r"negative values, as scaled data.*layer=.*adata\.raw.*rows \[10\]"),
        ([NEGATIVE, NEGATIVE | NOT_FINITE, 0, 0], r"NaN or infinite values.*rows \[11\]"),
    ],
)
def test_the_error_says_what_is_wrong_where_and_what_to_do(flags, message):
    with pytest.raises(ValueError, match=message):
        raise_for_values(np.array(flags, np.uint8), np.arange(10, 14))


def test_at_most_five_rows_are_named():
    with pytest.raises(ValueError, match=r"rows \[0, 1, 2, 3, 4\]\."):
        raise_for_values(np.full(9, NEGATIVE, np.uint8), np.arange(9))


@pytest.mark.parametrize(
    ("check", "data", "message"),
    [
        (check_mudata, "x.h5mu", "Expected a MuData, not str: read the file with mudata.read"),
        (check_mudata, ad.AnnData(np.ones((1, 1))), "bring modalities together by mudata.MuData"),
        (check_mudata, 1, "Expected a MuData, not int.$"),
        (check_anndata, "x.h5ad", "Expected an AnnData, not str: read the file with anndata.read_h5ad"),
    ],
)
def test_what_is_no_data_set_of_that_kind(check, data, message):
    with pytest.raises(TypeError, match=message):
        check(data)
