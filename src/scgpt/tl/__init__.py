"""Verbs that work on AnnData."""

from typing import TYPE_CHECKING

from scgpt._lazy import lazy

if TYPE_CHECKING:
    from ._annotate import annotate
    from ._attention_network import attention_network
    from ._compare_pathways import compare_pathways
    from ._dominant_genes import dominant_genes
    from ._embed import embed
    from ._enrich import enrich
    from ._gene_programs import gene_programs
    from ._gene_similarity import gene_similarity
    from ._generate import generate
    from ._integrate import integrate
    from ._map_reference import map_reference
    from ._perturb import perturb
    from ._reverse_perturb import reverse_perturb

_VERBS = {
    "annotate": "._annotate",
    "attention_network": "._attention_network",
    "compare_pathways": "._compare_pathways",
    "dominant_genes": "._dominant_genes",
    "embed": "._embed",
    "enrich": "._enrich",
    "gene_programs": "._gene_programs",
    "gene_similarity": "._gene_similarity",
    "generate": "._generate",
    "integrate": "._integrate",
    "map_reference": "._map_reference",
    "perturb": "._perturb",
    "reverse_perturb": "._reverse_perturb",
}

__all__ = [
    "annotate",
    "attention_network",
    "compare_pathways",
    "dominant_genes",
    "embed",
    "enrich",
    "gene_programs",
    "gene_similarity",
    "generate",
    "integrate",
    "map_reference",
    "perturb",
    "reverse_perturb",
]
__getattr__, __dir__ = lazy(__name__, _VERBS)
