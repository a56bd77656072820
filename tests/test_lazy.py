import sys
from types import ModuleType

import pytest

from scgpt._lazy import lazy


@pytest.fixture
def package(tmp_path, monkeypatch) -> ModuleType:
    """A package whose names are ``thing`` (a function in a module) and ``room`` (a module)."""
    (tmp_path / "house").mkdir()
    (tmp_path / "house" / "__init__.py").write_text(
        "from scgpt._lazy import lazy\n__getattr__, __dir__ = lazy(__name__, {'thing': '._thing', 'room': '.room'})\n"
    )
    (tmp_path / "house" / "_thing.py").write_text("def thing():\n    return 42\n")
    (tmp_path / "house" / "room.py").write_text("door = 'open'\n")
    monkeypatch.syspath_prepend(tmp_path)
    import house

    yield house
    for name in [name for name in sys.modules if name.split(".")[0] == "house"]:
        del sys.modules[name]


def test_a_name_is_imported_when_it_is_first_used(package):
    assert "house._thing" not in sys.modules
    assert package.thing() == 42
    assert "house._thing" in sys.modules
    assert "house.room" not in sys.modules


def test_a_module_is_itself(package):
    assert package.room.door == "open"
    assert package.room is sys.modules["house.room"]


def test_all_names_are_listed_before_they_are_imported(package):
    assert dir(package) == ["room", "thing"]


def test_another_name_is_an_attribute_error(package):
    with pytest.raises(AttributeError, match="module 'house' has no attribute 'window'"):
        _ = package.window
    assert not hasattr(package, "window")


def test_dir_is_sorted():
    _, names = lazy("scgpt", {"b": ".b", "a": ".a"})
    assert names() == ["a", "b"]
