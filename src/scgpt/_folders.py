"""Files and folders that appear whole or not at all, and the errors of disks that they cannot be written to."""

from __future__ import annotations

import ctypes
import errno
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# How safetensors, faiss, HDF5 and numpy say it, each in errors of its own.
_FULL = re.compile(r"No space left on device|[Qq]uota exceeded|\d+ requested and \d+ written")
_RENAME_EXCHANGE = 2


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Give a name to write a file under; it takes the place of ``path`` when all is written.

    What a killed process left under that name is written over. One process at a time may write a file.

    Parameters
    ----------
    path
        Where, in a folder that is there.
    """
    part = path.with_name(f".{path.name}.part")
    try:
        yield part
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


@contextmanager
def written_whole(folder: Path) -> Iterator[Path]:
    """Give an empty folder to write to; it takes the place of ``folder`` when all is written.

    One that is replaced stays until then, and where writing fails nothing has changed. What killed processes left of
    theirs is removed. Several processes may write at a time; the last one's stays.

    Parameters
    ----------
    folder
        Where, as an absolute path. Whether it may be replaced is the caller's to check.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    remove_left_beside(folder)
    new, lock = _made_beside(folder)
    try:
        yield new
        new.chmod(0o755)  # what mkdtemp makes is private
        put_in_place(new, folder)
    finally:
        shutil.rmtree(new, ignore_errors=True)
        if lock is not None:
            os.close(lock)


def remove_left_beside(folder: Path) -> None:
    """Remove what killed processes left where :func:`written_whole` wrote to a folder."""
    for left in folder.parent.iterdir():
        if not re.fullmatch(rf"\.{re.escape(folder.name)}\.[a-z0-9_]{{8}}\.part", left.name):
            continue
        if (lock := _lock(left, wait=False)) is not None:  # nobody writes to it
            shutil.rmtree(left, ignore_errors=True)
            os.close(lock)


def put_in_place(new: Path, folder: Path) -> None:
    """Rename a folder. One whose place it takes gets its old name in exchange, at once where the file system can."""
    if not folder.exists():
        new.rename(folder)
    elif not _exchanged(new, folder):
        old = new.with_name(f"{new.name}.old")
        folder.rename(old)
        try:
            new.rename(folder)
        except BaseException:
            old.rename(folder)
            raise
        old.rename(new)


def remove_whole(folder: Path) -> None:
    """Remove a folder of which no half is to be taken for the whole, whenever the process is killed."""
    hidden = Path(tempfile.mkdtemp(prefix=".", dir=folder.parent))
    folder.rename(hidden / folder.name)
    shutil.rmtree(hidden)


@contextmanager
def full_disk_named(folder: Path, what_now: str) -> Iterator[None]:
    """Say which disk is full, and what to do, where writing to a folder fails for that.

    Raises
    ------
    OSError
        In place of any error that says that no space, or nothing of a quota, is left.
    """
    try:
        yield
    except Exception as error:
        number = getattr(error, "errno", None)
        if number not in (errno.ENOSPC, errno.EDQUOT) and not _FULL.search(str(error)):
            raise
        raise OSError(number or errno.ENOSPC, f"The disk that holds {folder} is full. {what_now}") from error


@contextmanager
def read_only_named(folder: Path, what_now: str = "Name a folder that can be written to.") -> Iterator[None]:
    """Say which folder cannot be written to, and what to do, where writing fails for that.

    Raises
    ------
    OSError
        In place of one that says that there is no permission, or that the file system is read-only.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise
        raise OSError(error.errno, f"{folder} cannot be written to. {what_now}") from error


def _exchanged(one: Path, other: Path) -> bool:
    """Whether two folders could be given each other's names at once; Linux does so on most file systems."""
    rename = getattr(ctypes.CDLL(None), "renameat2", None) if sys.platform == "linux" else None
    return rename is not None and rename(0, os.fsencode(one), 0, os.fsencode(other), _RENAME_EXCHANGE) == 0


def _made_beside(folder: Path) -> tuple[Path, int | None]:
    """Make a folder that says, by a lock, that the process that fills it is alive."""
    while True:
        new = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", suffix=".part", dir=folder.parent))
        lock = _lock(new)
        if new.exists():  # another process may have taken it for one that was left, before it was locked
            return new, lock
        if lock is not None:
            os.close(lock)


def _lock(folder: Path, *, wait: bool = True) -> int | None:
    """Lock a folder until the number is closed or the process dies; None where it is not to be had."""
    try:
        import fcntl

        number = os.open(folder, os.O_RDONLY)
    except (ImportError, OSError):
        return None
    try:
        fcntl.flock(number, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:  # another process has it, or the file system has no locks
        os.close(number)
        return None
    return number
