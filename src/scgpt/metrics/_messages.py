"""How messages to the user are put."""

from __future__ import annotations

import warnings
from collections.abc import Collection
from pathlib import Path

_HERE = str(Path(__file__).parents[1])


def warn_user(message: str) -> None:
    """Emit a ``UserWarning`` for the line outside this package that led here."""
    warnings.warn(message, UserWarning, stacklevel=2, skip_file_prefixes=(_HERE,))


def listed(names: Collection[str], most: int = 5) -> str:
    """Return the first of many names, and how many more there are."""
    shown = ", ".join(list(names)[:most])
    return shown + (f" and {len(names) - most} more" if len(names) > most else "")
