import anndata as ad
import pytest

from scgpt.tl._arguments import refuse_own, target


def test_results_go_to_the_data_or_to_a_copy(counts):
    assert target(counts, False, "X") is counts
    copy = target(counts, True, "X")
    copy.obs["new"] = 1
    assert "new" not in counts.obs


def test_a_view_of_a_file_cannot_be_written_to(counts, tmp_path):
    counts.write_h5ad(tmp_path / "cells.h5ad")
    backed = ad.read_h5ad(tmp_path / "cells.h5ad", backed="r")
    assert target(backed, False, "X") is backed
    with pytest.raises(ValueError, match="view of a file; pass copy=True"):
        target(backed[:3], False, "X")
    copy = target(backed[:3], True, "X")
    assert not copy.isbacked and copy.n_obs == 3
    backed.file.close()


def test_results_have_a_name_and_a_record(counts):
    with pytest.raises(TypeError, match="must be text, not 3"):
        target(counts, False, 3)  # type: ignore[arg-type]
    counts.uns["scgpt"] = "mine"
    with pytest.raises(ValueError, match="holds something else; delete or rename it"):
        target(counts, False, "X")


def test_arguments_that_a_verb_has_itself():
    refuse_own(("max_epochs", "seed"), {"lr": 1e-3}, "integrate")
    with pytest.raises(ValueError, match=r"Pass enable_progress_bar, seed to integrate itself \(progress_bar"):
        refuse_own(("max_epochs", "seed"), {"seed": 1, "enable_progress_bar": False}, "integrate")
