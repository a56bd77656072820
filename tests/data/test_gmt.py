import pytest

from scgpt.data import read_gmt


@pytest.fixture
def write(tmp_path):
    def write(text: str | bytes):
        path = tmp_path / "sets.gmt"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return write


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_sets_and_their_genes(write, end):
    path = write(end.join(["T CELLS\thttp://x\tCD3D\tCD3E\tCD3D", "", "B CELLS (GO:1)\t\tCD79A\t", ""]))
    assert read_gmt(path) == {"T CELLS": ("CD3D", "CD3E"), "B CELLS (GO:1)": ("CD79A",)}
    assert read_gmt(str(path)) == read_gmt(path)


def test_a_byte_order_mark_is_no_part_of_a_name(write):
    assert list(read_gmt(write(b"\xef\xbb\xbfA\t\tCD3D\n"))) == ["A"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"sets\.gmt holds no gene set"),
        ("\n  \n", "holds no gene set"),
        ("A\t\tCD3D\nB\tdescription\n", "Line 2 .* is no gene set"),
        ("A\t\tCD3D\nB\tdescription\t\t\n", "Line 2 .* is no gene set"),
        ("A,CD3D,CD3E\n", "Line 1 .* is no gene set"),
        ("\tdescription\tCD3D\n", "Line 1 .* is no gene set"),
        ("A\t\tCD3D\nB\t\tCD4\nA\t\tCD79A\n", "Line 3 .* names the set 'A', as one before"),
        (b"\x89PNG\xff\xfe", "is not a text file"),
    ],
    ids=["empty", "blank", "no genes", "empty genes", "other separator", "no name", "a name twice", "no text"],
)
def test_a_file_that_is_none(write, text, message):
    with pytest.raises(ValueError, match=message):
        read_gmt(write(text))


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_gmt(tmp_path / "sets.gmt")


@pytest.mark.real
@pytest.mark.parametrize(
    ("name", "n_sets", "n_genes"),
    [
        ("h.all.v7.0.symbols", 50, 4_384),
        ("ReactomePathways", 2_444, 11_201),
        ("enrichr.GO_Biological_Process_2021", 6_036, 14_937),
    ],
)
def test_real_files(shared, name, n_sets, n_genes):
    sets = read_gmt(shared / "reference" / f"{name}.gmt")
    assert (len(sets), len(set().union(*sets.values()))) == (n_sets, n_genes)
