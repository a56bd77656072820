"""Pretraining on a corpus: the settings of a run, and the run."""

from ._config import PretrainingConfig
from ._run import pretrain

__all__ = ["PretrainingConfig", "pretrain"]
