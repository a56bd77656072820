"""scvi-tools model classes."""

from ._scgpt import SCGPT

__all__ = ["SCGPT"]
