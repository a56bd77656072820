import anndata
import mudata
import numpy as np
import pytest

from scgpt import tl
from scgpt.cli import main

SHORT = ["--max-epochs", "1", "--seed", "3", "--n-top-genes", "20"]
SETTINGS = {"max_epochs": 1, "seed": 3, "n_top_genes": 20, "progress_bar": False}


def as_mudata(adata: anndata.AnnData, *kinds: str) -> mudata.MuData:
    """Return cells with some of their genes as those of modalities."""
    parts = {"rna": adata[:, :40].copy(), "prot": adata[:, 40:].copy()}
    mdata = mudata.MuData({kind: parts[kind] for kind in kinds})
    mdata.obs["age"] = np.arange(mdata.n_obs)
    return mdata


def test_one_file(folder, counts, model, capsys):
    counts.obs["donor"] = counts.obs.pop("batch")
    counts.write_h5ad("donors.h5ad")
    options = ["--batch", "donor", "--model", model, "--save", "trained"]
    assert main(["integrate", "donors.h5ad", "--out", "out.h5ad", *options, *SHORT]) == 0
    shown = capsys.readouterr()
    assert shown.out == "out.h5ad: 120 cells, .obsm['X_scGPT']\n"
    assert "Epoch 1/1: 100%" in shown.err and "Embedding: 100%" in shown.err
    tl.integrate(counts, batch_key="donor", model=model, **SETTINGS)
    written = anndata.read_h5ad("out.h5ad")
    np.testing.assert_array_equal(written.obsm["X_scGPT"], counts.obsm["X_scGPT"])
    assert list(written.var_names) == list(counts.var_names)
    assert {path.name for path in folder.iterdir()} == {"cells.h5ad", "donors.h5ad", "out.h5ad", "trained"}


def test_several_files_are_studies(folder, counts):
    one, two = counts[:50, :50].copy(), counts[50:, 5:].copy()
    del two.obs["batch"]  # which is a batch itself
    one.obs_names = two.obs_names[:50]  # barcodes are unique within a study
    one.write_h5ad("one.h5ad")
    two.write_h5ad("two.h5ad")
    assert main(["integrate", "one.h5ad", "two.h5ad", "--out", "out.h5ad", *SHORT]) == 0
    tl.integrate({"one": one, "two": two}, **SETTINGS)
    written = anndata.read_h5ad("out.h5ad")
    np.testing.assert_array_equal(written.obsm["X_scGPT"], np.vstack([one.obsm["X_scGPT"], two.obsm["X_scGPT"]]))
    assert list(written.var_names) == list(counts.var_names[5:50])
    assert (written.X != anndata.concat([one, two]).X).nnz == 0
    assert written.obs["study"].value_counts().to_dict() == {"two": 70, "one": 50}
    assert written.obs_names.is_unique and written.obs_names[0] == f"{one.obs_names[0]}-one"
    assert list(written.obs["batch"]) == [*one.obs["batch"], *["two"] * 70]
    assert list(written.uns["scgpt"]["X_scGPT"]["batches"]) == list(one.uns["scgpt"]["X_scGPT"]["batches"])


def test_modalities_of_one_batch(folder, counts):
    mdata = as_mudata(counts, "rna", "prot")
    for part in mdata.mod.values():
        del part.obs["batch"]
    mdata.write_h5mu("in.h5mu")
    assert main(["integrate", "in.h5mu", "--out", "out.h5mu", *SHORT]) == 0
    tl.integrate(mdata, batch_key=None, **SETTINGS)
    written = mudata.read_h5mu("out.h5mu")
    np.testing.assert_array_equal(written.obsm["X_scGPT"], mdata.obsm["X_scGPT"])


def test_studies_that_lack_modalities(folder, counts):
    both, rna = as_mudata(counts[:60], "rna", "prot"), as_mudata(counts[60:], "rna")
    both.write_h5mu("both.h5mu")
    rna.write_h5mu("rna.h5mu")
    assert main(["integrate", "both.h5mu", "rna.h5mu", "--out", "out.h5mu", *SHORT]) == 0
    tl.integrate({"both": both, "rna": rna}, **SETTINGS)
    written = mudata.read_h5mu("out.h5mu")
    assert {kind: part.shape for kind, part in written.mod.items()} == {"rna": (120, 40), "prot": (60, 20)}
    assert list(written.obs["study"]) == ["both"] * 60 + ["rna"] * 60
    assert list(written.obs["age"]) == [*range(60)] * 2
    names = [f"{name}-both" for name in both.obs_names] + [f"{name}-rna" for name in rna.obs_names]
    expected = np.vstack([both.obsm["X_scGPT"], rna.obsm["X_scGPT"]])
    np.testing.assert_array_equal(written[names].obsm["X_scGPT"], expected)
    assert written["rna"].obs_names.tolist() == names


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["cells.h5ad", "--batch", "donor"], "is not a column"),
        (["cells.h5ad", "cells.h5mu"], "all h5ad or all h5mu"),
        (["cells.h5ad", "sub/cells.h5ad"], "two files have one name"),
        (["cells.h5ad", "study.h5ad"], "study has a column .obs['study']"),
        (["cells.h5ad", "other.h5ad"], "share no name in .var_names"),
        (["cells.h5ad", "twice.h5ad"], "names variables twice"),
        (["cells.h5ad", "none.h5ad"], "there is no file none.h5ad"),
        (["cells.h5ad", "--save", "."], "holds other files than a checkpoint's"),
    ],
)
@pytest.mark.filterwarnings("ignore:Variable names are not unique")
def test_errors_are_one_line(folder, counts, fails, arguments, message):
    (folder / "sub").mkdir()
    counts.write_h5ad("sub/cells.h5ad")
    as_mudata(counts, "rna").write_h5mu("cells.h5mu")
    counts.obs["study"] = "a"
    counts.write_h5ad("study.h5ad")
    del counts.obs["study"]
    names = counts.var_names
    counts.var_names = [f"{name}_" for name in names]
    counts.write_h5ad("other.h5ad")
    counts.var_names = [names[0], *names[:-1]]
    counts.write_h5ad("twice.h5ad")
    assert message in fails("integrate", *arguments, "--out", "out.h5ad")
