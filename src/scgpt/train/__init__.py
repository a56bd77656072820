"""Training: loaders whose state is kept, the plan, and the run."""

from ._adapters import Lora, adapted
from ._ahead import ahead
from ._corpus_loader import CorpusLoader
from ._corpus_order import CorpusOrder
from ._freezing import check_trainable, frozen, parts_of
from ._history import EpochMeans
from ._loader import Split, TokenDataModule, TokenLoader, split_cells
from ._order import CellOrder
from ._pairs import PairDataModule, PairLoader
from ._parts import PartOfStep
from ._plan import ScGPTTrainingPlan, parameter_groups
from ._precision import training_precision
from ._quiet import lightning_quiet
from ._resumable import ResumableLoader
from ._runner import ScGPTTrainRunner, interrupts_raised
from ._schedule import Schedule
from ._speed import Speed, known_peak
from ._states import WholeCheckpoints, check_settings, checkpoint_callback, latest_checkpoint, remove_other_states

__all__ = [
    "CellOrder",
    "CorpusLoader",
    "CorpusOrder",
    "EpochMeans",
    "Lora",
    "PairDataModule",
    "PairLoader",
    "PartOfStep",
    "ResumableLoader",
    "ScGPTTrainRunner",
    "ScGPTTrainingPlan",
    "Schedule",
    "Speed",
    "Split",
    "TokenDataModule",
    "TokenLoader",
    "WholeCheckpoints",
    "adapted",
    "ahead",
    "check_settings",
    "check_trainable",
    "checkpoint_callback",
    "frozen",
    "interrupts_raised",
    "known_peak",
    "latest_checkpoint",
    "lightning_quiet",
    "parameter_groups",
    "parts_of",
    "remove_other_states",
    "split_cells",
    "training_precision",
]
