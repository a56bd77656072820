import anndata
import numpy as np
import pytest

import scgpt

GENES = [f"A{i}" for i in range(6)]


def network(adata, model, **kwargs):
    defaults = {"genes": GENES, "min_cells": 1, "progress_bar": False}
    return scgpt.tl.attention_network(adata, model, **(defaults | kwargs))


def test_writes_the_attention_of_each_group_and_targets(grouped_cells, grouped_model, tmp_path):
    assert network(grouped_cells, grouped_model, groupby="type", control="b", regulators=["A1", "X0"]) is None
    result = grouped_cells.uns["scgpt_attention"]
    assert list(result["genes"]) == [*GENES, "X0"]
    assert list(result["groups"]) == ["a/1", "b", "c"]
    assert result["n_cells"].tolist() == [30, 30, 30]
    own = grouped_model.get_gene_attention(
        [*GENES, "X0"], grouped_cells, groups=grouped_cells.obs["type"], progress_bar=False
    )
    assert np.array_equal(result["influence"], own.influence, equal_nan=True)
    targets = result["targets"]
    assert set(targets["group"]) == {"a/1", "c"}
    assert set(targets["mode"]) == {"control", "perturbed", "difference"}
    assert set(targets["regulator"]) == {"A1", "X0"}
    grouped_cells.write_h5ad(tmp_path / "cells.h5ad")
    again = anndata.read_h5ad(tmp_path / "cells.h5ad")
    one, two = (
        scgpt.get.attention_targets(cells, "A1", group="c", mode="difference", min_cells=1)
        for cells in (grouped_cells, again)
    )
    assert one.equals(two)
    record = again.uns["scgpt"]["scgpt_attention"]
    assert (record["network_layer"], record["heads"], record["groupby"]) == (-1, "all", "type")


def test_one_group_without_a_column(grouped_cells, grouped_model):
    copy = network(grouped_cells, grouped_model, regulators="A2", n_targets=3, copy=True)
    assert "scgpt_attention" not in grouped_cells.uns
    targets = copy.uns["scgpt_attention"]["targets"]
    assert list(targets["rank"]) == [1, 2, 3]
    assert set(targets["mode"]) == {"group"}
    assert "A2" not in set(targets["target"])


def test_only_the_groups_asked_for_are_read(grouped_cells, grouped_model):
    network(grouped_cells, grouped_model, groupby="type", control="b", groups="c")
    result = grouped_cells.uns["scgpt_attention"]
    assert list(result["groups"]) == ["b", "c"]
    apart = network(grouped_cells[grouped_cells.obs["type"] == "c"].copy(), grouped_model, copy=True)
    influence = apart.uns["scgpt_attention"]["influence"][0]
    np.testing.assert_allclose(result["influence"][1], influence, atol=2e-2)  # a near tie moves one rank of six


def test_heads_layers_and_zeros(grouped_cells, grouped_model):
    runs = {}
    for name, kwargs in {"all": {}, "one": {"heads": 0}, "zeros": {"include_zeros": True}}.items():
        network(grouped_cells, grouped_model, key_added=name, **kwargs)
        runs[name] = grouped_cells.uns[name]["influence"]
    assert not np.allclose(runs["all"], runs["one"])
    assert not np.allclose(runs["all"], runs["zeros"])
    np.testing.assert_allclose(runs["zeros"][0].mean(0), 0.5, atol=1e-6)  # each cell has each gene


def test_bad_input(grouped_cells, grouped_model):
    cases = {
        KeyError: [
            ({"regulators": "NONE"}, "NONE is not among the genes of adata"),
            ({"regulators": "a1"}, "told apart by case: A1"),
            ({"groupby": "kind"}, "groupby='kind' is not a column"),
            (
                {"groupby": "type", "control": "d"},
                r"no group \['d'\] in \.obs\['type'\]; there are \['a/1', 'b', 'c'\]",
            ),
        ],
        ValueError: [
            ({"control": "b"}, "name it by groupby="),
            ({"groupby": "type", "control": "b", "groups": ["b"]}, "no group beside control='b'"),
        ],
        TypeError: [({"layer": "counts"}, "pass expression_layer='counts'")],
        IndexError: [({"layer": 3}, "There is no layer 3; this network has 1")],
    }
    for error, own in cases.items():
        for kwargs, text in own:
            with pytest.raises(error, match=text):
                network(grouped_cells, grouped_model, **kwargs)
    only_b = grouped_cells[grouped_cells.obs["type"] != "c"].copy()
    only_b.obs["type"] = only_b.obs["type"].cat.add_categories(
        ["c"] if "c" not in only_b.obs["type"].cat.categories else []
    )
    with pytest.raises(ValueError, match=r"No cell is in the group \['c'\]"):
        network(only_b, grouped_model, groupby="type", groups=["c"])
    assert "scgpt_attention" not in grouped_cells.uns


@pytest.mark.filterwarnings("ignore:1 genes are carried by several variables")
def test_a_regulator_may_be_the_second_variable_of_its_gene(grouped_cells, grouped_model):
    grouped_cells.var["symbol"] = grouped_cells.var_names
    grouped_cells.var_names = [f"id{i}" for i in range(60)]
    grouped_cells.var["symbol"] = ["A0", "A0", *grouped_cells.var["symbol"][2:]]
    network(grouped_cells, grouped_model, genes=["id0", "id2", "id3"], regulators="id1")
    assert set(grouped_cells.uns["scgpt_attention"]["targets"]["regulator"]) == {"A0"}
