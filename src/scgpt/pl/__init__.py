"""Plots, in the manner of scanpy."""

from typing import TYPE_CHECKING

from scgpt._lazy import lazy

if TYPE_CHECKING:
    from ._confidence import confidence
    from ._confusion import confusion
    from ._integration_scores import integration_scores

__all__ = ["confidence", "confusion", "integration_scores"]
__getattr__, __dir__ = lazy(
    __name__,
    {
        "confidence": "._confidence",
        "confusion": "._confusion",
        "integration_scores": "._integration_scores",
    },
)
