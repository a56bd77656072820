import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "paper.py"


def run(*arguments) -> str:
    return subprocess.run([sys.executable, SCRIPT, *arguments], capture_output=True, text=True, check=True).stdout


@pytest.mark.slow
def test_stand_ins_go_the_whole_way(tmp_path):
    shown = run("--quick", "--json", tmp_path / "scores.json")
    scores = json.loads((tmp_path / "scores.json").read_text())["scores"]
    assert set(scores) == {"zero-shot", "fine-tuned", "HVG + PCA"}
    for row in scores.values():
        assert f"{row['AvgBIO']:.3f}" in shown
    assert "published" not in shown


@pytest.mark.slow
def test_stand_ins_are_annotated(tmp_path):
    shown = run("--annotate", "pancreas", "--quick", "--json", tmp_path / "scores.json")
    scores = json.loads((tmp_path / "scores.json").read_text())["scores"]
    assert set(scores) == {"scGPT, fine-tuned", "logistic regression"}
    assert scores["logistic regression"]["accuracy"] > 0.6
    assert f"{scores['scGPT, fine-tuned']['macro_F1']:.3f}" in shown
    assert "published" not in shown


def test_annotation_asks_for_its_files():
    failed = subprocess.run([sys.executable, SCRIPT, "--annotate", "myeloid"], capture_output=True, text=True)
    assert failed.returncode == 2
    assert "--annotate needs --reference and --query" in failed.stderr


@pytest.mark.slow
def test_a_stand_in_is_perturbed(tmp_path):
    shown = run("--perturb", "norman", "--quick", "--json", tmp_path / "scores.json")
    scores = json.loads((tmp_path / "scores.json").read_text())["scores"]
    methods = {name.split(", ")[0] for name in scores}
    assert methods == {"scGPT", "no change", "mean of perturbations", "additive", "bilinear ridge"}
    assert {name.rpartition(", ")[2] for name in scores} > {"all", "unseen_single"}
    assert f"{scores['additive, all']['pearson_delta']:.3f}" in shown
    assert "published" not in shown


@pytest.mark.slow
def test_a_stand_in_of_two_modalities_is_integrated(tmp_path):
    run("--multiomics", "bmmc_cite", "--quick", "--json", tmp_path / "scores.json")
    scores = json.loads((tmp_path / "scores.json").read_text())["scores"]
    assert set(scores) == {"scGPT", "WNN", "PCA and LSI side by side"}
    assert scores["WNN"]["AvgBIO"] > 0.5


@pytest.mark.parametrize("task", ["--perturb=adamson", "--multiomics=asap"])
def test_other_tasks_ask_for_a_file(task):
    failed = subprocess.run([sys.executable, SCRIPT, task], capture_output=True, text=True)
    assert failed.returncode == 2
    assert "need --file" in failed.stderr


def test_both_layouts_of_perturbation_data_are_read(script, tmp_path):
    paper = script("_paper_perturbation")
    gears, _ = paper.stand_in()
    gears.write_h5ad(tmp_path / "gears.h5ad")
    cells, control = paper.read(tmp_path / "gears.h5ad")
    assert control == "ctrl" and cells.n_obs == gears.n_obs
    assert list(cells.var_names[:2]) == ["G000", "G001"]
    pertpy = gears.copy()
    pertpy.var_names = pertpy.var.pop("gene_name").astype(str)
    pertpy.obs["perturbation"] = [
        "control" if n == "ctrl" else n.removesuffix("+ctrl").replace("+", "_") for n in pertpy.obs.pop("condition")
    ]
    pertpy.write_h5ad(tmp_path / "pertpy.h5ad")
    same, control = paper.read(tmp_path / "pertpy.h5ad")
    assert control == "control"
    assert list(same.obs["perturbation"].str.replace("control", "ctrl")) == [
        n.removesuffix("+ctrl") for n in cells.obs["perturbation"]
    ]
    pertpy.obs = pertpy.obs[[]]
    pertpy.write_h5ad(tmp_path / "neither.h5ad")
    with pytest.raises(ValueError, match="of neither layout"):
        paper.read(tmp_path / "neither.h5ad")
