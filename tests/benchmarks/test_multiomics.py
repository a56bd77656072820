import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "multiomics.py"


@pytest.mark.slow
@pytest.mark.real
@pytest.mark.parametrize(
    ("task", "method"),
    [("mosaic", "scGPT, from scratch"), ("multiome", "PCA and LSI side by side"), ("translation", "scGPT translates")],
)
def test_it_runs(shared, task, method):
    command = [sys.executable, SCRIPT, "--quick", "--task", task, "--method", method]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert f"## {task}" in shown and f"| {method} " in shown


@pytest.mark.real
def test_labels_and_batches_of_a_mosaic(shared, script):
    multiomics = script("multiomics")
    cells = multiomics.observed(multiomics.mosaic())
    assert cells["batch"].value_counts().to_dict() == {"cite": 600, "multiome": 500}
    assert not cells["label"].isna().any()
    of_one = multiomics.observed(multiomics.cite())
    assert of_one["batch"].nunique() == 2


@pytest.mark.real
def test_a_fifth_of_the_proteins_is_hidden(shared, script):
    multiomics = script("multiomics")
    (mdata,) = multiomics.translation().values()
    hidden = multiomics.hidden_proteins(mdata, 0)
    left = multiomics.without_hidden(mdata, hidden)
    n_proteins = mdata.mod["protein"].n_obs
    assert 0.18 * n_proteins < hidden.sum() < 0.22 * n_proteins
    assert left.n_obs == mdata.n_obs
    assert left.mod["protein"].n_obs == n_proteins - hidden.sum()
    assert not np.isin(mdata.mod["protein"].obs_names[hidden], left.mod["protein"].obs_names).any()
    # What is right is found to be right, and what does not tell cells apart is not.
    truth = multiomics.centred(mdata.mod["protein"].X)[hidden]
    assert multiomics.correlation(truth, mdata, 0)["Spearman, median protein"] == pytest.approx(1)
    assert multiomics.correlation(-truth, mdata, 0)["Spearman, lowest"] == pytest.approx(-1)
