"""How messages to the user are put."""

from __future__ import annotations

import builtins
import logging
import sys
import warnings
from collections.abc import Collection
from pathlib import Path

logger = logging.getLogger("scgpt.messages")

_HERE = str(Path(__file__).parent)


def warn_user(message: str) -> None:
    """Emit a ``UserWarning`` for the line outside this package that led here."""
    warnings.warn(message, UserWarning, stacklevel=2, skip_file_prefixes=(_HERE,))


def inform(message: str) -> None:
    """Tell the user what was found or decided, by the logger ``scgpt.messages``; visible unless it was configured otherwise."""
    if logger.level == logging.NOTSET:
        logger.setLevel(logging.INFO)
        if not logger.hasHandlers():
            # As scanpy does: what stands on stderr looks like an error in a notebook.
            in_notebook = getattr(builtins, "__IPYTHON__", False)
            logger.addHandler(logging.StreamHandler(sys.stdout if in_notebook else sys.stderr))
    logger.info(message)


def listed(names: Collection[str], most: int = 5) -> str:
    """Return the first of many names, and how many more there are."""
    shown = ", ".join(list(names)[:most])
    return shown + (f" and {len(names) - most} more" if len(names) > most else "")
