"""What Lightning says of itself, which is not for users of this package."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

_LIGHTNING = logging.getLogger("lightning.pytorch.utilities.rank_zero")


@contextmanager
def lightning_quiet() -> Iterator[None]:
    """Leave out Lightning's lines on devices and on other products of its makers, and warnings that tell users nothing.

    Who wants to read the lines sets the level of the logger ``lightning.pytorch.utilities.rank_zero``.
    """
    level = _LIGHTNING.level
    if level == logging.NOTSET:
        _LIGHTNING.setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            for category in (DeprecationWarning, FutureWarning):
                warnings.filterwarnings("ignore", category=category, module=r"lightning\.")
            # A training that goes on has its states there.
            warnings.filterwarnings("ignore", message=r"Checkpoint directory .* exists and is not empty")
            yield
    finally:
        _LIGHTNING.setLevel(level)
