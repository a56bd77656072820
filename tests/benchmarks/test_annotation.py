import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "annotation.py"


@pytest.mark.slow
@pytest.mark.real
def test_every_task_and_method_runs_on_cells_that_were_not_trained_on(shared, tmp_path):
    command = [sys.executable, SCRIPT, "--quick", "--json", tmp_path / "runs.json"]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    runs = json.loads((tmp_path / "runs.json").read_text())
    assert {run["task"] for run in runs} == {"folds", "donors", "studies", "rare", "absent"}
    assert {"scGPT, from scratch", "scGPT, balanced", "majority class", "kNN on PCA"} < {run["method"] for run in runs}
    for run in runs:
        assert run["n_train"] + run["n_test"] <= 400
        assert 0 <= run["scores"]["accuracy"] <= 1
        assert f"## {run['task']}" in shown


@pytest.mark.real
def test_both_studies_have_their_types_under_common_names(shared, monkeypatch):
    monkeypatch.syspath_prepend(SCRIPT.parent)
    annotation = pytest.importorskip("annotation")
    cells, test = annotation.studies(0)
    assert cells.obs[annotation.LABEL].notna().all()
    assert {"B cell", "NK cell", "CD4 T cell", "CD8 T cell", "monocyte"} == (
        set(cells.obs[annotation.LABEL][test]) & set(cells.obs[annotation.LABEL][~test])
    )
    for part in range(annotation.N_FOLDS):
        cells, test = annotation.folds(part)
        assert abs(test.mean() - 1 / annotation.N_FOLDS) < 0.01
        assert set(cells.obs[annotation.LABEL][test]) == set(cells.obs[annotation.LABEL])
