from pathlib import Path

import numpy as np
import pytest

from scgpt.data import check_new_key, check_whole, path_of


@pytest.mark.parametrize("number", [0, -1, 1.5, 2.0, float("nan"), "3", True, None, [2], np.float32(2)])
def test_what_is_no_whole_number(number):
    with pytest.raises(ValueError, match=r"^k must be a whole number of at least 1, not .*\.$"):
        check_whole(number, "k")


def test_whole_numbers():
    for number in (1, 10**12, np.int64(3), np.uint8(1)):
        check_whole(number, "k")
    check_whole(0, "max_epochs", 0)
    with pytest.raises(ValueError, match="max_epochs must be a whole number of at least 0, not -1"):
        check_whole(-1, "max_epochs", 0)


@pytest.mark.parametrize("name", [None, 3, ["X"], b"X"])
def test_what_is_no_key(name):
    check_new_key("X_scGPT", "key_added")
    with pytest.raises(TypeError, match="key_added must be text, not"):
        check_new_key(name, "key_added")


@pytest.mark.parametrize("name", ["", "X/Y"])
def test_text_that_is_no_key(name):
    with pytest.raises(ValueError, match="key_added must be a name without slashes, not"):
        check_new_key(name, "key_added")


@pytest.mark.parametrize("path", [None, 3, True, ["model"], np.zeros(2)])
def test_what_is_no_path(path):
    assert path_of("model", "save") == path_of(Path("model"), "save") == Path("model")
    with pytest.raises(TypeError, match="save must be a path, not"):
        path_of(path, "save")
