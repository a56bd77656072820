import re
from itertools import pairwise

import anndata as ad
import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
import scanpy as sc
import scipy.sparse as sp

from scgpt.pl import perturbation_response

mpl.use("Agg")
plt = pytest.importorskip("matplotlib.pyplot")

GENES = [f"G{i}" for i in range(12)]
EFFECT = np.array([0.2, 0, 1.5, 0, -1, 0, 0.6, 0, 0, 0, 0, 0])


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    plt.close("all")


def cells(rng, names, effects) -> ad.AnnData:
    obs = pd.DataFrame({"perturbation": names}, index=[f"c{i}" for i in range(len(names))])
    values = (
        3 + np.array([effects.get(name, 0 * EFFECT) for name in names]) + rng.normal(0, 0.3, (len(names), len(GENES)))
    )
    return ad.AnnData(values.astype(np.float32), obs=obs, var=pd.DataFrame(index=GENES))


@pytest.fixture
def observed(rng) -> ad.AnnData:
    names = rng.permutation(["control"] * 40 + ["G2+G4"] * 15 + ["G4+G2"] * 15 + ["G2"] * 20)
    return cells(rng, names, {"G2+G4": EFFECT, "G4+G2": EFFECT, "G2": 2 * EFFECT})


@pytest.fixture
def predicted() -> ad.AnnData:
    """Means, of all genes but the last in another order."""
    names = ["G2", "G4+G2"]
    values = np.array([3 + 2 * EFFECT, 3 + EFFECT / 2], dtype=np.float32)[:, ::-1][:, 1:]
    obs = pd.DataFrame({"perturbation": names}, index=names)
    return ad.AnnData(values, obs=obs, var=pd.DataFrame(index=GENES[::-1][1:]))


def names(ax) -> list[str]:
    return [label.get_text() for label in ax.get_xticklabels()]


def markers(ax, marker: str) -> np.ndarray:
    (line,) = (line for line in ax.lines if line.get_marker() == marker)
    return line.get_xydata()


def explained(ax) -> list[str]:
    return [text.get_text() for text in ax.get_legend().get_texts()]


def change(observed, names, gene) -> np.ndarray:
    is_control = (observed.obs["perturbation"] == "control").to_numpy()
    values = observed.X[:, GENES.index(gene)]
    return values[observed.obs["perturbation"].isin(names)] - values[is_control].mean()


def test_boxes_are_the_changes_of_cells_and_markers_their_mean_and_the_predicted(observed, predicted):
    ax = perturbation_response(observed, predicted, "G2+G4", genes=["G4", "G2"], show=False)
    assert names(ax) == ["G4", "G2"]
    changes = [change(observed, ["G2+G4", "G4+G2"], gene) for gene in ("G4", "G2")]
    assert len(changes[0]) == 30
    for x, (box, own) in enumerate(zip(ax.patches, changes, strict=True)):
        corners = box.get_path().vertices
        np.testing.assert_allclose(
            [corners[:, 1].min(), corners[:, 1].max()], np.quantile(own, [0.25, 0.75]), atol=1e-6
        )
        np.testing.assert_allclose(corners[:-1, 0].mean(), x, atol=0.2)
    np.testing.assert_allclose(markers(ax, "o"), [[0, changes[0].mean()], [1, changes[1].mean()]], atol=1e-6)
    control = observed[observed.obs["perturbation"] == "control", ["G4", "G2"]].X.mean(0)
    np.testing.assert_allclose(markers(ax, "D"), np.c_[[0, 1], [3 - 0.5, 3 + 0.75] - control], atol=1e-5)
    (zero,) = (line for line in ax.lines if line.get_linestyle() == "--")
    assert list(zero.get_ydata()) == [0, 0]
    assert explained(ax) == ["30 observed cells", "their mean", "predicted mean"]
    assert ax.get_legend().get_title().get_text() == "G2+G4"


def test_perturbed_genes_are_bold(observed, predicted):
    ax = perturbation_response(observed, predicted, "G2+G4", genes=["G4", "G3", "G2"], show=False)
    assert [label.get_fontweight() for label in ax.get_xticklabels()] == ["bold", "normal", "bold"]


@pytest.mark.parametrize("matrix", [np.asarray, sp.csr_matrix, sp.csc_matrix])
def test_genes_are_those_that_scanpy_ranks_first(matrix, observed, predicted):
    both = observed[observed.obs["perturbation"].isin(["G2", "control"]), GENES[:-1]].copy()
    sc.tl.rank_genes_groups(both, "perturbation", groups=["G2"], reference="control", method="t-test", rankby_abs=True)
    expected = list(both.uns["rank_genes_groups"]["names"]["G2"])
    observed.X = matrix(observed.X)
    assert names(perturbation_response(observed, predicted, "G2", show=False)) == expected
    assert names(perturbation_response(observed, predicted, "G2", n_genes=3, show=False)) == expected[:3]


def test_genes_may_come_by_their_change(observed, predicted):
    observed.X[:, 0] = 3 + (observed.obs["perturbation"] == "G2+G4") * 0.05 + np.arange(observed.n_obs) * 1e-6
    observed.X[:, 2] += np.where(np.arange(observed.n_obs) % 2, 20, -20)
    for rank_by in ("t", "change"):
        ax = perturbation_response(observed, predicted, "G2+G4", rank_by=rank_by, n_genes=4, show=False)
        assert ("G0" in names(ax)) == (rank_by == "t")
        means = np.abs(markers(ax, "o")[:, 1])
        assert (np.diff(means) <= 0).all() == (rank_by == "change")


def test_a_single_cell_is_drawn_without_a_test(observed, predicted):
    one = np.flatnonzero(observed.obs["perturbation"] == "G2")[1:]
    observed = observed[np.delete(np.arange(observed.n_obs), one)].copy()
    for kind in ("box", "violin"):
        ax = perturbation_response(observed, predicted, "G2", n_genes=3, kind=kind, show=False)
        assert names(ax) == ["G2", "G4", "G6"]
        assert explained(ax)[0] == "1 observed cell"


def test_predicted_cells_have_boxes_of_their_own(rng, observed):
    predicted = cells(rng, ["G2"] * 5 + ["G2+G4"] * 50, {"G2+G4": EFFECT})
    ax = perturbation_response(observed, predicted, "G4+G2", genes=["G2", "G6"], show=False)
    assert len(ax.patches) == 4
    colors = [box.get_facecolor() for box in ax.patches]
    assert colors[0] == colors[1] != colors[2] == colors[3]
    circles, diamonds = markers(ax, "o"), markers(ax, "D")
    assert (circles[:, 0] < [0, 1]).all()
    assert (diamonds[:, 0] > [0, 1]).all()
    control = observed[observed.obs["perturbation"] == "control", ["G2", "G6"]].X.mean(0)
    np.testing.assert_allclose(diamonds[:, 1], predicted[5:, ["G2", "G6"]].X.mean(0) - control, atol=1e-5)
    assert explained(ax) == ["30 observed cells", "their mean", "50 predicted cells", "their mean"]


def test_violins_span_all_cells(observed, predicted):
    ax = perturbation_response(observed, predicted, "G2", kind="violin", genes=["G2", "G3"], show=False)
    assert len(ax.patches) == 0
    for body, gene in zip(ax.collections, ["G2", "G3"], strict=True):
        heights = body.get_paths()[0].vertices[:, 1]
        own = change(observed, ["G2"], gene)
        np.testing.assert_allclose([heights.min(), heights.max()], [own.min(), own.max()], atol=1e-6)


def test_layer_columns_and_labels_are_taken_as_they_are_named(observed, predicted):
    expected = markers(perturbation_response(observed, predicted, "G2+G4", show=False), "o")
    observed.layers["log"] = observed.X.copy()
    observed.X = np.zeros_like(observed.X)
    labels = observed.obs.pop("perturbation").astype(str)
    observed.obs["gene"] = labels.str.replace("control", "ctrl").str.replace("+", "_").replace("G2", "G2_ctrl")
    predicted.obs["perturbation"] = ["G2", "G4_G2"]
    ax = perturbation_response(
        observed, predicted, "G4_G2", perturbation_key="gene", control="ctrl", sep="_", layer="log", show=False
    )
    np.testing.assert_allclose(markers(ax, "o"), expected)


def test_colours_may_be_chosen(observed, predicted):
    ax = perturbation_response(observed, predicted, "G2", palette={"observed": "#123456"}, show=False)
    assert mpl.colors.to_hex(ax.patches[0].get_facecolor()) == "#123456"
    (line,) = (line for line in ax.lines if line.get_marker() == "D")
    assert mpl.colors.to_hex(line.get_markerfacecolor()) != "#123456"


def test_twenty_genes_fit_into_a_column_of_a_page(rng):
    genes = [f"LONGNAME{i:03d}" for i in range(40)]
    values = rng.normal(3, 1, (1500, 40)).astype(np.float32)
    obs = pd.DataFrame({"perturbation": ["control"] * 300 + ["A"] * 1200}, index=[f"c{i}" for i in range(1500)])
    observed = ad.AnnData(values, obs=obs, var=pd.DataFrame(index=genes))
    ax = perturbation_response(observed, observed[[300]].copy(), "A", show=False)
    figure = ax.get_figure()
    figure.draw_without_rendering()
    assert figure.get_figwidth() <= 3.55  # inches: 89 mm and a little
    inside = figure.bbox.get_points() + [[-1, -1], [1, 1]]
    box = ax.get_tightbbox().get_points()
    assert (box[0] >= inside[0]).all()
    assert (box[1] <= inside[1]).all()
    labels = [label.get_window_extent() for label in ax.get_xticklabels()]
    assert len(labels) == 20
    assert not any(left.x1 > right.x0 for left, right in pairwise(labels))


def test_the_input_is_not_changed(observed, predicted):
    before = observed.copy(), predicted.copy()
    perturbation_response(observed, predicted, "G2+G4", show=False)
    for adata, old in zip((observed, predicted), before, strict=True):
        np.testing.assert_array_equal(adata.X, old.X)
        pd.testing.assert_frame_equal(adata.obs, old.obs)
        assert not adata.uns


def test_axes_are_taken_and_the_file_is_written(observed, predicted, tmp_path):
    _, (_, mine) = plt.subplots(1, 2)
    file = tmp_path / "response.svg"
    assert perturbation_response(observed, predicted, "G2", ax=mine, show=False, save=file) is mine
    assert len(mine.patches) == 11
    assert file.stat().st_size > 1000


def test_it_is_shown_on_request(observed, predicted, monkeypatch):
    shown = []
    monkeypatch.setattr(plt, "show", lambda: shown.append(True))
    assert perturbation_response(observed, predicted, "G2", show=True) is None
    assert shown == [True]


@pytest.mark.parametrize(
    ("name", "kwargs", "error", "message"),
    [
        ("G3", {}, KeyError, "No observed cell is under 'G3'; there are cells under G2, G2+G4"),
        ("control", {}, ValueError, "'control' is control"),
        ("G2", {"genes": ["G2", "TP53"]}, KeyError, "genes= names TP53, not in .var_names of what is observed"),
        ("G2", {"genes": "G11"}, KeyError, "genes= names G11, not in .var_names of what is predicted"),
        ("G2", {"genes": []}, ValueError, "genes= names no gene"),
        ("G2", {"n_genes": 0}, ValueError, "n_genes has to be 1 or more, and is 0"),
        ("G2", {"rank_by": "p"}, ValueError, "rank_by has to be 't' or 'change', and is 'p'"),
        ("G2", {"kind": "swarm"}, ValueError, "kind has to be 'box' or 'violin', and is 'swarm'"),
        ("G2", {"palette": {"seen": "red"}}, ValueError, "palette= has colours for ['seen']; there are ['observed', "),
        ("G2", {"layer": "log"}, KeyError, "There is no layer 'log'"),
        ("G2", {"control": "ctrl"}, ValueError, "No cell is control: none is 'ctrl'"),
        ("G2", {"perturbation_key": "gene"}, KeyError, "no column 'gene' in .obs of what is observed"),
    ],
)
def test_wrong_input_is_an_error_that_says_what(name, kwargs, error, message, observed, predicted):
    with pytest.raises(error, match=re.escape(message)):
        perturbation_response(observed, predicted, name, show=False, **kwargs)


def test_wrong_data_are_an_error_that_says_what(observed, predicted):
    with pytest.raises(KeyError, match="'G2' is not among the predictions, which are of G2\\+G4: pass it to"):
        perturbation_response(observed, predicted[[1]], "G2", show=False)
    other = predicted.copy()
    other.var_names = [f"ENSG{i}" for i in range(11)]
    with pytest.raises(ValueError, match="No gene is both observed and predicted: .var_names are G0, G1"):
        perturbation_response(observed, other, "G2", show=False)
    with pytest.raises(KeyError, match="no column 'perturbation' in .obs of what is predicted"):
        perturbation_response(observed, ad.AnnData(predicted.X, var=predicted.var), "G2", show=False)
    twice = predicted.copy()
    twice.var_names = ["G1", "G1", *GENES[2:11]]
    with pytest.raises(ValueError, match="not unique: G1 stand"):
        perturbation_response(observed, twice, "G2", show=False)
    predicted.X[0, 0] = np.nan
    with pytest.raises(ValueError, match="NaN or infinite values in what is predicted of G2"):
        perturbation_response(observed, predicted, "G2", show=False)
    observed.X = np.round(observed.X)
    with pytest.warns(UserWarning, match="seems to hold counts"):
        perturbation_response(observed, predicted, "G2+G4", show=False)
