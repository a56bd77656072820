import numpy as np
import pytest
from scipy.stats import false_discovery_control, hypergeom

import scgpt

SETS = {
    "all of A": [f"A{i}" for i in range(8)],
    "half of B": [f"B{i}" for i in range(4)] + ["X0", "X1"],
    "X": [f"X{i}" for i in range(10)],
    "small": ["C0", "C1"],
    "elsewhere": ["NOT", "THERE", "AT", "ALL", "HERE"],
}


@pytest.fixture
def cells(grouped_cells, grouped_model):
    scgpt.tl.gene_programs(grouped_cells, grouped_model, genes="all", n_neighbors=6, resolution=1.0, progress_bar=False)
    return grouped_cells


def test_p_values_are_those_of_the_hypergeometric_distribution(cells):
    assert scgpt.tl.enrich(cells, SETS) is None
    table = cells.uns["scgpt_enrichment"]
    program = cells.var["scgpt_program"]
    n_lists = len(program.cat.categories)
    assert set(table["gene_set"]) <= {"all of A", "half of B", "X"}
    for _, row in table.iterrows():
        own, genes = set(program.index[program == row["list"]]), set(SETS[row["gene_set"]])
        assert (row["list_size"], row["set_size"], row["overlap"]) == (len(own), len(genes), len(own & genes))
        assert set(row["genes"].split(";")) == own & genes
        assert row["pvalue"] == pytest.approx(hypergeom.sf(len(own & genes) - 1, 60, len(genes), len(own)))
    every = np.append(table["pvalue"], np.ones(3 * n_lists - len(table)))
    np.testing.assert_allclose(table["adjusted_pvalue"], false_discovery_control(every)[: len(table)])
    best = table.loc[table["pvalue"].idxmin()]
    assert (best["list"], best["gene_set"]) == (program["A0"], "all of A")
    assert best["adjusted_pvalue"] < 1e-6
    scgpt.tl.enrich(cells, SETS, correction="bonferroni", key_added="strict")
    strict = cells.uns["strict"]
    np.testing.assert_allclose(strict["adjusted_pvalue"], (strict["pvalue"] * 3 * n_lists).clip(upper=1))


def test_lists_of_ones_own_and_a_background(cells):
    scgpt.tl.enrich(cells, SETS, lists={"mine": ["A0", "A1", "X5"]}, min_size=2)
    table = cells.uns["scgpt_enrichment"].set_index("gene_set")
    assert table.loc["all of A", "pvalue"] == pytest.approx(hypergeom.sf(1, 60, 8, 3))
    background = [f"{group}{i}" for group in "AB" for i in range(8)]
    scgpt.tl.enrich(cells, SETS, lists={"mine": ["A0", "A1", "X5"]}, background=background, min_size=2)
    table = cells.uns["scgpt_enrichment"].set_index("gene_set")
    assert table.loc["all of A", ["list_size", "set_size"]].tolist() == [2, 8]
    assert table.loc["all of A", "pvalue"] == pytest.approx(hypergeom.sf(1, 16, 8, 2))


def test_targets_against_the_genes_whose_attention_was_read(grouped_cells, grouped_model):
    scgpt.tl.attention_network(
        grouped_cells, grouped_model, genes=[f"{g}{i}" for g in "AB" for i in range(8)], regulators=["A0", "B0"],
        groupby="type", control="b", n_targets=4, min_cells=1, progress_bar=False,
    )  # fmt: skip
    scgpt.tl.enrich(grouped_cells, SETS, lists="targets", min_size=4)
    table = grouped_cells.uns["scgpt_enrichment"]
    assert set(table["set_size"]) <= {8, 4}
    assert set(table["list_size"]) == {4}
    assert {name.split(", ")[0] for name in table["list"]} == {"A0", "B0"}
    assert any(name.endswith("c, difference") for name in table["list"])


def test_a_file_and_names_in_a_column(cells, tmp_path):
    lines = ["\t".join([name, "", *(f"S{gene}" for gene in genes)]) for name, genes in SETS.items()]
    (tmp_path / "sets.gmt").write_text("\n".join(lines))
    scgpt.tl.enrich(cells, SETS)
    copy = scgpt.tl.enrich(cells, tmp_path / "sets.gmt", copy=True)
    assert copy.uns["scgpt_enrichment"].equals(cells.uns["scgpt_enrichment"])
    assert copy.uns["scgpt"]["scgpt_enrichment"]["n_background"] == 60


def test_bad_input(cells, grouped_cells, tmp_path):
    (tmp_path / "empty.gmt").write_text("\n")
    with pytest.raises(ValueError, match="holds no gene set"):
        scgpt.tl.enrich(cells, tmp_path / "empty.gmt")
    with pytest.raises(ValueError, match="gene_sets holds no gene"):
        scgpt.tl.enrich(cells, {})
    with pytest.raises(ValueError, match="They differ by case: another species"):
        scgpt.tl.enrich(cells, {"lower": ["a0", "a1"]})
    with pytest.raises(ValueError, match=r"No gene set has a gene of the data: sets name them \['NOT'"):
        scgpt.tl.enrich(cells, {"none": ["NOT"]})
    with pytest.raises(
        ValueError, match="No gene set has min_size=11 of the 60 genes of the background; the largest has 10"
    ):
        scgpt.tl.enrich(cells, SETS, min_size=11)
    with pytest.raises(ValueError, match="correction must be"):
        scgpt.tl.enrich(cells, SETS, correction="none")
    with pytest.raises(ValueError, match="lists must be 'programs'"):
        scgpt.tl.enrich(cells, SETS, lists="genes")
    with pytest.raises(KeyError, match="call scgpt.tl.attention_network first"):
        scgpt.tl.enrich(cells, SETS, lists="targets")
    with pytest.raises(KeyError, match="call scgpt.tl.gene_programs first"):
        scgpt.tl.enrich(cells, SETS, key="other")
