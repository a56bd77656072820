"""Formats of what is on disk, and what reading it may end in."""

from __future__ import annotations

# What reading damaged files ends in: HDF5, zarr and its codecs, anndata, scipy and numpy each have their own.
DAMAGE = (
    OSError,
    KeyError,
    ValueError,
    IndexError,
    TypeError,
    AttributeError,
    RuntimeError,
    EOFError,
    NotImplementedError,
)


def check_format(found: object, known: int, what: str, otherwise: str) -> None:
    """Raise where something on disk is of a format that this version does not read.

    Parameters
    ----------
    found
        What it says of its format.
    known
        The format that is read.
    what
        What it is, for the message.
    otherwise
        What to do where an update of this package would not help.

    Raises
    ------
    ValueError
        When the two differ.
    """
    if found == known:
        return
    newer = isinstance(found, int) and found > known
    remedy = "it was made by a newer version of scgpt-tools; update this one" if newer else otherwise
    raise ValueError(f"{what} has format {found!r}, and this version reads {known}: {remedy}.")
