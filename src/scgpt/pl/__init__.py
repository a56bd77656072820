"""Plots, in the manner of scanpy."""

from typing import TYPE_CHECKING

from scgpt._lazy import lazy

if TYPE_CHECKING:
    from ._attention_targets import attention_targets
    from ._confidence import confidence
    from ._confusion import confusion
    from ._enrichment import enrichment
    from ._gene_embedding import gene_embedding
    from ._gene_network import gene_network
    from ._integration_scores import integration_scores
    from ._pathway_counts import pathway_counts
    from ._perturbation_response import perturbation_response
    from ._perturbation_space import perturbation_space
    from ._program_activity import program_activity
    from ._reverse_ranking import reverse_ranking

__all__ = [
    "attention_targets",
    "confidence",
    "confusion",
    "enrichment",
    "gene_embedding",
    "gene_network",
    "integration_scores",
    "pathway_counts",
    "perturbation_response",
    "perturbation_space",
    "program_activity",
    "reverse_ranking",
]
__getattr__, __dir__ = lazy(
    __name__,
    {
        "attention_targets": "._attention_targets",
        "confidence": "._confidence",
        "confusion": "._confusion",
        "enrichment": "._enrichment",
        "gene_embedding": "._gene_embedding",
        "gene_network": "._gene_network",
        "integration_scores": "._integration_scores",
        "pathway_counts": "._pathway_counts",
        "perturbation_response": "._perturbation_response",
        "perturbation_space": "._perturbation_space",
        "program_activity": "._program_activity",
        "reverse_ranking": "._reverse_ranking",
    },
)
