"""Damage to any file."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np


def fresh_copy(source: Path, folder: Path) -> None:
    """Put a folder in the place of what the last case left there."""
    shutil.rmtree(folder) if folder.is_dir() else folder.unlink(missing_ok=True)
    shutil.copytree(source, folder)


def damage_bytes(rng: np.random.Generator, path: Path) -> str:
    """Cut a file, change some of its bytes, or put something else in its place, and say what was done."""
    data = bytearray(path.read_bytes())
    at = int(rng.integers(max(len(data), 1)))
    kind = rng.choice(
        ["cut", "flip", "flip", "overwrite", "insert", "append", "empty", "not text", "folder", "missing"]
    )
    if kind == "cut":
        data = data[:at]
    elif kind == "flip" and data:
        # Half of the time near the beginning, where headers are.
        at = at if rng.random() < 0.5 else at % 256
        data[at] ^= 1 << int(rng.integers(8))
    elif kind == "overwrite":
        data[at : at + 16] = rng.bytes(16)
    elif kind == "insert":
        data[at:at] = rng.bytes(int(rng.integers(1, 64)))
    elif kind == "append":
        data += rng.bytes(8)
    elif kind == "not text":
        data = bytearray(b"\xff\xfe\x00\x81" + bytes(data))
    path.unlink()
    if kind == "folder":
        path.mkdir()
    elif kind != "missing":
        path.write_bytes(b"" if kind == "empty" else bytes(data))
    return f"{path.name}: {kind} at {at}"


def damage_folder(rng: np.random.Generator, folder: Path) -> str:
    """Damage one file of a folder, whichever, or the folder itself."""
    if rng.random() < 0.05:
        shutil.rmtree(folder)
        if rng.random() < 0.5:
            folder.write_text("a file")
            return "a file in place of the folder"
        return "no folder"
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    path = files[rng.integers(len(files))]
    return damage_bytes(rng, path)
