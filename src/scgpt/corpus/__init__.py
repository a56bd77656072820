"""Cells of many data sets as one shuffled collection on disk, to train on more than memory holds."""

from typing import TYPE_CHECKING

from scgpt._lazy import lazy

if TYPE_CHECKING:
    from ._build import build
    from ._census import census
    from ._corpus import Corpus, Part

__all__ = ["Corpus", "Part", "build", "census"]
__getattr__, __dir__ = lazy(
    __name__, {"Corpus": "._corpus", "Part": "._corpus", "build": "._build", "census": "._census"}
)
