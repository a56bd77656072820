"""Verbs that work on AnnData."""

from typing import TYPE_CHECKING

from scgpt._lazy import lazy

if TYPE_CHECKING:
    from ._annotate import annotate
    from ._embed import embed
    from ._integrate import integrate

__all__ = ["annotate", "embed", "integrate"]
__getattr__, __dir__ = lazy(__name__, {"annotate": "._annotate", "embed": "._embed", "integrate": "._integrate"})
