import re

import anndata as ad
import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest

from scgpt.pl import enrichment
from scgpt.pl._set_names import set_name, shortened

mpl.use("Agg")
plt = pytest.importorskip("matplotlib.pyplot")

ROWS = [
    ("P1", "HALLMARK_E2F_TARGETS", 8, 1e-4),
    ("P1", "HALLMARK_G2M_CHECKPOINT", 4, 1e-6),
    ("P1", "HALLMARK_APOPTOSIS", 2, 0.04),
    ("P2", "HALLMARK_APOPTOSIS", 6, 1e-3),
    ("P2", "HALLMARK_E2F_TARGETS", 1, 0.6),
    ("P3", "HALLMARK_HYPOXIA", 1, 0.2),
    ("P10", "HALLMARK_HYPOXIA", 3, 0.05),
]


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    plt.close("all")


@pytest.fixture
def adata() -> ad.AnnData:
    table = pd.DataFrame(ROWS, columns=["list", "gene_set", "overlap", "adjusted_pvalue"])
    table["pvalue"] = table["adjusted_pvalue"] / 10
    return ad.AnnData(np.ones((1, 1), np.float32), uns={"scgpt_enrichment": table})


def names(labels) -> list[str]:
    return [label.get_text() for label in labels]


def dots(ax) -> dict[tuple[str, str], tuple[float, float]]:
    """Area and number of each, by list and gene set."""
    lists, sets = names(ax.get_xticklabels()), names(ax.get_yticklabels())
    (points,) = ax.collections
    found = zip(points.get_offsets(), points.get_sizes(), points.get_array(), strict=True)
    return {(lists[int(x)], sets[int(y)]): (size, value) for (x, y), size, value in found}


def bar_of(ax):
    (bar,) = (other for other in ax.get_figure().axes if other is not ax)
    return bar


def test_dots_are_overlaps_and_pvalues(adata):
    ax = enrichment(adata, show=False)
    assert names(ax.get_xticklabels()) == ["P1", "P2", "P10"]
    assert names(ax.get_yticklabels()) == ["G2M checkpoint", "E2F targets", "Apoptosis", "Hypoxia"]
    assert ax.yaxis_inverted()
    assert ax.get_ylabel() == "Hallmark"
    found = dots(ax)
    expected = {
        ("P1", "E2F targets"): (8, 4),
        ("P1", "G2M checkpoint"): (4, 6),
        ("P1", "Apoptosis"): (2, -np.log10(0.04)),
        ("P2", "Apoptosis"): (6, 3),
        ("P10", "Hypoxia"): (3, -np.log10(0.05)),
    }
    assert set(found) == set(expected)
    for place, (overlap, significance) in expected.items():
        np.testing.assert_allclose(found[place][0] / found["P1", "E2F targets"][0], overlap / 8)
        np.testing.assert_allclose(found[place][1], significance)


def test_the_legend_and_the_bar_tell_sizes_and_colours(adata):
    ax = enrichment(adata, show=False)
    legend = ax.get_legend()
    assert legend.get_title().get_text() == "genes in both"
    assert names(legend.get_texts()) == ["2", "5", "8"]
    areas = [handle.get_markersize() ** 2 for handle in legend.legend_handles]
    np.testing.assert_allclose(areas[-1], dots(ax)["P1", "E2F targets"][0])
    np.testing.assert_allclose(areas[0] / areas[-1], 2 / 8)
    assert bar_of(ax).get_ylabel() == "−log$_{10}$ adjusted p"
    np.testing.assert_allclose(bar_of(ax).get_ylim(), [-np.log10(0.05), 6])


def test_a_few_sets_of_each_list_are_drawn(adata):
    ax = enrichment(adata, n_sets=1, show=False)
    assert names(ax.get_yticklabels()) == ["G2M checkpoint", "Apoptosis", "Hypoxia"]
    assert ("P1", "Apoptosis") in dots(ax)  # of another list, and enriched in this one


def test_lists_may_be_chosen(adata):
    ax = enrichment(adata, lists=["P3", "P2", "P1"], show=False)
    assert names(ax.get_xticklabels()) == ["P3", "P2", "P1"]
    assert names(ax.get_yticklabels())[0] == "Apoptosis"
    assert names(enrichment(adata, lists="P2", show=False).get_yticklabels()) == ["Apoptosis"]


def test_the_limit_may_be_chosen(adata):
    assert set(dots(enrichment(adata, max_pvalue=1e-3, show=False))) == {
        ("P1", "E2F targets"),
        ("P1", "G2M checkpoint"),
        ("P2", "Apoptosis"),
    }
    assert ("P3", "Hypoxia") in dots(enrichment(adata, max_pvalue=1, show=False))


def test_a_pvalue_of_nought_has_a_colour(adata):
    adata.uns["scgpt_enrichment"].loc[0, "adjusted_pvalue"] = 0.0
    assert dots(enrichment(adata, show=False))["P1", "E2F targets"][1] == 300


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("HALLMARK_INTERFERON_GAMMA_RESPONSE", ("Hallmark", "Interferon gamma response")),
        ("HALLMARK_TNFA_SIGNALING_VIA_NFKB", ("Hallmark", "TNFA signaling via NFKB")),
        ("REACTOME_MRNA_SPLICING", ("Reactome", "mRNA splicing")),
        ("KEGG_MEDICUS_REFERENCE_IL2_JAK_STAT", ("KEGG Medicus", "Reference IL2 JAK STAT")),
        ("GOBP_T_CELL_ACTIVATION", ("GO process", "T cell activation")),
        ("MY_OWN_SET", ("", "My own set")),
        ("Interferon gamma (R-HSA-877300)", ("", "Interferon gamma (R-HSA-877300)")),
        ("APOPTOSIS", ("", "APOPTOSIS")),
    ],
)
def test_names_are_written_as_one_would(name, expected):
    assert set_name(name) == expected


def test_long_names_end_in_an_ellipsis():
    assert shortened("short", 5) == "short"
    assert shortened("one two three", 12) == "one two…"
    assert shortened("onetwothree", 6) == "onetw…"
    assert all(len(shortened("one, two three four", most)) <= most for most in range(4, 25))


def test_sets_of_several_collections_say_of_which(adata):
    table = adata.uns["scgpt_enrichment"]
    table.loc[0, "gene_set"] = "REACTOME_CELL_CYCLE"
    table.loc[1, "gene_set"] = "mine"
    ax = enrichment(adata, show=False)
    assert names(ax.get_yticklabels()) == ["mine", "Reactome: Cell cycle", "Hallmark: Apoptosis", "Hallmark: Hypoxia"]
    assert ax.get_ylabel() == ""


@pytest.mark.parametrize("n_lists", [1, 6])
def test_all_of_it_lies_in_the_figure(n_lists):
    long = "REACTOME_A_PATHWAY_WITH_QUITE_A_LONG_NAME_THAT_NO_ONE_READS_"
    rows = [(f"P{i}", f"{long}{j}", i * j + 1, 10.0**-j) for i in range(n_lists) for j in range(2, 9)]
    table = pd.DataFrame(rows, columns=["list", "gene_set", "overlap", "adjusted_pvalue"]).assign(pvalue=0.0)
    ax = enrichment(ad.AnnData(np.ones((1, 1), np.float32), uns={"scgpt_enrichment": table}), show=False)
    figure = ax.get_figure()
    figure.draw_without_rendering()
    assert figure.get_figwidth() < 3.9
    inside = figure.bbox.get_points() + [[-1, -1], [1, 1]]
    for part in (ax, bar_of(ax)):
        box = part.get_tightbbox().get_points()
        assert (box[0] >= inside[0]).all()
        assert (box[1] <= inside[1]).all()


def test_the_input_is_not_changed(adata):
    before = adata.uns["scgpt_enrichment"].copy()
    enrichment(adata, show=False)
    pd.testing.assert_frame_equal(adata.uns["scgpt_enrichment"], before)


def test_axes_are_taken_and_the_file_is_written(adata, tmp_path):
    _, (_, mine) = plt.subplots(1, 2)
    assert enrichment(adata, ax=mine, show=False, save=tmp_path / "enrichment.svg") is mine
    assert len(mine.collections) == 1
    assert (tmp_path / "enrichment.svg").stat().st_size > 1000


def test_it_is_shown_on_request(adata, monkeypatch):
    shown = []
    monkeypatch.setattr(plt, "show", lambda: shown.append(True))
    assert enrichment(adata, show=True) is None
    assert shown == [True]


@pytest.mark.parametrize(
    ("kwargs", "error", "message"),
    [
        ({"lists": ["P1", "P7"]}, KeyError, "lists= names P7; there are P1, P2, P3, P10"),
        ({"n_sets": 0}, ValueError, "n_sets has to be 1 or more, and is 0"),
        ({"max_pvalue": 0}, ValueError, "max_pvalue has to be above 0 and at most 1, and is 0"),
        ({"lists": "P3"}, ValueError, "No gene set has an adjusted p-value of 0.05 or less in P3: raise max_pvalue="),
        ({"key": "mine"}, KeyError, "There is no 'mine' in .uns: call scgpt.tl.enrich(adata, gmt) first"),
    ],
)
def test_wrong_input_is_an_error_that_says_what(kwargs, error, message, adata):
    with pytest.raises(error, match=re.escape(message)):
        enrichment(adata, show=False, **kwargs)


def test_another_table_is_an_error_that_says_so(adata):
    adata.uns["scgpt_enrichment"] = adata.uns["scgpt_enrichment"].drop(columns="overlap")
    with pytest.raises(ValueError, match="has no column 'overlap': it is not what scgpt.tl.enrich"):
        enrichment(adata, show=False)
