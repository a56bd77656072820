import anndata
import pandas as pd
import pytest

from scgpt import tl
from scgpt.cli import main

SHORT = ["--max-epochs", "1", "--seed", "3"]


def assert_same(written, made, key="scgpt"):
    pd.testing.assert_frame_equal(written.obsm[f"{key}_probabilities"], made.obsm[f"{key}_probabilities"])
    for column in (f"{key}_label", f"{key}_confidence"):
        pd.testing.assert_series_equal(written.obs[column], made.obs[column])


def test_after_a_reference_and_again_by_the_saved_annotator(folder, counts, model, capsys):
    counts.obs["cell_type"] = counts.obs["cell_type"].cat.rename_categories({"T": "CD4+/CD25 T Reg"})
    query, reference = counts[:30].copy(), counts[30:].copy()
    del query.obs["cell_type"]
    query.write_h5ad("query.h5ad")
    reference.write_h5ad("reference.h5ad")
    known = ["--reference", "reference.h5ad", "--labels", "cell_type", "--model", model]
    options = ["--save", "annotator", "--class-weight", "balanced", "--min-confidence", "0.2"]
    assert main(["annotate", "query.h5ad", *known, "--out", "named.h5ad", *options, *SHORT]) == 0
    shown = capsys.readouterr()
    assert "Epoch 1/1: 100%" in shown.err and "Annotating: 100%" in shown.err
    assert shown.out.endswith("named.h5ad: .obs['scgpt_label'] and what belongs to it\n")
    assert sum(int(line.split()[0]) for line in shown.out.splitlines()[:-1]) == 30

    settings = {"class_weight": "balanced", "min_confidence": 0.2, "max_epochs": 1, "seed": 3, "progress_bar": False}
    made = tl.annotate(query, "cell_type", reference=reference, model=model, copy=True, **settings)
    assert_same(anndata.read_h5ad("named.h5ad"), made)

    assert main(["annotate", "query.h5ad", "--model", "annotator", "--out", "again.h5ad", "--key-added", "again"]) == 0
    made = tl.annotate(query, model="annotator", key_added="again", copy=True, progress_bar=False)
    assert_same(anndata.read_h5ad("again.h5ad"), made, "again")


def test_cells_of_one_file_after_those_with_a_label(folder, counts):
    counts.obs["known"] = counts.obs["cell_type"].astype(str)
    counts.obs.loc[counts.obs_names[::3], "known"] = "?"
    counts.write_h5ad("part.h5ad")
    labels = ["--labels", "known", "--unlabeled", "?"]
    assert main(["annotate", "part.h5ad", *labels, "--out", "named.h5ad", *SHORT]) == 0
    made = tl.annotate(counts, "known", unlabeled_category="?", max_epochs=1, seed=3, progress_bar=False, copy=True)
    written = anndata.read_h5ad("named.h5ad")
    assert_same(written, made)
    assert set(written.obs["scgpt_label"]) <= {"B", "NK", "T"}
    assert {path.name for path in folder.iterdir()} == {"cells.h5ad", "part.h5ad", "named.h5ad"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "pass --labels, the column"),
        (["--reference", "other.h5ad", "--model", "mini"], "pass --labels, the column"),
        (["--labels", "type"], "is not a column of adata.obs"),
        (["--labels", "cell_type", "--reference", "none.h5ad"], "there is no file none.h5ad"),
        (["--labels", "cell_type", "--save", "."], "holds other files than a checkpoint's"),
        (["--labels", "cell_type", "--min-confidence", "2"], "from 0 to 1"),
        (["--model", "{model}"], "pass labels_key"),
    ],
)
def test_errors_are_one_line(folder, counts, model, fails, arguments, message):
    counts.write_h5ad("other.h5ad")
    told = fails("annotate", "cells.h5ad", "--out", "named.h5ad", *(a.format(model=model) for a in arguments))
    assert message in told
