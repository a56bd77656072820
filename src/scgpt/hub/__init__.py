"""Where checkpoints come from and go to."""

from ._card import ModelCard
from ._checkpoint import ADATA, MDATA, Checkpoint, LoadReport, check_target, read_checkpoint, write_checkpoint
from ._huggingface import is_repository, upload
from ._official import read_official
from ._resolve import cache_folder, known_checkpoints, read, resolve

__all__ = [
    "ADATA",
    "MDATA",
    "Checkpoint",
    "LoadReport",
    "ModelCard",
    "cache_folder",
    "check_target",
    "is_repository",
    "known_checkpoints",
    "read",
    "read_checkpoint",
    "read_official",
    "resolve",
    "upload",
    "write_checkpoint",
]
