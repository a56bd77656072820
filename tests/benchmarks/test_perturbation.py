import json
import subprocess
import sys
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "perturbation.py"


@pytest.mark.slow
@pytest.mark.real
@pytest.mark.parametrize("task", ["ifnb", "schraivogel"])
def test_every_method_runs_on_perturbations_that_were_not_trained_on(shared, tmp_path, task):
    methods = ["scGPT, from scratch", "no change", "mean of perturbations", "one half predicts the other"]
    chosen = [word for method in methods for word in ("--method", method)]
    command = [sys.executable, SCRIPT, "--quick", "--task", task, *chosen, "--json", tmp_path / "runs.json"]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    runs = json.loads((tmp_path / "runs.json").read_text())
    assert [run["method"] for run in runs] == methods
    assert f"## {task}" in shown
    assert all(run["per_perturbation"].keys() == set(run["perturbations"]) for run in runs)


@pytest.mark.real
@pytest.mark.parametrize(("task", "part"), [("ifnb", 1), ("papalexi", 0), ("schraivogel", 2)])
def test_what_is_predicted_is_not_among_the_training_cells(shared, script, task, part):
    made = script("perturbation").TASKS[task][0](part)
    held_out = made.observed.obs_names[made.observed.obs["perturbation"].isin(made.names).to_numpy()]
    assert len(held_out) and not held_out.isin(made.train.obs_names).any()
    assert (made.start.obs["perturbation"] == "control").all()
    if task != "ifnb":
        assert not set(made.names) & set(made.train.obs["perturbation"])
        assert set(made.names) <= set(made.train.var_names)
        parts = [script("perturbation").TASKS[task][0](i).names for i in range(5)]
        every = [name for part in parts for name in part]
        assert len(every) == len(set(every)) == {"papalexi": 9, "schraivogel": 13}[task]


class TestSynthetic:
    @pytest.fixture(scope="class")
    def synthetic(self, script):
        return script("_synthetic_perturbations")

    def test_effects_of_pairs(self, synthetic):
        effects = synthetic.log_effects(3)
        assert len(effects) == 20 + 190
        same, other, strong = "G000+G004", "G000+G002", "G000+G001"  # programs 0 and 0, 0 and 2, 0 and 1
        np.testing.assert_allclose(effects[other], effects["G000"] + effects["G002"])
        assert not np.allclose(effects[same], effects["G000"] + effects["G004"])
        more = effects[strong] - 1.5 * (effects["G000"] + effects["G001"])
        assert np.count_nonzero(np.abs(more) > 1e-9) == 20
        assert all(effects[gene][i] == -1.5 for i, gene in enumerate(synthetic.genes()))

    def test_cells_have_the_effects(self, synthetic):
        cells = synthetic.make(["G001", "G000+G002"], n_cells=300, n_control=300, seed=3)
        assert cells.obs["perturbation"].value_counts().to_dict() == {"G001": 300, "G000+G002": 300, "control": 300}
        counts = pd.DataFrame(cells.layers["counts"].toarray(), columns=cells.var_names)
        mean = counts.groupby(cells.obs["perturbation"].to_numpy()).mean()
        often = mean.columns[mean.loc["control"] > 3]
        for name in ("G001", "G000+G002"):
            change = np.log(mean.loc[name, often] / mean.loc["control", often])
            effect = pd.Series(synthetic.log_effects(3)[name], cells.var_names)[often]
            assert np.corrcoef(change, effect)[0, 1] > 0.95
        again = synthetic.make(["G001", "G000+G002"], n_cells=300, n_control=300, seed=3)
        assert (again.X != cells.X).nnz == 0

    def test_the_search_finds_what_is_predicted_right(self, script, synthetic):
        perturbation = script("perturbation")
        names = ["G000", "G001", "G000+G001", "G002+G003"]
        cells = synthetic.make(names, n_cells=40, n_control=100)
        held_out = cells[cells.obs["perturbation"].isin([*names[2:], "control"])].copy()
        start = cells[(cells.obs["perturbation"] == "control").to_numpy()].copy()
        control = start.X.toarray().mean(0)
        profiles = np.stack([cells[(cells.obs["perturbation"] == n).to_numpy()].X.toarray().mean(0) for n in names])
        predicted = ad.AnnData(profiles, obs=pd.DataFrame({"perturbation": names}, index=names), var=cells.var)
        predicted.layers["delta"] = profiles - control
        task = perturbation.Task(cells, start, held_out, names[2:], searched=names)
        assert perturbation.search(task, predicted) == {
            "relevant at 1": 1,
            "exact at 1": 1,
            "exact at 8": 1,
            "mean rank": 1,
        }
        swapped = predicted[[3, 2, 1, 0]].copy()
        swapped.obs["perturbation"] = swapped.obs_names = names  # G002+G003 is said to look as G000 does
        found = perturbation.search(task, swapped)
        assert found["exact at 1"] == 0 and found["mean rank"] > 1
