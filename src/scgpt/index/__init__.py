"""Nearest reference cells by cosine, over the embeddings of any model."""

from typing import TYPE_CHECKING

from scgpt._lazy import lazy

if TYPE_CHECKING:
    from ._reference import Neighbors, ReferenceIndex
    from ._voting import Votes

__all__ = ["Neighbors", "ReferenceIndex", "Votes"]
__getattr__, __dir__ = lazy(
    __name__, {"Neighbors": "._reference", "ReferenceIndex": "._reference", "Votes": "._voting"}
)
