"""From the names of objectives, as a user gives them, to the objectives."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from scgpt.nn import ScGPTConfig

from ._generative import gen
from ._objectives import Cls, Dar, Ecs, Gep, Gepc, Levels, Objective, PerturbGep, Zero

OBJECTIVES: dict[str, Callable[..., Objective | tuple[Objective, ...]]] = {
    **{o.name: o for o in (Gep, Gepc, Zero, Levels, PerturbGep, Ecs, Dar, Cls)},
    "gen": gen,
}


def make_objectives(
    given: Iterable[str | Objective] | Mapping[str, float | Mapping[str, Any]],
) -> tuple[Objective, ...]:
    """Build objectives from names, from names with weights, or from names with all their settings.

    Parameters
    ----------
    given
        ``["gep", "gepc"]``, ``{"gep": 1, "ecs": 10}``, ``{"ecs": {"weight": 10, "beta": 0.6}}``, or objects.

    Returns
    -------
    The objectives, in the order given; of ``gen`` its three parts.

    Raises
    ------
    ValueError
        When a name or setting is unknown, a name stands twice, or there is none.

    Examples
    --------
    >>> from scgpt.module import make_objectives
    >>> [
    ...     (objective.name, objective.weight)
    ...     for objective in make_objectives({"gep": 1, "ecs": {"weight": 10, "beta": 0.6}})
    ... ]
    [('gep', 1), ('ecs', 10)]
    >>> [objective.name for objective in make_objectives(["gen"])]
    ['gen_gene_prompt', 'gen_gepc', 'gen_cell_prompt']
    """
    entries: Iterable[tuple[str | Objective, Any]]
    entries = given.items() if isinstance(given, Mapping) else [(entry, {}) for entry in given]
    objectives: list[Objective] = []
    for entry, settings in entries:
        if isinstance(entry, Objective):
            objectives.append(entry)
            continue
        if entry not in OBJECTIVES:
            raise ValueError(f"Unknown objective {entry!r}; known are {list(OBJECTIVES)}.")
        settings = settings if isinstance(settings, Mapping) else {"weight": settings}
        try:
            made = OBJECTIVES[entry](**settings)
        except TypeError as error:
            raise ValueError(f"Objective {entry!r} does not take these settings: {error}.") from None
        objectives += [made] if isinstance(made, Objective) else made
    names = [o.name for o in objectives]
    if not names or len(set(names)) < len(names):
        raise ValueError(f"Objectives must be at least one, each once, not {names}.")
    if is_generative(objectives) and {"gep", "gepc"} & set(names):
        raise ValueError("Objective 'gen' holds what 'gep' and 'gepc' ask for: name it, or these.")
    return tuple(objectives)


def is_generative(objectives: Iterable[Objective]) -> bool:
    """Return whether hidden genes are to be unknown, for generative attention, and not masked."""
    return any(objective.part_of == "gen" for objective in objectives)


def default_objectives(config: ScGPTConfig) -> tuple[Objective, ...]:
    """Return the objectives of masked expression that a network has heads for; where it has none, ``ecs``."""
    return make_objectives([name for name in ("gep", "gepc") if name in config.heads] or ["ecs"])


def reads_levels(objectives: Iterable[Objective], *, include_zeros: bool) -> bool:
    """Return whether objectives ask for what all measured genes are in a cell, tokens or not."""
    return not include_zeros and bool({"zero", "levels"} & {objective.name for objective in objectives})
