"""Verbs that work on AnnData."""

from typing import TYPE_CHECKING

from scgpt._lazy import lazy

if TYPE_CHECKING:
    from ._annotate import annotate
    from ._embed import embed
    from ._generate import generate
    from ._integrate import integrate
    from ._map_reference import map_reference

_VERBS = {
    "annotate": "._annotate",
    "embed": "._embed",
    "generate": "._generate",
    "integrate": "._integrate",
    "map_reference": "._map_reference",
}

__all__ = ["annotate", "embed", "generate", "integrate", "map_reference"]
__getattr__, __dir__ = lazy(__name__, _VERBS)
