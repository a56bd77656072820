"""scvi-tools model classes."""

from ._annotator import SCGPTAnnotator
from ._attention import GeneAttention
from ._generation import Prompt, resolve_prompt
from ._multi import MultiSCGPT
from ._passes import Precision, resolve_precision
from ._perturbation import SCGPTPerturbation
from ._perturbations import PerturbationNames
from ._recipe import epochs_of
from ._response import PredictedProfiles
from ._scgpt import SCGPT

__all__ = [
    "SCGPT",
    "GeneAttention",
    "MultiSCGPT",
    "PerturbationNames",
    "Precision",
    "PredictedProfiles",
    "Prompt",
    "SCGPTAnnotator",
    "SCGPTPerturbation",
    "epochs_of",
    "resolve_precision",
    "resolve_prompt",
]
