"""Training: loaders whose state is kept, the plan, and the run."""

from ._loader import Split, TokenDataModule, TokenLoader, split_cells
from ._order import CellOrder
from ._plan import ScGPTTrainingPlan, parameter_groups
from ._runner import ScGPTTrainRunner, check_settings, checkpoint_callback, latest_checkpoint
from ._schedule import Schedule

__all__ = [
    "CellOrder",
    "Schedule",
    "ScGPTTrainRunner",
    "ScGPTTrainingPlan",
    "Split",
    "TokenDataModule",
    "TokenLoader",
    "check_settings",
    "checkpoint_callback",
    "latest_checkpoint",
    "parameter_groups",
    "split_cells",
]
