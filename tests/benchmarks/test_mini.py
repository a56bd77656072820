"""What scgpt-mini was pretrained on."""

import json

import numpy as np
import pytest

from scgpt.hub import resolve

SOURCES = ("pbmc_facs", "pbmc_10k_mosaic", "bmmc_cite_d2", "bmmc_cite_d5", "bmmc_multiome_a", "sc_mixology")


@pytest.fixture(scope="module")
def packaged():
    """The hash of the cells of each file of its corpus."""
    return json.loads((resolve("mini") / "corpus.json").read_text())


def test_only_these_data_sets_were_pretrained_on(packaged):
    assert set(packaged) == {f"{name}{part}.h5ad" for name in SOURCES for part in ("", "_held_out")}


@pytest.mark.real
@pytest.mark.parametrize("name", SOURCES)
def test_no_test_cell_was_pretrained_on(shared, script, data, packaged, name):
    mini = script("mini")
    names = np.array(mini.cells_of(name).obs_names)
    assert not set(names) & set(data.test_cells(name))
    held_out = mini.is_held_out(list(names))
    for file, cells in ((f"{name}.h5ad", names[~held_out]), (f"{name}_held_out.h5ad", names[held_out])):
        assert packaged[file] == {"cells": len(cells), "sha256": data.digest(cells)}
