import anndata as ad
import pytest

from scgpt.tl._arguments import refuse_own, target


def test_results_go_to_the_data_or_to_a_copy(counts):
    assert target(counts, copy=False) is counts
    copy = target(counts, copy=True)
    copy.obs["new"] = 1
    assert "new" not in counts.obs


def test_a_view_of_a_file_cannot_be_written_to(counts, tmp_path):
    counts.write_h5ad(tmp_path / "cells.h5ad")
    backed = ad.read_h5ad(tmp_path / "cells.h5ad", backed="r")
    assert target(backed, copy=False) is backed
    with pytest.raises(ValueError, match="view of a file; pass copy=True"):
        target(backed[:3], copy=False)
    copy = target(backed[:3], copy=True)
    assert not copy.isbacked and copy.n_obs == 3
    backed.file.close()


def test_arguments_that_a_verb_has_itself():
    refuse_own(("max_epochs", "seed"), {"lr": 1e-3}, "integrate")
    with pytest.raises(ValueError, match=r"Pass enable_progress_bar, seed to integrate itself \(progress_bar"):
        refuse_own(("max_epochs", "seed"), {"seed": 1, "enable_progress_bar": False}, "integrate")
