"""The folder of an index: written whole or not at all, checked before it is used."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from scgpt._folders import full_disk_named, read_only_named, written_whole
from scgpt._formats import check_format
from scgpt._json import read_object

MANIFEST = "index.json"
KIND, FORMAT = "scgpt reference index", 1


def write_folder(folder: Path, write: Callable[[Path], None], about: dict[str, Any], *, overwrite: bool) -> None:
    """Write files beside a folder, list them in its manifest, and put all in its place.

    Parameters
    ----------
    folder
        Where.
    write
        Writes the files into the folder that it is given.
    about
        What else the manifest says.
    overwrite
        Replace an index that is there.

    Raises
    ------
    FileExistsError
        When an index is there and not to be replaced, or the folder holds anything else.
    OSError
        When the disk is full or the folder cannot be written to.
    """
    folder = folder.resolve()
    if folder.exists():
        content = {path.name for path in folder.iterdir()} if folder.is_dir() else {folder.name}
        if others := sorted(content - _listed(folder)):
            raise FileExistsError(f"{folder} holds other things than an index, such as {others[0]}; name another one.")
        if content and not overwrite:
            raise FileExistsError(
                f"{folder} already exists; pass overwrite=True to replace it, or name another folder."
            )
    what_now = "Free some space and save again; an index that was there before is as it was."
    with full_disk_named(folder, what_now), read_only_named(folder), written_whole(folder) as new:
        write(new)
        listed = {p.name: {"bytes": p.stat().st_size, "sha256": _sha256(p)} for p in sorted(new.iterdir())}
        manifest = {"kind": KIND, "format": FORMAT, **about, "files": listed}
        (new / MANIFEST).write_text(json.dumps(manifest, indent=1), encoding="utf-8")


def read_manifest(folder: Path, verify: bool) -> dict[str, Any]:
    """Read what a folder says of itself, and check that its files are those that were written.

    Parameters
    ----------
    folder
        Where.
    verify
        Whether to compare the files' hashes, too, not their sizes alone.

    Raises
    ------
    FileNotFoundError
        When the folder or a file in it is not there.
    ValueError
        When it is no index, is of another format, or is damaged.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"There is no folder {folder}.")
    if not (folder / MANIFEST).is_file():
        raise ValueError(f"{folder} is no reference index: it lacks {MANIFEST}. ReferenceIndex.save writes one.")
    manifest = read_object(folder / MANIFEST, "copy the index again, or build it anew")
    if manifest.get("kind") != KIND:
        raise ValueError(f"{folder} is no reference index: {MANIFEST} does not say that it is one.")
    check_format(manifest.get("format"), FORMAT, f"The index in {folder}", "build the index anew")
    if not isinstance(manifest.get("files"), dict):
        raise damaged(folder, f"{MANIFEST} lists no files")
    for name, file in manifest["files"].items():
        path = folder / name
        if Path(name).name != name or not path.is_file():
            raise FileNotFoundError(f"The index in {folder} lacks {name}; copy it again.")
        if not isinstance(file, dict) or not {"bytes", "sha256"} <= set(file):
            raise damaged(folder, f"{MANIFEST} does not say what {name} is")
        if path.stat().st_size != file["bytes"]:
            raise damaged(folder, f"{name} has {path.stat().st_size} bytes instead of {file['bytes']}")
        if verify and _sha256(path) != file["sha256"]:
            raise damaged(folder, f"{name} is not what was written")
    return manifest


def damaged(folder: Path, how: str) -> ValueError:
    """Return the error for a folder that cannot be what was written."""
    return ValueError(f"The index in {folder} is damaged: {how}. Copy it again, or build it anew.")


def _listed(folder: Path) -> set[str]:
    """Return the names in the manifest of an index, none where there is no such thing."""
    try:
        manifest = read_object(folder / MANIFEST)
        return {MANIFEST, *manifest["files"]} if manifest["kind"] == KIND else set()
    except (OSError, ValueError, KeyError, TypeError):
        return set()


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
