import anndata
import pandas as pd
import pytest

import scgpt
from scgpt import tl
from scgpt.cli import main


@pytest.fixture
def query(folder, counts):
    """Cells of unknown type; those of known type are in ``reference.h5ad``, and in the folder ``index``."""
    reference = counts[30:].copy()
    reference.write_h5ad("reference.h5ad")
    query = counts[:30].copy()
    del query.obs["cell_type"]
    query.write_h5ad("query.h5ad")
    return query


@pytest.mark.parametrize("kind", ["file", "index"])
def test_the_file_is_what_the_call_in_python_makes(kind, query, model, capsys):
    reference = anndata.read_h5ad("reference.h5ad")
    place = "reference.h5ad"
    if kind == "index":
        tl.embed(reference, model, progress_bar=False)
        scgpt.ReferenceIndex.from_anndata(reference, labels=["cell_type"]).save(place := "index")
    known = ["--reference", place, "--labels", "cell_type", "--model", model]
    options = ["--k", "5", "--weights", "distance", "--min-confidence", "0.7", "--unknown-label", "?"]
    assert main(["map", "query.h5ad", *known, "--out", "mapped.h5ad", *options]) == 0
    shown = capsys.readouterr()
    assert "Embedding: 100%" in shown.err
    assert shown.out.endswith("mapped.h5ad: .obs['scgpt_mapped_label'] and what belongs to it\n")
    settings = {"k": 5, "weights": "distance", "min_confidence": 0.7, "unknown_label": "?", "progress_bar": False}
    tl.map_reference(query, reference, labels_key="cell_type", model=model, **settings)
    written = anndata.read_h5ad("mapped.h5ad")
    for column in ("scgpt_mapped_label", "scgpt_mapped_label_confidence"):
        pd.testing.assert_series_equal(written.obs[column], query.obs[column])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--reference", "none", "--labels", "cell_type"], "must be an .h5ad file, not none"),
        (["--reference", ".", "--labels", "cell_type"], "index.json"),
        (["--reference", "reference.h5ad", "--labels", "type"], "is not a column of reference.obs"),
        (["--reference", "reference.h5ad", "--labels", "cell_type", "--k", "1000"], "at most 90"),
    ],
)
def test_errors_are_one_line(query, model, fails, arguments, message):
    assert message in fails("map", "query.h5ad", "--model", model, "--out", "mapped.h5ad", *arguments)
