"""Scores and baselines, with no knowledge of scGPT: they take any embedding, annotation or prediction in an AnnData."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from . import baselines
    from ._annotation import AnnotationScores, annotation_scores
    from ._integration import integration_scores
    from ._network import network_scores
    from ._perturbation import PerturbationScores, perturbation_scores
    from ._perturbation_splits import PerturbationSplit
    from ._perturbations import perturbed_by
    from ._replicates import replicate_ceiling

__all__ = [
    "AnnotationScores",
    "PerturbationScores",
    "PerturbationSplit",
    "annotation_scores",
    "baselines",
    "integration_scores",
    "network_scores",
    "perturbation_scores",
    "perturbed_by",
    "replicate_ceiling",
]
_MODULES = {
    "AnnotationScores": "._annotation",
    "PerturbationScores": "._perturbation",
    "PerturbationSplit": "._perturbation_splits",
    "annotation_scores": "._annotation",
    "integration_scores": "._integration",
    "network_scores": "._network",
    "perturbation_scores": "._perturbation",
    "perturbed_by": "._perturbations",
    "replicate_ceiling": "._replicates",
}


def __getattr__(name: str) -> Any:
    # The package's own lazy imports are not used, for nothing of scgpt may be needed here.
    if name == "baselines":
        return import_module(".baselines", __name__)
    if name in _MODULES:
        return getattr(import_module(_MODULES[name], __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
