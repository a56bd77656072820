"""What the verbs left in the data, which plots read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd


def written(store: Mapping[str, Any], key: str, where: str, call: str) -> Any:
    """Return what a verb left under a key.

    Raises
    ------
    KeyError
        When it is not there, with the call that writes it.
    """
    if key not in store:
        raise KeyError(f"There is no {key!r} in {where}: call scgpt.tl.{call} first.")
    return store[key]


def written_table(store: Mapping[str, Any], key: str, where: str, call: str, columns: Sequence[str]) -> pd.DataFrame:
    """Return a table that a verb left under a key.

    Raises
    ------
    KeyError
        When it is not there, with the call that writes it.
    ValueError
        When it is something else.
    """
    import pandas as pd

    found = written(store, key, where, call)
    if not isinstance(found, pd.DataFrame) or (lacking := [name for name in columns if name not in found]):
        what = f"has no column {lacking[0]!r}" if isinstance(found, pd.DataFrame) else "is no table"
        raise ValueError(f"{where}[{key!r}] {what}: it is not what scgpt.tl.{call} writes.")
    return found
