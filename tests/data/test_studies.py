from collections.abc import Callable
from dataclasses import replace

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from scgpt.data import MEASURED, Cells, GeneVocab, Study, Tokenizer, check_measured, join_studies, measured_by

A = np.array([[1, 2, 0, 5], [0, 0, 3, 7], [4, 0, 0, 0]], np.float32)
B = np.array([[6, 0, 1], [0, 8, 2]], np.float32)


def study(matrix, genes, batches) -> Study:
    adata = matrix if isinstance(matrix, ad.AnnData) else ad.AnnData(sp.csr_matrix(matrix))
    return Study(adata, genes, pd.Series(batches))


@pytest.fixture
def studies() -> dict[str, Study]:
    """Two studies that share genes Y and Z; X is measured in one alone, W in the other."""
    return {
        "a": study(A, ["Z", "X", "", "Y"], ["a:1", "a:1", "a:2"]),
        "b": study(B, ["W", "Y", "Z"], ["b", "b"]),
    }


@pytest.fixture
def joint(studies) -> ad.AnnData:
    return join_studies(studies, 10, batch_key="batch")


def test_values_land_in_their_cells_and_genes(joint):
    assert list(joint.var_names) == ["W", "X", "Y", "Z"]
    assert joint.X.toarray().tolist() == [[0, 2, 5, 1], [0, 0, 7, 0], [0, 0, 0, 4], [6, 0, 0, 1], [0, 0, 8, 2]]
    assert joint.obs["batch"].tolist() == ["a:1", "a:1", "a:2", "b", "b"]
    assert joint.uns["scale"] == {"a": "counts", "b": "counts"}


def test_the_table_says_which_batch_measured_which_gene(joint):
    table = joint.varm[MEASURED]
    assert table.to_dict("list") == {
        "a:1": [False, True, True, True],
        "a:2": [False, True, True, True],
        "b": [True, False, True, True],
    }


def test_a_batch_in_two_studies_measured_what_both_did(studies):
    studies["b"] = replace(studies["b"], batches=pd.Series(["a:2", "b"]))
    table = join_studies(studies, 10, batch_key="batch").varm[MEASURED]
    assert table["a:2"].tolist() == [False, False, True, True]


def test_of_several_variables_of_one_gene_the_highest_value_counts(studies):
    studies["a"] = study([[1, 2, 3], [9, 0, 4], [0, 0, 0]], ["Y", "Y", "Z"], ["1", "1", "2"])
    joint = join_studies(studies, 10, batch_key="batch")
    assert joint[:3, ["Y", "Z"]].X.toarray().tolist() == [[2, 3], [9, 4], [0, 0]]


def test_cells_of_many_studies_have_their_own_names():
    many = {str(i): study(np.ones((11, 2)), ["X", "Y"], [str(i)] * 11) for i in range(12)}
    assert join_studies(many, 2, batch_key="batch").obs_names.is_unique


@pytest.mark.parametrize("storage", ["backed", "dask", "dense", "csc"])
def test_every_storage_is_read(studies, joint, storage, tmp_path):
    def stored(matrix) -> ad.AnnData:
        if storage == "dask":
            dask_array = pytest.importorskip("dask.array")
            return ad.AnnData(dask_array.from_array(matrix, chunks=(2, matrix.shape[1])).map_blocks(sp.csr_matrix))
        adata = ad.AnnData({"csc": sp.csc_matrix, "backed": sp.csr_matrix, "dense": np.asarray}[storage](matrix))
        if storage == "backed":
            adata.write_h5ad(tmp_path / f"{len(matrix)}.h5ad")
            adata = ad.read_h5ad(tmp_path / f"{len(matrix)}.h5ad", backed="r")
        return adata

    read = {key: replace(s, adata=stored(m)) for (key, s), m in zip(studies.items(), (A, B), strict=True)}
    assert np.array_equal(join_studies(read, 10, batch_key="batch").X.toarray(), joint.X.toarray())


def cells_of(joint: ad.AnnData) -> Cells:
    categories = joint.obs["batch"].cat.categories
    return Cells(
        joint,
        np.arange(4),
        batch_labels=joint.obs["batch"].cat.codes.to_numpy().astype(np.int64),
        measured=measured_by(joint, MEASURED, categories),
    )


def test_what_was_not_measured_is_neither_expressed_nor_zero(joint):
    tokenizer = Tokenizer(GeneVocab.from_genes(joint.var_names))
    batch = cells_of(joint).tokenize(np.array([4, 0, 2]), tokenizer, levels=True)
    nan = np.nan
    np.testing.assert_array_equal(np.sign(batch.levels.numpy()), [[0, nan, 1, 1], [nan, 1, 1, 1], [nan, 0, 0, 1]])
    assert batch.measured.tolist() == [0, 1, 2, 3]


def test_measured_zeros_are_tokens_and_absent_genes_are_not(joint):
    vocab = GeneVocab.from_genes(joint.var_names)
    tokenizer = Tokenizer(vocab, include_zeros=True, n_bins=None)
    parts = cells_of(joint).tokenize(np.array([4, 0, 2]), tokenizer).split(1)
    tokens = [
        dict(zip([vocab.tokens[i] for i in part.gene_ids[1:]], part.values[1:].tolist(), strict=True)) for part in parts
    ]
    assert tokens == [{"W": 0, "Y": 8, "Z": 2}, {"X": 2, "Y": 5, "Z": 1}, {"X": 0, "Y": 0, "Z": 4}]
    assert all(part.gene_ids[0] == vocab.cls_id for part in parts)


def test_batches_of_the_table_come_in_the_order_asked_for(joint):
    assert measured_by(joint, MEASURED, ["b", "a:1"]).tolist() == [[True, False, True, True], [False, True, True, True]]
    assert measured_by(joint, None, ["b"]) is None
    assert measured_by(joint, "other", ["b"]) is None
    joint.varm["numbers"] = pd.DataFrame({1: [True] * 4, 0: [False] * 4}, index=joint.var_names)
    assert measured_by(joint, "numbers", np.array([0, 1]))[:, 0].tolist() == [False, True]


def column_of_floats(joint):
    joint.varm[MEASURED] = joint.varm[MEASURED].astype(float)


def array(joint):
    joint.varm[MEASURED] = joint.varm[MEASURED].to_numpy()


def without_b(joint):
    joint.varm[MEASURED] = joint.varm[MEASURED].drop(columns="b")


def without_table(joint):
    del joint.varm[MEASURED]


@pytest.mark.parametrize(
    ("change", "batch_key", "error", "message"),
    [
        (without_table, "batch", KeyError, r"'measured' is not a key of \.varm"),
        (lambda joint: None, None, ValueError, "name the batches by batch_key"),
        (column_of_floats, "batch", ValueError, "must be a DataFrame of bools"),
        (array, "batch", ValueError, "must be a DataFrame of bools"),
        (without_b, "batch", ValueError, r"no column for the batches \['b'\]"),
    ],
)
def test_a_table_that_does_not_name_every_batch_is_refused(
    joint, change: Callable[[ad.AnnData], None], batch_key, error, message
):
    check_measured(joint, MEASURED, joint.obs["batch"])
    change(joint)
    with pytest.raises(error, match=message):
        check_measured(joint, MEASURED, None if batch_key is None else joint.obs[batch_key])


@pytest.mark.parametrize(("value", "message"), [(-1, "negative values"), (np.nan, "NaN or infinite")])
def test_values_that_are_no_expression_are_refused(studies, value, message):
    matrix = B.copy()
    matrix[1, 0] = value
    studies["b"] = study(matrix, ["W", "Y", "Z"], ["b", "b"])
    with pytest.raises(ValueError, match=rf"{message}(.|\n)*rows \[1\](.|\n)*study 'b'"):
        join_studies(studies, 10, batch_key="batch")


def test_a_study_that_no_gene_links_to_the_others_is_refused(studies):
    studies["c"] = study(B, ["ENSG1", "ENSG2", "ENSG3"], ["c", "c"])
    with pytest.raises(ValueError, match=r"'c' shares no gene with any other; it names them \['ENSG1'"):
        join_studies(studies, 10, batch_key="batch")


def test_studies_without_expression_are_refused(studies):
    nothing = study(np.zeros_like(B), ["W", "Y", "Z"], ["b", "b"])
    assert join_studies(studies | {"c": nothing}, 10, batch_key="batch").n_obs == 7
    with pytest.raises(ValueError, match="No cell expresses any gene"):
        join_studies({"c": nothing}, 10, batch_key="batch")
