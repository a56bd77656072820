import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "scaling.py"


@pytest.mark.slow
@pytest.mark.real
def test_every_size_and_context_runs(shared, script):
    shown = subprocess.run([sys.executable, SCRIPT, "--quick"], capture_output=True, text=True, check=True).stdout
    scaling = script("scaling")
    for name in (*scaling.SIZES, *scaling.CONTEXTS, scaling.NOT_PRETRAINED, scaling.LOGISTIC):
        assert f"| {name} " in shown


@pytest.mark.real
def test_a_smaller_corpus_is_part_of_a_larger_one(shared, script, tmp_path):
    mini = script("mini")
    corpora = [mini.make_corpus(tmp_path / f"{n}.zarr", ("bmmc_cite_d2", "bmmc_cite_d5"), n) for n in (100, 300)]
    assert [corpus.n_cells() for corpus in corpora] == [100, 300]
    assert corpora[0].n_cells("held_out") == corpora[1].n_cells("held_out") == 53
    smaller, larger = (set(map(tuple, corpus.obs().astype(str).itertuples(index=False))) for corpus in corpora)
    assert smaller < larger
