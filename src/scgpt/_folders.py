"""Folders that appear whole or not at all."""

from __future__ import annotations

import errno
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def written_whole(folder: Path) -> Iterator[Path]:
    """Give an empty folder to write to; it takes the place of ``folder`` when all is written.

    One that is replaced stays until then, and where writing fails nothing has changed.

    Parameters
    ----------
    folder
        Where, as an absolute path. Whether it may be replaced is the caller's to check.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    new = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        yield new
        new.chmod(0o755)  # what mkdtemp makes is private
        if folder.exists():
            old = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
            folder.rename(old / "old")
            try:
                new.rename(folder)
            except OSError:
                (old / "old").rename(folder)
                raise
            finally:
                shutil.rmtree(old)
        else:
            new.rename(folder)
    finally:
        shutil.rmtree(new, ignore_errors=True)


@contextmanager
def full_disk_named(folder: Path, what_now: str) -> Iterator[None]:
    """Say which disk is full, and what to do, where writing to a folder fails for that.

    Raises
    ------
    OSError
        In place of one that says that no space, or nothing of a quota, is left.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise OSError(error.errno, f"The disk that holds {folder} is full. {what_now}") from error


@contextmanager
def read_only_named(folder: Path, what_now: str) -> Iterator[None]:
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
