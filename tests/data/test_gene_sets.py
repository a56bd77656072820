import json

import numpy as np
import pandas as pd
import pytest

from scgpt.data import GeneSets, GeneVocab

VOCAB = GeneVocab.from_genes(["CD3D", "CD79A", "NKG7", "LYZ"])
SYMBOLS = ["NKG7", "LYZ", "CD3D", "XIST"]
ENSEMBL = ["ENSG00000105374", "ENSG00000090382", "ENSG00000167286", "ENSG00000229807"]


def var(index=SYMBOLS, **columns) -> pd.DataFrame:
    return pd.DataFrame(columns, index=index)


def members(sets: GeneSets, vocab=VOCAB, mapping=None) -> dict[str, list[str]]:
    ids = sets.ids(vocab, mapping)
    return {name: [vocab.tokens[i] for i in own] for name, own in zip(sets.members, ids, strict=True)}


class TestColumn:
    @pytest.mark.parametrize("kind", ["category", object, "string"])
    def test_each_category_is_a_set(self, kind):
        table = var(role=pd.Series(["killer", None, "receptor", "receptor"], index=SYMBOLS, dtype=kind))
        assert members(GeneSets.read("role", table)) == {"killer": ["NKG7"], "receptor": ["CD3D"]}

    def test_numbers_are_categories(self):
        assert members(GeneSets.read("k", var(k=[2, 1, 2, 1]))) == {"1": ["LYZ"], "2": ["CD3D", "NKG7"]}

    @pytest.mark.parametrize("kind", ["bool", "boolean", object])
    def test_booleans_are_one_set(self, kind):
        table = var(surface=pd.Series([True, False, True, False], index=SYMBOLS, dtype=kind))
        assert members(GeneSets.read("surface", table)) == {"surface": ["CD3D", "NKG7"]}

    def test_a_missing_boolean_is_in_no_set(self):
        table = var(surface=pd.Series([True, None, False, None], index=SYMBOLS, dtype="boolean"))
        assert members(GeneSets.read("surface", table)) == {"surface": ["NKG7"]}

    def test_unused_categories_are_no_sets(self):
        table = var(role=pd.Categorical(["a", "a", None, None], categories=["b", "a"]))
        assert list(GeneSets.read("role", table).members) == ["a"]

    @pytest.mark.parametrize("values", [[None] * 4, [np.nan] * 4, [False] * 4])
    def test_no_condition_at_all(self, values):
        with pytest.raises(ValueError, match=r"No gene has a condition in \.var\['role'\]"):
            GeneSets.read("role", var(role=values))

    def test_the_vocabulary_decides_where_the_names_stand(self):
        """As in matching: a data set has Ensembl ids in its index and symbols in a column, or the other way round."""
        sets = GeneSets.read("role", var(ENSEMBL, feature_name=SYMBOLS, role=list("aabb")))
        assert members(sets) == {"a": ["NKG7", "LYZ"], "b": ["CD3D"]}
        assert members(sets, GeneVocab.from_genes(ENSEMBL)) == {"a": ENSEMBL[:2], "b": ENSEMBL[2:]}

    def test_a_named_column_of_genes_is_the_only_one(self):
        table = var(ENSEMBL, mine=["CD3D", "CD79A", "x", "y"], feature_name=SYMBOLS, role=list("aabb"))
        assert members(GeneSets.read("role", table, gene_key="mine")) == {"a": ["CD3D", "CD79A"], "b": []}
        with pytest.raises(KeyError, match="gene_key='symbol' is not a column"):
            GeneSets.read("role", table, gene_key="symbol")

    def test_names_are_mapped(self):
        mapping = dict(zip(ENSEMBL, SYMBOLS, strict=True))
        sets = GeneSets.read("role", var([f"{e}.7" for e in ENSEMBL], role=list("aabb")), gene_mapping=mapping)
        assert members(sets) == {"a": ["NKG7", "LYZ"], "b": ["CD3D"]}

    def test_a_gene_of_two_variables_has_the_conditions_of_both(self):
        table = var(["CD3D", "NKG7", "CD3D", "CD3D"], role=list("abba"))
        assert members(GeneSets.read("role", table)) == {"a": ["CD3D"], "b": ["CD3D", "NKG7"]}


class TestSets:
    def test_all_genes_of_a_set_count_in_other_data_too(self):
        with pytest.warns(UserWarning, match="1 of the 2 genes") as record:
            sets = GeneSets.read({"T": ["CD3D", "CD79A"]}, var(["CD3D", "x"]))
        assert record[0].filename == __file__
        assert members(sets) == {"T": ["CD3D", "CD79A"]}

    def test_sets_without_a_gene_of_the_data_are_left_out(self):
        given = {"T": ["CD3D", "CD3E"], "B": ["CD79A"], "empty": [], "NK": ("NKG7", "NKG7")}
        message = r"2 of the 4 genes of gene_conditions are in the data; 2 of 4 sets .* left out: B, empty\.$"
        with pytest.warns(UserWarning, match=message):
            sets = GeneSets.read(given, var())
        assert members(sets) == {"T": ["CD3D"], "NK": ["NKG7"]}

    def test_a_file(self, tmp_path):
        (tmp_path / "sets.gmt").write_text("T (1.2)\thttp://x\tCD3D\tLYZ\nNK\t\tNKG7\n")
        for path in (tmp_path / "sets.gmt", str(tmp_path / "sets.gmt")):
            assert members(GeneSets.read(path, var())) == {"T (1.2)": ["CD3D", "LYZ"], "NK": ["NKG7"]}

    @pytest.mark.parametrize("key", ["feature_name", "mine"])
    def test_data_with_ensembl_ids_and_sets_of_symbols(self, key):
        sets = GeneSets.read(
            {"T": ["CD3D"], "NK": ["NKG7"]}, var(ENSEMBL, **{key: SYMBOLS}), gene_key=key if key == "mine" else None
        )
        assert members(sets) == {"T": ["CD3D"], "NK": ["NKG7"]}

    def test_symbols_are_found_through_a_mapping_of_the_datas_ids(self):
        mapping = dict(zip(ENSEMBL, SYMBOLS, strict=True))
        assert members(GeneSets.read({"T": ["CD3D"]}, var(ENSEMBL), gene_mapping=mapping)) == {"T": ["CD3D"]}
        by_id = GeneSets.read({"T": [f"{ENSEMBL[2]}.4"]}, var(ENSEMBL), gene_mapping=mapping)
        assert members(by_id, mapping=mapping) == {"T": ["CD3D"]}

    def test_a_gene_named_twice_counts_once(self):
        vocab = GeneVocab.from_genes(ENSEMBL)
        sets = GeneSets.read({"T": [ENSEMBL[2], ENSEMBL[2], f"{ENSEMBL[2]}.4"]}, var(ENSEMBL))
        assert members(sets, vocab) == {"T": [ENSEMBL[2]]}

    def test_no_gene_in_the_data(self):
        with pytest.raises(
            ValueError, match=r"None of the 2 genes .* such as \['Cd3d', 'Nkg7'\], .*\['NKG7', 'LYZ', 'CD"
        ):
            GeneSets.read({"T": ["Cd3d"], "NK": ["Nkg7"]}, var())

    def test_no_gene_in_the_vocabulary(self):
        sets = GeneSets.read({"T": ["CD3D"]}, var(ENSEMBL, feature_name=SYMBOLS))
        with pytest.raises(ValueError, match=r"None of the 1 genes with conditions is in the vocabulary.*gene_key="):
            sets.ids(GeneVocab.from_genes(ENSEMBL))

    def test_what_is_neither_column_nor_file(self):
        with pytest.raises(KeyError, match=r"'role' is neither a column of \.var, which has \['a'\], nor a GMT file"):
            GeneSets.read("role", var(a=list("aabb")))
        with pytest.raises(TypeError, match="not list"):
            GeneSets.read(["CD3D"], var())
        with pytest.raises(TypeError, match=r"gene_conditions\['T'\] must be several genes, not the text 'CD3D'"):
            GeneSets.read({"T": "CD3D"}, var())


def test_written_as_plain_values_they_are_the_same():
    sets = GeneSets.read("role", var(ENSEMBL, feature_name=SYMBOLS, role=["a.b", "a.b", "c", None]))
    again = GeneSets.from_dict(json.loads(json.dumps(sets.to_dict())))
    assert (again.names, again.members) == (sets.names, sets.members)


@pytest.mark.real
@pytest.mark.filterwarnings("ignore:.* genes of gene_conditions are in the data")
def test_pathways_of_symbols_reach_data_of_ensembl_ids(shared):
    gencode = pd.read_csv(shared / "reference" / "GENCODEv44_Gene_id2name.csv", header=None).iloc[:, :2].set_index(0)[1]
    mapping = {str(k): str(v) for k, v in gencode.items()}
    vocab = GeneVocab.from_genes(mapping.values())
    path = shared / "reference" / "h.all.v7.0.symbols.gmt"
    sets = GeneSets.read(path, pd.DataFrame(index=list(mapping)), gene_mapping=mapping)
    assert len(sets.members) == 50
    assert "PGK1" in members(sets, vocab, mapping)["HALLMARK_HYPOXIA"]
    assert len(np.unique(np.concatenate(sets.ids(vocab, mapping)))) > 4_000
