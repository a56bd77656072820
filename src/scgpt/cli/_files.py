"""Files of cells: h5ad of AnnData, h5mu of MuData."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd


def check_files(inputs: Sequence[Path], out: Path, kinds: Sequence[str] = (".h5ad",)) -> None:
    """Raise, before anything is read, where a command could not read its files or write its result.

    Raises
    ------
    ValueError
        When a file is of another kind, or the result would take the place of an input.
    FileNotFoundError
        When a file, or the folder to write to, is not there.
    IsADirectoryError
        When a folder is where the result is to be.
    """
    if out.resolve() in [path.resolve() for path in inputs]:
        raise ValueError(f"--out names the input, {out}; name another file.")
    for option, path in (*(("the input", path) for path in inputs), ("--out", out)):
        if path.suffix not in kinds:
            raise ValueError(f"{option} must be an {' or '.join(kinds)} file, not {path}.")
    if not out.parent.is_dir():
        raise FileNotFoundError(f"there is no folder {out.parent} to write to.")
    if out.is_dir():
        raise IsADirectoryError(f"--out names a folder, {out}; name a file.")
    for path in inputs:
        if not path.is_file():
            raise FileNotFoundError(f"there is no file {path}.")


def read_cells(path: Path) -> Any:
    """Read a file of cells: an AnnData, or of an h5mu file a MuData.

    Raises
    ------
    ValueError
        When it is damaged or of another format than its name says.
    """
    import anndata
    import mudata

    from scgpt._formats import DAMAGE

    try:
        return mudata.read_h5mu(path) if path.suffix == ".h5mu" else anndata.read_h5ad(path)
    except DAMAGE as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"{path} cannot be read, it is damaged or no {path.suffix[1:]} file: {reason:.300}") from error


def write_cells(data: Any, out: Path, what: str) -> None:
    """Write a file of cells, whole or not at all, and say what is new in it.

    Raises
    ------
    OSError
        When the disk is full or the folder cannot be written to.
    """
    from scgpt._folders import full_disk_named, read_only_named, whole_file

    folder = out.resolve().parent
    with full_disk_named(folder, "Free some space and run the same again."), read_only_named(folder):
        with whole_file(out) as part:
            data.write_h5mu(part) if out.suffix == ".h5mu" else data.write_h5ad(part)
    print(f"{out}: {what}")


def print_counts(labels: pd.Series) -> None:
    """Say how many cells have each label."""
    for name, n_cells in labels.value_counts().items():
        if n_cells:
            print(f"{n_cells:>8} {name}")
