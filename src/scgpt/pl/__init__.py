"""Plots, in the manner of scanpy."""

from typing import TYPE_CHECKING

from scgpt._lazy import lazy

if TYPE_CHECKING:
    from ._confidence import confidence
    from ._confusion import confusion
    from ._integration_scores import integration_scores
    from ._perturbation_response import perturbation_response
    from ._perturbation_space import perturbation_space
    from ._reverse_ranking import reverse_ranking

__all__ = [
    "confidence",
    "confusion",
    "integration_scores",
    "perturbation_response",
    "perturbation_space",
    "reverse_ranking",
]
__getattr__, __dir__ = lazy(
    __name__,
    {
        "confidence": "._confidence",
        "confusion": "._confusion",
        "integration_scores": "._integration_scores",
        "perturbation_response": "._perturbation_response",
        "perturbation_space": "._perturbation_space",
        "reverse_ranking": "._reverse_ranking",
    },
)
