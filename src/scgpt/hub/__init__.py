"""Where checkpoints come from and go to."""

from ._checkpoint import ADATA, MDATA, Checkpoint, LoadReport, check_target, read_checkpoint, write_checkpoint
from ._official import read_official
from ._resolve import cache_folder, known_checkpoints, read, resolve

__all__ = [
    "ADATA",
    "MDATA",
    "Checkpoint",
    "LoadReport",
    "cache_folder",
    "check_target",
    "known_checkpoints",
    "read",
    "read_checkpoint",
    "read_official",
    "resolve",
    "write_checkpoint",
]
