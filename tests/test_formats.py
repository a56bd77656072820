import pytest

from scgpt._formats import check_format


def test_what_is_known_is_read():
    check_format(2, 2, "x.json", "write it again")


@pytest.mark.parametrize(
    ("found", "remedy"),
    [
        (3, "it was made by a newer version of scgpt-tools; update this one."),
        (1, "write it again."),
        (None, "write it again."),
        ("3", "write it again."),
    ],
)
def test_what_is_not_known_says_whether_an_update_helps(found, remedy):
    with pytest.raises(ValueError, match="x.json has format") as error:
        check_format(found, 2, "x.json", "write it again")
    assert str(error.value) == f"x.json has format {found!r}, and this version reads 2: {remedy}"
