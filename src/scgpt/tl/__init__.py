"""Verbs that work on AnnData."""

from typing import TYPE_CHECKING

from scgpt._lazy import lazy

if TYPE_CHECKING:
    from ._annotate import annotate
    from ._dominant_genes import dominant_genes
    from ._embed import embed
    from ._generate import generate
    from ._integrate import integrate
    from ._map_reference import map_reference
    from ._perturb import perturb
    from ._reverse_perturb import reverse_perturb

_VERBS = {
    "annotate": "._annotate",
    "dominant_genes": "._dominant_genes",
    "embed": "._embed",
    "generate": "._generate",
    "integrate": "._integrate",
    "map_reference": "._map_reference",
    "perturb": "._perturb",
    "reverse_perturb": "._reverse_perturb",
}

__all__ = [
    "annotate",
    "dominant_genes",
    "embed",
    "generate",
    "integrate",
    "map_reference",
    "perturb",
    "reverse_perturb",
]
__getattr__, __dir__ = lazy(__name__, _VERBS)
