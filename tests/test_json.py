import pytest

from scgpt._json import read_object


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{", "not valid JSON"),
        (b"\xff", "not valid JSON"),
        (b"[" * 200_000, "not valid JSON .*recursion"),
        (b'{"a": ' + b"9" * 5000 + b"}", "not valid JSON .*digits"),
        (b'{"a": 1, "b": {"c": 1, "c": 2}}', "the key 'c' stands twice"),
        (b"[1]", "holds no JSON object; write it anew"),
    ],
)
def test_what_is_no_object_is_refused(tmp_path, content, message):
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(ValueError, match=rf"a\.json.*{message}"):
        read_object(tmp_path / "a.json", "write it anew")


def test_objects_are_read(tmp_path):
    (tmp_path / "a.json").write_text('{"é": [1, null]}', encoding="utf-8")
    assert read_object(tmp_path / "a.json") == {"é": [1, None]}
