"""Arguments of any function that are numbers, names or paths."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np


def check_whole(number: Any, argument: str, least: int = 1) -> None:
    """Raise for what is not a whole number, or too small a one.

    Raises
    ------
    ValueError
        With the least that it may be.
    """
    if isinstance(number, bool) or not isinstance(number, int | np.integer) or number < least:
        raise ValueError(f"{argument} must be a whole number of at least {least}, not {number!r}.")


def check_name(name: object, argument: str) -> None:
    """Raise for what is no name of a column, layer or key; None is none that is asked for.

    Raises
    ------
    TypeError
        With the argument that gave it.
    """
    if name is not None and not isinstance(name, str):
        raise TypeError(f"{argument} must be text, the name of a column, layer or key, not {name!r:.50}.")


def check_new_key(name: Any, argument: str) -> None:
    """Raise for what cannot be the key that results are written under.

    Raises
    ------
    TypeError
        When it is no text.
    ValueError
        When it is empty, or holds a slash, which h5ad files do not take.
    """
    if not isinstance(name, str):
        raise TypeError(f"{argument} must be text, not {name!r:.50}.")
    if not name or "/" in name:
        raise ValueError(f"{argument} must be a name without slashes, not {name!r}.")


def path_of(path: Any, argument: str) -> Path:
    """Return a path.

    Raises
    ------
    TypeError
        When it is none.
    """
    if not isinstance(path, str | os.PathLike):
        raise TypeError(f"{argument} must be a path, not {path!r}.")
    return Path(path)
