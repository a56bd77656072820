import logging

import anndata as ad
import numpy as np
import pandas as pd
import pytest

from scgpt.data import GeneVocab, match_genes, read_mapping
from scgpt.data._matching import USUAL_COLUMNS, own_names

VOCAB = GeneVocab.from_genes(["CD3D", "CD79A", "NKG7", "HLA-DRA", "MATR3"])
SYMBOLS = ["NKG7", "LYZ", "CD3D", "CD79A"]
ENSEMBL = {
    "ENSG00000105374": "NKG7",
    "ENSG00000090382": "LYZ",
    "ENSG00000167286": "CD3D",
    "ENSG00000105369": "CD79A",
}


def var(names=None, **columns) -> pd.DataFrame:
    names = [f"feature {i}" for i in range(len(next(iter(columns.values()))))] if names is None else names
    return pd.DataFrame(columns, index=names)


def test_reports_what_matched_and_what_did_not():
    match = match_genes(var(SYMBOLS), VOCAB)
    assert match.token_ids.tolist() == [2, -1, 0, 1]
    assert match.token_ids.dtype == np.int64
    assert (match.key, match.matched, match.unmatched) == ("index", ("NKG7", "CD3D", "CD79A"), ("LYZ",))
    assert match.duplicated == ()
    assert str(match) == "3 of 4 genes are in the vocabulary (by .var 'index'); not there: LYZ"


def test_the_report_is_logged(caplog):
    with caplog.at_level(logging.INFO, logger="scgpt"):
        match = match_genes(var(SYMBOLS), VOCAB)
    assert caplog.messages == [str(match)]


@pytest.mark.parametrize("column", USUAL_COLUMNS)
@pytest.mark.parametrize("categorical", [False, True])
def test_the_usual_columns_are_found(column, categorical):
    table = var(**{"chromosome": list("1234"), column: SYMBOLS})
    if categorical:
        table[column] = table[column].astype("category")
    match = match_genes(table, VOCAB)
    assert match.key == column
    assert match.token_ids.tolist() == [2, -1, 0, 1]


def test_the_columns_that_the_design_names_are_usual():
    assert {"feature_name", "gene_symbols", "gene_name"} <= set(USUAL_COLUMNS)


def test_the_column_with_most_matches_wins():
    table = var(["CD3D", "x", "y", "z"], gene_ids=SYMBOLS, feature_name=["CD3D", "NKG7", "y", "z"])
    assert match_genes(table, VOCAB).key == "gene_ids"


def test_the_index_wins_among_equals():
    table = var(SYMBOLS, feature_name=["CD3D", "CD79A", "NKG7", "z"])
    match = match_genes(table, VOCAB)
    assert match.key == "index"
    assert match.token_ids.tolist() == [2, -1, 0, 1]


def test_a_named_column_is_taken_even_with_fewer_matches():
    table = var(SYMBOLS, mine=["CD3D", "x", "y", "z"])
    assert match_genes(table, VOCAB, gene_key="mine").token_ids.tolist() == [0, -1, -1, -1]
    table = var(["CD3D", "x", "y", "z"], feature_name=SYMBOLS)
    assert match_genes(table, VOCAB, gene_key="index").token_ids.tolist() == [0, -1, -1, -1]


def test_a_column_that_is_not_there_is_an_error():
    with pytest.raises(KeyError, match=r"gene_key='symbol' is not a column .*\['index', 'feature_name'\]"):
        match_genes(var(feature_name=SYMBOLS), VOCAB, gene_key="symbol")


@pytest.mark.parametrize("vocab_has_versions", [False, True])
def test_versions_of_ensembl_ids_are_stripped(vocab_has_versions):
    names = ["ENSG00000167286.12", "ENSG00000105369", "ENSMUSG00000000001.4", "ENSG00000090382.7"]
    genes = ["ENSG00000167286", "ENSG00000105369", "ENSMUSG00000000001"]
    if vocab_has_versions:  # then a name that is there as it is comes first
        genes[0] = names[0]
    match = match_genes(var(names), GeneVocab.from_genes(genes))
    assert match.token_ids.tolist() == [0, 1, 2, -1]


def test_a_dot_in_other_names_is_no_version():
    vocab = GeneVocab.from_genes(["AC012345", "CD3D"])
    assert match_genes(var(["AC012345.1", "CD3D"]), vocab).token_ids.tolist() == [-1, 1]


def test_ensembl_ids_behind_symbols_are_stripped():
    names = ["MATR3_ENSG00000015479", "CD3D", "LYZ_ENSG00000090382"]
    assert match_genes(var(names), VOCAB).token_ids.tolist() == [4, 0, -1]


def test_special_tokens_are_no_genes():
    assert match_genes(var(["<cls>", "CD3D", "<pad>"]), VOCAB).token_ids.tolist() == [-1, 0, -1]


@pytest.mark.parametrize("kind", [dict, pd.Series])
@pytest.mark.parametrize("data_version", ["", ".3"])
@pytest.mark.parametrize("mapping_version", ["", ".15"])
def test_a_mapping_leads_from_the_datas_names_to_the_vocabularys(kind, data_version, mapping_version):
    mapping = kind({name + mapping_version: symbol for name, symbol in ENSEMBL.items()})
    match = match_genes(var([name + data_version for name in ENSEMBL]), VOCAB, gene_mapping=mapping)
    assert match.token_ids.tolist() == [2, -1, 0, 1]


def test_names_that_a_mapping_lacks_are_matched_as_they_are():
    match = match_genes(var(["ENSG00000105374", "CD3D"]), VOCAB, gene_mapping={"ENSG00000105374": "NKG7"})
    assert match.token_ids.tolist() == [2, 0]


def test_a_mapping_may_have_gaps():
    mapping = pd.Series({"a": "NKG7", "b": None, "CD3D": np.nan})
    assert match_genes(var(["a", "b", "CD3D"]), VOCAB, gene_mapping=mapping).token_ids.tolist() == [2, -1, 0]


@pytest.mark.parametrize("separator", [",", "\t"])
@pytest.mark.parametrize("header", [None, ("gene_id", "gene_name")])
@pytest.mark.parametrize("version", ["", ".15"])
@pytest.mark.parametrize("as_text", [False, True])
def test_a_mapping_can_be_a_file(separator, header, version, as_text, tmp_path):
    path = tmp_path / "genes.csv"
    rows = [*([header] if header else []), *((name + version, symbol) for name, symbol in ENSEMBL.items())]
    path.write_text("\n".join(separator.join(row) for row in rows))
    match = match_genes(var(list(ENSEMBL)), VOCAB, gene_mapping=str(path) if as_text else path)
    assert match.token_ids.tolist() == [2, -1, 0, 1]


def test_further_columns_of_a_mapping_file_do_not_matter(tmp_path):
    path = tmp_path / "genes.tsv"
    path.write_text("ENSG00000105374\tNKG7\t19\tnatural killer, granule\nENSG00000167286\tCD3D\t\t\nLYZ\t\t12\t\n")
    match = match_genes(var(["ENSG00000105374", "ENSG00000167286", "LYZ"]), VOCAB, gene_mapping=path)
    assert match.token_ids.tolist() == [2, 0, -1]


def test_a_mapping_file_of_one_column_is_refused(tmp_path):
    path = tmp_path / "genes.csv"
    path.write_text("CD3D\nCD79A\nNKG7\n")
    with pytest.raises(ValueError, match="has one column"):
        match_genes(var(SYMBOLS), VOCAB, gene_mapping=path)


def test_a_mapping_file_that_is_not_there_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError, match="absent"):
        match_genes(var(SYMBOLS), VOCAB, gene_mapping=tmp_path / "absent.csv")


@pytest.mark.parametrize(
    "names",
    [
        pytest.param(["CD3D", "NKG7", "CD3D"], id="a name twice"),
        pytest.param(["MATR3_ENSG00000015479", "NKG7", "MATR3_ENSG00000280987"], id="a symbol with two Ensembl ids"),
    ],
)
def test_duplicates_are_all_matched_reported_and_warned_of(names):
    with pytest.warns(UserWarning, match="1 genes are carried by several variables; the highest value") as record:
        match = match_genes(var(names), VOCAB)
    assert record[0].filename == __file__  # the warning points at the caller
    assert match.token_ids[0] == match.token_ids[2] >= 0
    assert match.duplicated == (names[0].split("_")[0],)
    assert match.duplicated[0] in str(match)


@pytest.mark.filterwarnings("ignore:1 genes are carried")
def test_the_order_of_variables_changes_nothing_but_the_order(rng):
    names = np.array(["CD3D", "NKG7", "LYZ", "CD3D", "CD79A"])
    order = rng.permutation(len(names))
    a, b = match_genes(var(names), VOCAB), match_genes(var(names[order]), VOCAB)
    assert b.token_ids.tolist() == a.token_ids[order].tolist()
    assert b.duplicated == a.duplicated == ("CD3D",)


def test_no_match_says_what_was_looked_at_and_what_to_do():
    table = var(["a", "b", "c", "d"], symbol=["e", "f", "g", "h"])
    message = (
        r"None of the 4 genes is in the vocabulary\. Looked at \.var \['index', 'symbol'\], such as "
        r"\['a', 'b', 'c'\]; the vocabulary has \['CD3D', 'CD79A', 'NKG7'\]\. .*gene_key=.*gene_mapping="
    )
    with pytest.raises(ValueError, match=message):
        match_genes(table, VOCAB)


def test_no_match_of_mouse_symbols_hints_at_the_species():
    with pytest.raises(ValueError, match=r"upper case: another species\? Pass gene_mapping="):
        match_genes(var(["Cd3d", "Nkg7"]), VOCAB)


@pytest.mark.parametrize("names", [list(ENSEMBL), [f"{name}.2" for name in ENSEMBL], ["ENSMUSG00000000001"]])
def test_no_match_of_ensembl_ids_hints_at_symbols(names):
    with pytest.raises(
        ValueError, match=r"Ensembl ids: name the \.var column with symbols by gene_key=.*gene_mapping="
    ):
        match_genes(var(names), VOCAB)


def test_ids_of_which_a_vocabulary_of_symbols_knows_a_few_are_no_match():
    vocab = GeneVocab.from_genes([*VOCAB.genes, "ENSG00000290825"])  # a gene without a symbol
    table = var([*ENSEMBL, "ENSG00000290825"])
    with pytest.raises(ValueError, match=r"^Only 1 of the 5 genes is .*These are Ensembl ids: name the \.var column"):
        match_genes(table, vocab)
    assert len(match_genes(table, vocab, gene_mapping=ENSEMBL).matched) == 4
    assert match_genes(table.iloc[4:], vocab).matched == ("ENSG00000290825",)  # for those who want just these
    table["symbol"] = [*ENSEMBL.values(), "x"]
    assert match_genes(table, vocab).key == "symbol"


def test_a_vocabulary_of_ids_may_know_few_of_them():
    match = match_genes(var(ENSEMBL), GeneVocab.from_genes(["ENSG00000167286", "ENSG00000000003", "CD4"]))
    assert match.matched == ("ENSG00000167286",)


@pytest.mark.parametrize(
    ("n_vars", "n_vocab", "n_shared", "few"), [(30, 50, 2, True), (50, 30, 2, True), (30, 50, 3, False)]
)
def test_few_matches_are_warned_of(n_vars, n_vocab, n_shared, few, recwarn):
    vocab = GeneVocab.from_genes(f"gene {i}" for i in range(n_vocab))
    names = [f"gene {i}" if i < n_shared else f"other {i}" for i in range(n_vars)]
    assert len(match_genes(var(names), vocab).matched) == n_shared
    told = [str(w.message) for w in recwarn if "rests on these" in str(w.message)]
    assert len(told) == few
    if few:
        assert told[0].startswith(f"Only {n_shared} of {n_vars} genes are in the vocabulary of {n_vocab}")


def test_no_match_in_spite_of_a_mapping_does_not_ask_for_one_of_ensembl_ids():
    with pytest.raises(ValueError, match=r"None of the 4 genes.*or pass gene_mapping=\.") as error:
        match_genes(var(list(ENSEMBL)), VOCAB, gene_mapping={"ENSG00000105374": "LYZ"})
    assert "Ensembl ids:" not in str(error.value)


def test_no_variable_at_all_is_no_match():
    with pytest.raises(ValueError, match="None of the 0 genes"):
        match_genes(var([]), VOCAB)


@pytest.mark.real
@pytest.mark.filterwarnings("ignore:.* genes are carried by several variables")
def test_real_ensembl_ids_through_gencode(shared):
    real = ad.read_h5ad(shared / "data" / "pbmc_facs.h5ad", backed="r")
    table = real.var[["ensembl", "symbol"]].copy()
    real.file.close()
    vocab = GeneVocab.from_genes(table["symbol"])
    gencode = shared / "reference" / "GENCODEv44_Gene_id2name.csv"
    by_symbol = match_genes(table, vocab, gene_key="symbol")
    by_ensembl = match_genes(table, vocab, gene_key="ensembl", gene_mapping=gencode)
    assert (by_symbol.token_ids >= 0).all()
    # Many clone names of 2016 have become symbols since. The genes that kept their names are the same by either way.
    both = by_ensembl.token_ids >= 0
    assert both.mean() > 0.75
    assert (by_ensembl.token_ids[both] == by_symbol.token_ids[both]).mean() > 0.999


def test_names_of_a_vocabulary_of_ones_own():
    table = var(["ENSG00000105374.7", "ENSG00000090382", "ENSG00000167286.1_PAR_Y"], symbol=["NKG7", None, "CD3D"])
    assert own_names(table) == ["ENSG00000105374", "ENSG00000090382", "ENSG00000167286.1_PAR_Y"]
    assert own_names(table, "symbol") == ["NKG7", "", "CD3D"]
    assert own_names(table, gene_mapping=ENSEMBL) == ["NKG7", "LYZ", "ENSG00000167286.1_PAR_Y"]
    assert own_names(table, gene_mapping={"ENSG00000105374.7": "x"})[0] == "x"
    with pytest.raises(KeyError, match="gene_key='name' is not a column"):
        own_names(table, "name")


def test_genes_are_counted_once():
    with pytest.warns(UserWarning, match="carried by several"):
        assert match_genes(var(["CD3D", "CD3D", "NKG7", "x"]), VOCAB).n_genes == 2


def test_a_match_to_some_genes_alone():
    match = match_genes(var(SYMBOLS), VOCAB).within(VOCAB.ids(["CD79A", "NKG7", "not there"]))
    assert match.token_ids.tolist() == [2, -1, -1, 1]
    assert (match.matched, match.unmatched) == (("NKG7", "CD79A"), ("LYZ", "CD3D"))
    assert match.n_genes == 2


@pytest.mark.parametrize("mapping", [3, ["A"], True, object()])
def test_what_is_no_mapping(mapping):
    with pytest.raises(TypeError, match="gene_mapping must be a mapping, a Series, or the path of a table"):
        read_mapping(mapping)


def test_a_mapping_that_is_not_there(tmp_path):
    for path in (tmp_path, tmp_path / "names.tsv"):
        with pytest.raises(FileNotFoundError, match=f"gene_mapping={str(path)!r} is not a file"):
            read_mapping(path)
