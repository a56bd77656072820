import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from mudata import MuData

from scgpt.data import check_linked, name_modalities, obs_column, rows_of_modality


def modality(names: str, n_vars: int = 3, dense: bool = False, **obs) -> ad.AnnData:
    counts = np.arange(len(names) * n_vars, dtype=np.float32).reshape(len(names), n_vars)
    matrix = counts if dense else sp.csr_matrix(counts)
    return ad.AnnData(
        matrix, obs=pd.DataFrame(obs, index=list(names)), var=pd.DataFrame(index=[f"F{i}" for i in range(n_vars)])
    )


@pytest.fixture
def mosaic() -> MuData:
    return MuData({"rna": modality("abc", batch=["x", "y", "x"]), "prot": modality("dcb", 2, batch=["z", "x", "y"])})


def test_usual_names_are_known(mosaic):
    assert name_modalities(mosaic, None) == {"rna": "rna", "protein": "prot"}
    assert name_modalities(MuData({"GEX": modality("ab"), "Peaks": modality("ab")}), None) == {
        "rna": "GEX",
        "atac": "Peaks",
    }
    assert name_modalities(mosaic, {"protein": "rna"}) == {"protein": "rna"}


@pytest.mark.parametrize(
    ("names", "given", "error", "message"),
    [
        (("rna", "adt", "prot"), None, ValueError, "Several modalities may be of one kind"),
        (("x", "y"), None, ValueError, "say which is which"),
        (("rna", "y"), {"rna": "rna", "protein": "z"}, KeyError, "no modality 'z'"),
        (("rna", "y"), {"methylation": "y"}, ValueError, r"kinds \['methylation'\]"),
        (("rna", "y"), {"rna": "y", "protein": "y"}, ValueError, "cannot be of two kinds"),
    ],
)
def test_modalities_that_cannot_be_told(names, given, error, message):
    with pytest.raises(error, match=message):
        name_modalities(MuData({name: modality("ab") for name in names}), given)


def test_an_empty_modality_is_refused():
    with pytest.raises(ValueError, match="'protein' has 2 cells and 0 features: leave it out"):
        name_modalities(MuData({"rna": modality("ab"), "protein": modality("ab", 0)}), None)


@pytest.mark.parametrize("dense", [False, True])
def test_cells_that_a_modality_lacks(mosaic, dense):
    assert rows_of_modality(mosaic, "rna", None).tolist() == [0, 1, 2, -1]
    assert rows_of_modality(mosaic, "prot", None).tolist() == [-1, 2, 1, 0]
    values = modality("dcb", 2, dense=True).X
    values[1] = np.nan  # cell c
    mosaic["prot"].layers["padded"] = values if dense else sp.csr_matrix(values)
    assert rows_of_modality(mosaic, "prot", "padded").tolist() == [-1, 2, -1, 0]
    assert rows_of_modality(mosaic[["d", "b"]], "prot", "padded").tolist() == [0, 1]


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (np.nan, "NaN or infinite values, in cells .'c'. at first"),
        (np.inf, "infinite"),
        (-1.0, "negative values.*background"),
    ],
)
def test_values_that_cannot_be(mosaic, value, message):
    mosaic["prot"].X[1, 1] = value
    with pytest.raises(ValueError, match=message):
        rows_of_modality(mosaic, "prot", None)


def test_a_column_is_put_together_from_modalities(mosaic):
    assert obs_column(mosaic, "batch").to_dict() == {"a": "x", "b": "y", "c": "x", "d": "z"}
    mosaic["prot"].obs["batch"] = ["z", "x", "q"]
    with pytest.raises(ValueError, match=r"'prot' has other values of .obs\['batch'\].*1 cells, such as \['b'\]"):
        obs_column(mosaic, "batch")
    mosaic.obs["batch"] = list("pqrs")
    assert obs_column(mosaic, "batch").tolist() == list("pqrs")
    with pytest.raises(KeyError, match="'donor' is a column neither of mdata.obs"):
        obs_column(mosaic, "donor")


def test_groups_of_cells_must_be_linked():
    on = lambda *cells: np.isin(np.arange(6), cells)
    check_linked({"rna": on(0, 1)})
    check_linked({"atac": on(0, 1), "protein": on(2, 3), "rna": on(1, 2)})
    with pytest.raises(ValueError, match=r"both one of \['rna'\] and one of \['protein'\].*named alike"):
        check_linked({"rna": on(0, 1), "protein": on(2, 3)})
