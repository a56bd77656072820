"""Learning-rate schedules."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Schedule:
    """The learning rate's factor as a function of the optimiser's step.

    Parameters
    ----------
    kind
        ``"constant"``; ``"cosine"``: half a cosine down to 0 at the last step; ``"epoch_decay"``: times
        ``decay`` after each epoch, as the authors fine-tune.
    warmup_steps
        Steps over which the factor rises linearly from 0 first.
    decay
        Factor of ``"epoch_decay"``.

    Raises
    ------
    ValueError
        When a setting is out of range.

    Examples
    --------
    >>> from scgpt.train import Schedule
    >>> schedule = Schedule("cosine", warmup_steps=10)
    >>> [round(schedule.factor(step, total_steps=110, steps_per_epoch=50), 2) for step in (0, 5, 10, 60, 110)]
    [0.1, 0.6, 1.0, 0.5, 0.0]
    """

    kind: Literal["constant", "cosine", "epoch_decay"] = "constant"
    warmup_steps: int = 0
    decay: float = 0.9

    def __post_init__(self) -> None:
        if self.kind not in ("constant", "cosine", "epoch_decay"):
            raise ValueError(f"schedule must be 'constant', 'cosine' or 'epoch_decay', not {self.kind!r}.")
        if self.warmup_steps < 0 or not 0 < self.decay <= 1:
            raise ValueError(f"warmup_steps must be at least 0 and decay in (0, 1], not {self}.")

    def factor(self, step: int, total_steps: int, steps_per_epoch: int) -> float:
        """Return the factor at a step, counted from 0."""
        if step < self.warmup_steps:
            return (step + 1) / self.warmup_steps
        if self.kind == "cosine":
            progress = (step - self.warmup_steps) / max(total_steps - self.warmup_steps, 1)
            return (1 + math.cos(math.pi * min(progress, 1.0))) / 2
        if self.kind == "epoch_decay":
            return self.decay ** (step // steps_per_epoch)
        return 1.0
