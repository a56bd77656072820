"""Preparation of data, where neither scanpy nor muon has it."""

from typing import TYPE_CHECKING

from scgpt._lazy import lazy

if TYPE_CHECKING:
    from ._join_modalities import join_modalities

_VERBS = {"join_modalities": "._join_modalities"}

__all__ = ["join_modalities"]
__getattr__, __dir__ = lazy(__name__, _VERBS)
