"""scGPT, the single-cell foundation model, as a member of scverse."""

from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

from ._lazy import lazy

if TYPE_CHECKING:
    from . import corpus, data, get, hub, index, metrics, model, module, nn, pl, pp, pretraining, tl, train
    from .index import ReferenceIndex

__all__ = [
    "ReferenceIndex",
    "corpus",
    "data",
    "get",
    "hub",
    "index",
    "metrics",
    "model",
    "module",
    "nn",
    "pl",
    "pp",
    "pretraining",
    "tl",
    "train",
]


def _refuse_the_authors_package() -> None:
    try:
        theirs = version("scgpt")
    except PackageNotFoundError:
        return
    raise ImportError(
        f"The authors' distribution scgpt {theirs} is installed beside scgpt-tools, and both own the package `scgpt`: "
        "run `pip uninstall -y scgpt scgpt-tools`, then `pip install scgpt-tools`."
    )


_refuse_the_authors_package()
__getattr__, __dir__ = lazy(__name__, {name: f".{name}" for name in __all__} | {"ReferenceIndex": ".index"})
