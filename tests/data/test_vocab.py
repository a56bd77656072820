import json

import numpy as np
import pytest

from scgpt.data import GeneVocab


def test_tokens_have_the_ids_of_their_places():
    vocab = GeneVocab(["<pad>", "CD3D", "<cls>", "CD79A"])
    assert dict(vocab) == {"<pad>": 0, "CD3D": 1, "<cls>": 2, "CD79A": 3}
    assert (len(vocab), vocab.cls_id, vocab.genes) == (4, 2, ("CD3D", "CD79A"))
    assert "CD3D" in vocab
    assert "CD4" not in vocab
    assert repr(vocab) == "GeneVocab of 2 genes and 2 special tokens"


def test_ids_of_unknown_and_special_names_are_minus_one():
    vocab = GeneVocab(["<pad>", "CD3D", "<cls>", "CD79A"])
    ids = vocab.ids(["CD79A", "CD4", "<cls>", "<pad>", "CD3D"])
    assert ids.tolist() == [3, -1, -1, -1, 1]
    assert ids.dtype == np.int64


def test_from_genes_keeps_the_first_of_each_and_adds_special_tokens():
    vocab = GeneVocab.from_genes(["B", "A", "B", "<cls>", "C"])
    assert vocab.tokens == ("B", "A", "C", "<pad>", "<cls>", "<eoc>")


def test_vocabularies_are_equal_where_their_tokens_are():
    a, b = GeneVocab.from_genes("AB"), GeneVocab.from_genes("BA")
    assert a == GeneVocab.from_genes("AB")
    assert hash(a) == hash(GeneVocab.from_genes("AB"))
    assert a != b
    assert a != dict(a)


def test_official_vocabulary_and_back_is_the_same(golden, tmp_path):
    official = golden / "checkpoint" / "vocab.json"
    vocab = GeneVocab.load(official)
    assert len(vocab) == 203
    assert vocab["G0199"] == 199
    assert vocab.tokens[200:] == ("<pad>", "<cls>", "<eoc>")
    vocab.save(tmp_path / "vocab.json")
    assert GeneVocab.load(tmp_path / "vocab.json") == vocab
    # The authors' code reads it as an object of tokens and ids.
    assert json.loads((tmp_path / "vocab.json").read_text()) == json.loads(official.read_text())


def test_load_orders_by_id_and_keeps_names_of_any_script(tmp_path):
    path = tmp_path / "vocab.json"
    path.write_text('{"<cls>": 2, "β2M": 0, "A": 1}', encoding="utf-8")
    vocab = GeneVocab.load(path)
    assert vocab.tokens == ("β2M", "A", "<cls>")
    vocab.save(path)
    assert GeneVocab.load(path) == vocab


@pytest.mark.parametrize(
    ("content", "message"),
    [
        pytest.param('{"A": 0, "<cls>": 1', "not valid JSON", id="truncated"),
        pytest.param(b"\xff\xfe\x00", "not valid JSON", id="not text"),
        pytest.param('["A", "<cls>"]', "holds no JSON object", id="a list"),
        pytest.param('{"A": "0", "<cls>": 1}', "whole-number ids", id="an id that is text"),
        pytest.param('{"A": 0.0, "<cls>": 1}', "whole-number ids", id="an id with a point"),
        pytest.param('{"A": true, "<cls>": 0}', "whole-number ids", id="an id that is true"),
        pytest.param('{"A": 0, "<cls>": 2}', r"not 0 \.\. 1, each once", id="a gap"),
        pytest.param('{"A": 1, "B": 1, "<cls>": 0}', r"not 0 \.\. 2, each once", id="an id twice"),
        pytest.param('{"A": 0, "B": 1}', "lacks '<cls>'", id="no <cls>"),
        pytest.param("{}", "lacks '<cls>'", id="empty"),
    ],
)
def test_a_file_that_is_no_vocabulary_is_refused(content, message, tmp_path):
    path = tmp_path / "vocab.json"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ValueError, match=message):
        GeneVocab.load(path)


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"vocab\.json"):
        GeneVocab.load(tmp_path / "vocab.json")


def test_tokens_that_stand_twice_are_named():
    with pytest.raises(ValueError, match=r"2 stand twice: A, B\. Use GeneVocab\.from_genes"):
        GeneVocab(["A", "B", "A", "<cls>", "B"])


def test_a_vocabulary_needs_cls_and_genes():
    with pytest.raises(ValueError, match="lacks '<cls>'"):
        GeneVocab(["A"])
    with pytest.raises(ValueError, match="No gene"):
        GeneVocab.from_genes(["<pad>"])
