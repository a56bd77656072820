"""The network together with what it is trained for."""

from ._losses import (
    bernoulli_nll,
    elastic_cell_similarity,
    masked_cross_entropy,
    masked_mse,
    masked_relative_error,
    zero_nll,
)
from ._module import ScGPTModule
from ._objectives import OBJECTIVES, Cls, Dar, Ecs, Gep, Gepc, Objective, Zero, default_objectives, make_objectives

__all__ = [
    "OBJECTIVES",
    "Cls",
    "Dar",
    "Ecs",
    "Gep",
    "Gepc",
    "Objective",
    "ScGPTModule",
    "Zero",
    "bernoulli_nll",
    "default_objectives",
    "elastic_cell_similarity",
    "make_objectives",
    "masked_cross_entropy",
    "masked_mse",
    "masked_relative_error",
    "zero_nll",
]
