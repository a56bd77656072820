"""The network together with what it is trained for."""

from ._generation import generate
from ._generative import CellPrompt, GenePrompt, GenGepc, gen
from ._losses import (
    bernoulli_nll,
    elastic_cell_similarity,
    masked_cross_entropy,
    masked_mse,
    masked_relative_error,
    mean_over_genes,
    zero_nll,
)
from ._make import OBJECTIVES, default_objectives, is_generative, make_objectives, reads_levels
from ._memory import MemoryLimit, is_out_of_memory
from ._module import ScGPTModule
from ._objectives import Cls, Dar, Ecs, Gep, Gepc, Levels, MeanOver, Objective, PerturbGep, Zero

__all__ = [
    "OBJECTIVES",
    "CellPrompt",
    "Cls",
    "Dar",
    "Ecs",
    "GenGepc",
    "GenePrompt",
    "Gep",
    "Gepc",
    "Levels",
    "MeanOver",
    "MemoryLimit",
    "Objective",
    "PerturbGep",
    "ScGPTModule",
    "Zero",
    "bernoulli_nll",
    "default_objectives",
    "elastic_cell_similarity",
    "gen",
    "generate",
    "is_generative",
    "is_out_of_memory",
    "make_objectives",
    "masked_cross_entropy",
    "masked_mse",
    "masked_relative_error",
    "mean_over_genes",
    "reads_levels",
    "zero_nll",
]
