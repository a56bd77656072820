"""Columns of ``.obs`` that arguments name, of whatever type they are."""

from __future__ import annotations

from typing import Any

import pandas as pd


def column_of(obs: Any, key: Any, argument: str, where: str = ".obs") -> pd.Series:
    """Return a column.

    Parameters
    ----------
    obs
        The table, also one that was read lazily.
    key
        Its column.
    argument
        Which names the column, for the message.
    where
        The table stands, for the message.

    Raises
    ------
    KeyError
        With the columns that there are.
    ValueError
        When several have the name.
    """
    there = list(obs.columns)
    if (n := sum(isinstance(key, str) and key == name for name in there)) == 1:
        return pd.Series(obs[key])
    if n:
        raise ValueError(f"{n} columns of {where} have the name {argument}={key!r}: rename all but one of them.")
    raise KeyError(f"{argument}={key!r} is not a column of {where}; there are {there}.")


def without_missing(column: pd.Series, key: str, what: str, where: str = ".obs", fill: str = "fill") -> pd.Series:
    """Return a column in which every cell has a value.

    Parameters
    ----------
    column
        The column.
    key
        Its name, for the message.
    what
        It holds, such as a batch, for the message.
    where
        The table stands, for the message.
    fill
        What to do with the cells that lack it, other than to drop them, for the message.

    Raises
    ------
    ValueError
        When a value is missing.
    """
    if missing := int(column.isna().sum()):
        raise ValueError(f"{missing} of {len(column)} cells have no {what} in {where}[{key!r}]; {fill} or drop them.")
    return column


def as_text(column: pd.Series, key: str, where: str = ".obs") -> pd.Series:
    """Return the values of a column as text, dtype object; missing ones stay NaN.

    Numbers, booleans, categories and what Arrow keeps are all names of groups: 1 and 1.0, what 1 becomes where another
    cell has none, are ``"1"``.

    Raises
    ------
    ValueError
        When two values read the same, such as 1 and ``"1"``.
    """
    return as_categories(column, key, where).astype(object)


def as_categories(column: pd.Series, key: str, where: str = ".obs") -> pd.Series:
    """Return the values of a column as categories that are text.

    Those of a categorical column keep their order, also those that no cell has; other values are sorted as they are.

    Raises
    ------
    ValueError
        As :func:`as_text` does.
    """
    values = column.astype("category").cat
    names = pd.Index([_text(value) for value in values.categories], dtype=object)
    if twice := sorted(set(names[names.duplicated()])):
        raise ValueError(f"Values of {where}[{key!r}] read the same as text, {twice[:5]}; rename one of each.")
    return pd.Series(pd.Categorical.from_codes(values.codes, names), column.index, name=column.name)


def _text(value: Any) -> str:
    return str(int(value) if isinstance(value, float) and value.is_integer() else value)
