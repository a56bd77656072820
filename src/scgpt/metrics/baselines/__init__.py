"""What a method has to beat: the field's simple and usual methods, one file for each task."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ._annotation import celltypist, knn_pca, logistic_regression, majority_class
    from ._integration import harmony, pca, scanvi, scvi

__all__ = ["celltypist", "harmony", "knn_pca", "logistic_regression", "majority_class", "pca", "scanvi", "scvi"]
_MODULES = dict.fromkeys(("celltypist", "knn_pca", "logistic_regression", "majority_class"), "._annotation")
_MODULES |= dict.fromkeys(("harmony", "pca", "scanvi", "scvi"), "._integration")


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return getattr(import_module(_MODULES[name], __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
