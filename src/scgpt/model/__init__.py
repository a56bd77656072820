"""scvi-tools model classes."""

from ._embedding import Precision, resolve_precision
from ._scgpt import SCGPT

__all__ = ["SCGPT", "Precision", "resolve_precision"]
