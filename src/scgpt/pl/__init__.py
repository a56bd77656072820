"""Plots, in the manner of scanpy."""

from typing import TYPE_CHECKING

from scgpt._lazy import lazy

if TYPE_CHECKING:
    from ._integration_scores import integration_scores

__all__ = ["integration_scores"]
__getattr__, __dir__ = lazy(__name__, {"integration_scores": "._integration_scores"})
