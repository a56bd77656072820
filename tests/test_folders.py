import errno
from pathlib import Path

import pytest

from scgpt import _folders
from scgpt._folders import full_disk_named, put_in_place, read_only_named, remove_whole, whole_file, written_whole


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
    monkeypatch.setattr(_folders, "_exchanged", lambda *folders: False)  # as on file systems that cannot

    def fail(self, target):
        # only the new folder cannot take its place
        if Path(target) == folder and not self.name.endswith(".old"):
            raise OSError("no")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", fail)
    with pytest.raises(OSError, match="no"), written_whole(folder) as new:
        (new / "file").write_text("new")
    assert [path.name for path in tmp_path.rglob("*")] == ["folder", "old"]


@pytest.mark.parametrize("exchange", [True, False])
def test_a_folder_gives_its_place_to_another(tmp_path, monkeypatch, exchange):
    if not exchange:
        monkeypatch.setattr(_folders, "_exchanged", lambda *folders: False)
    for name in ("old", "new"):
        (tmp_path / name).mkdir()
        (tmp_path / name / name).touch()
    put_in_place(tmp_path / "new", tmp_path / "old")
    assert sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")) == [
        "new",
        "new/old",
        "old",
        "old/new",
    ]


def test_what_a_killed_process_left_is_removed_and_what_another_writes_is_not(tmp_path):
    left, other = tmp_path / ".folder.abcd_123.part", tmp_path / ".folder.zarr.build"
    for folder in (left, other):
        folder.mkdir()
        (folder / "file").touch()
    with written_whole(tmp_path / "folder") as one, written_whole(tmp_path / "folder") as two:
        assert not left.exists()
        (one / "file").write_text("last")
        (two / "file").write_text("first")
    assert (tmp_path / "folder" / "file").read_text() == "last"
    assert {path.name for path in tmp_path.iterdir()} == {"folder", other.name}


def test_a_file_appears_when_all_is_written(tmp_path):
    path = tmp_path / "file"
    path.write_text("old")
    with pytest.raises(OSError, match="no"), whole_file(path) as part:
        part.write_text("half")
        raise OSError("no")
    assert path.read_text() == "old"
    with whole_file(path) as part:
        part.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_goes_as_a_whole(tmp_path, monkeypatch):
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "file").touch()
    monkeypatch.setattr(_folders.shutil, "rmtree", lambda folder: None)  # killed before it
    remove_whole(tmp_path / "folder")
    assert [path.name[0] for path in tmp_path.iterdir()] == ["."]
    monkeypatch.undo()
    (tmp_path / "folder").mkdir()
    remove_whole(tmp_path / "folder")
    assert not (tmp_path / "folder").exists()


@pytest.mark.parametrize(
    "error",
    [
        Exception("Error while serializing: I/O error: No space left on device (os error 28)"),  # safetensors
        RuntimeError("write error in vectors.faiss: 262099 != 4000000 (No space left on device)"),  # faiss
        OSError("1000000 requested and 65504 written"),  # numpy
        RuntimeError(
            "Can't decrement id ref count (file write failed: errno = 122, error message = 'Disk quota exceeded')"
        ),
    ],
)
def test_a_full_disk_is_known_by_what_libraries_say(tmp_path, error):
    with pytest.raises(OSError, match=f"The disk that holds {tmp_path} is full. Make room.") as caught:
        with full_disk_named(tmp_path, "Make room."):
            raise error
    assert caught.value.errno == errno.ENOSPC
    with pytest.raises(RuntimeError, match="other"), full_disk_named(tmp_path, "Make room."):
        raise RuntimeError("other")


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
