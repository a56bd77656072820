import errno
from pathlib import Path

import pytest

from scgpt._folders import full_disk_named, read_only_named, written_whole


def test_a_folder_appears_when_all_is_written(tmp_path):
    folder = tmp_path / "deep" / "folder"
    with written_whole(folder) as new:
        (new / "file").write_text("new")
        assert not folder.exists()
    assert (folder / "file").read_text() == "new"
    assert list(folder.parent.iterdir()) == [folder]


@pytest.mark.parametrize("there", [False, True])
def test_where_writing_fails_nothing_has_changed(tmp_path, there):
    folder = tmp_path / "folder"
    if there:
        folder.mkdir()
        (folder / "old").write_text("old")
    with pytest.raises(OSError, match="disk full"), written_whole(folder) as new:
        (new / "file").write_text("half")
        raise OSError("disk full")
    assert [path.name for path in tmp_path.rglob("*")] == (["folder", "old"] if there else [])


def test_what_is_replaced_comes_back_where_the_last_step_fails(tmp_path, monkeypatch):
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "old").write_text("old")
    rename = Path.rename

    def fail(self, target):
        # only the new folder cannot take its place
        if Path(target) == folder and self.name != "old":
            raise OSError("no")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", fail)
    with pytest.raises(OSError, match="no"), written_whole(folder) as new:
        (new / "file").write_text("new")
    assert [path.name for path in tmp_path.rglob("*")] == ["folder", "old"]


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_named(tmp_path, code):
    with pytest.raises(OSError, match=f"The disk that holds {tmp_path} is full. Make room.") as caught:
        with full_disk_named(tmp_path, "Make room."):
            raise OSError(code, "no space")
    assert caught.value.errno == code


def test_another_failure_to_write_stays_as_it_is(tmp_path):
    with pytest.raises(PermissionError, match="not yours"), full_disk_named(tmp_path, "Make room."):
        raise PermissionError(errno.EACCES, "not yours")


def test_a_disk_that_is_full_is_known_by_what_the_system_says():
    if not Path("/dev/full").exists():
        pytest.skip("only Linux has /dev/full")
    with pytest.raises(OSError, match="The disk that holds /dev is full"), full_disk_named(Path("/dev"), ""):
        with open("/dev/full", "wb", buffering=0) as file:
            file.write(b"x")


@pytest.mark.parametrize("code", [errno.EACCES, errno.EPERM, errno.EROFS])
def test_a_folder_that_cannot_be_written_to_is_named(tmp_path, code):
    with pytest.raises(OSError, match=f"{tmp_path} cannot be written to. Name another.") as caught:
        with read_only_named(tmp_path, "Name another."):
            raise OSError(code, "no")
    assert caught.value.errno == code
    with pytest.raises(OSError, match="no space"), read_only_named(tmp_path, "Name another."):
        raise OSError(errno.ENOSPC, "no space")
