"""Verbs that work on AnnData."""

from typing import TYPE_CHECKING

from scgpt._lazy import lazy

if TYPE_CHECKING:
    from ._embed import embed

__all__ = ["embed"]
__getattr__, __dir__ = lazy(__name__, {"embed": "._embed"})
