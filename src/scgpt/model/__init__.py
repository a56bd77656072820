"""scvi-tools model classes."""

from ._annotator import SCGPTAnnotator
from ._embedding import Precision, resolve_precision
from ._scgpt import SCGPT

__all__ = ["SCGPT", "Precision", "SCGPTAnnotator", "resolve_precision"]
