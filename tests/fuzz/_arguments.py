"""Values that an argument is not meant to have."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

ODD: tuple[Any, ...] = (
    None, "", "none", "X", "log", "cell_type", "symbol", "a/b", -1, 0, 1, 2, 10**6, 10**30, 1.5, -0.5, float("nan"), float("inf"), True,
    False, [], {}, (), [1], ["none"], {"a": 1}, {"GENE1": None}, ("a", "b"), b"x", object(), np.array([]), np.int64(3),
    Path("nowhere/at/all"), Path("."), len, int, range(3), {"none"}, "é" * 500,
)  # fmt: skip


def odd_arguments(
    rng: np.random.Generator, names: Sequence[str], given: Mapping[str, Any]
) -> tuple[str, dict[str, Any]]:
    """Return arguments of which one or two have odd values, and say which."""
    chosen = list(rng.choice(names, size=1 if rng.random() < 0.8 else 2, replace=False))
    odd = {str(name): ODD[rng.integers(len(ODD))] for name in chosen}
    return ", ".join(f"{name}={value!r:.40}" for name, value in odd.items()), {**given, **odd}
