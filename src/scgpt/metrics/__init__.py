"""Scores and baselines, with no knowledge of scGPT: they take any embedding in an AnnData."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from . import baselines
    from ._integration import integration_scores

__all__ = ["baselines", "integration_scores"]


def __getattr__(name: str) -> Any:
    # The package's own lazy imports are not used, for nothing of scgpt may be needed here.
    if name == "baselines":
        return import_module(".baselines", __name__)
    if name == "integration_scores":
        return import_module("._integration", __name__).integration_scores
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
