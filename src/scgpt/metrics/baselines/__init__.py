"""What a method has to beat: the field's simple and usual methods, one file for each task."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ._annotation import celltypist, knn_pca, logistic_regression, majority_class
    from ._integration import harmony, pca, scanvi, scvi
    from ._network import coexpression, random_network
    from ._network_boosting import grnboost2
    from ._perturbation import additive, matching_mean, mean_of_perturbations, no_change
    from ._perturbation_linear import bilinear_ridge, linear_transfer

__all__ = [
    "additive",
    "bilinear_ridge",
    "celltypist",
    "coexpression",
    "grnboost2",
    "harmony",
    "knn_pca",
    "linear_transfer",
    "logistic_regression",
    "majority_class",
    "matching_mean",
    "mean_of_perturbations",
    "no_change",
    "pca",
    "random_network",
    "scanvi",
    "scvi",
]
_MODULES = dict.fromkeys(("celltypist", "knn_pca", "logistic_regression", "majority_class"), "._annotation")
_MODULES |= dict.fromkeys(("harmony", "pca", "scanvi", "scvi"), "._integration")
_MODULES |= dict.fromkeys(("coexpression", "random_network"), "._network") | {"grnboost2": "._network_boosting"}
_MODULES |= dict.fromkeys(("additive", "matching_mean", "mean_of_perturbations", "no_change"), "._perturbation")
_MODULES |= dict.fromkeys(("bilinear_ridge", "linear_transfer"), "._perturbation_linear")


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return getattr(import_module(_MODULES[name], __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
