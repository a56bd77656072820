"""Warnings that point at the user's line."""

from __future__ import annotations

import warnings
from pathlib import Path

_HERE = str(Path(__file__).parent)


def warn_user(message: str) -> None:
    """Emit a ``UserWarning`` for the line outside this package that led here."""
    warnings.warn(message, UserWarning, stacklevel=2, skip_file_prefixes=(_HERE,))
