"""Damage to JSON files."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np

from ._bytes import damage_bytes

_VALUES: tuple[Any, ...] = (
    None, True, False, -1, 0, 1, 2, 1.5, -0.5, 1e308, float("nan"), float("inf"), 2**31, 2**63, 10**30, 10**400, "", "x", "cls",
    "../x", "\x00", "é\u2028", [], {}, [[]], {"a": 1}, [1, "a", None],
)  # fmt: skip
_TEXTS: tuple[tuple[str, bytes], ...] = (
    ("nothing", b""),
    ("null", b"null"),
    ("a number", b"12"),
    ("a string", b'"text"'),
    ("a list", b"[1, 2]"),
    ("an empty object", b"{}"),
    ("deeply nested lists", b"[" * 200_000),
    ("deeply nested objects", b'{"a":' * 200_000),
    ("a number of 10,000 digits", b'{"a": ' + b"9" * 10_000 + b"}"),
    ("half a surrogate pair", b'{"\\ud800": 0}'),
    ("a web page", b"<!doctype html><title>404</title>"),
    ("a file of UTF-16", json.dumps({"a": 1}).encode("utf-16")),
)


def damage_json(rng: np.random.Generator, path: Path) -> str:
    """Damage a JSON file, its text or its values, and say how."""
    kind = rng.random()
    if kind < 0.2:
        return f"{path.name}: {damage_bytes(rng, path)}"
    if kind < 0.4:
        name, text = _TEXTS[rng.integers(len(_TEXTS))]
        path.write_bytes(text)
        return f"{path.name} holds {name}"
    value = json.loads(path.read_text(encoding="utf-8"))
    changed, name = change_value(rng, value)
    text = json.dumps(changed)
    if kind < 0.5 and isinstance(value, dict) and value:  # a key twice, of which readers take the last
        key = list(value)[rng.integers(len(value))]
        text = json.dumps(value)[:-1] + f", {json.dumps(key)}: {json.dumps(_VALUES[rng.integers(len(_VALUES))])}}}"
        name = f"{key!r} twice"
    path.write_text(text, encoding="utf-8")
    return f"{path.name}: {name}"


def change_value(rng: np.random.Generator, value: Any) -> tuple[Any, str]:
    """Return plain nested values with one of them changed, left out or added, and say which."""
    value = copy.deepcopy(value)
    places = list(_places(value))
    parent, key, name = places[rng.integers(len(places))]
    kind = rng.random()
    if kind < 0.15:
        del parent[key]
        return value, f"without {name}"
    new = _VALUES[rng.integers(len(_VALUES))]
    if kind < 0.25 and isinstance(parent, dict):
        parent["another"] = new
        return value, f"another key beside {name}"
    if kind < 0.35 and isinstance(parent, dict):
        parent[f"{key}_"] = parent.pop(key)
        return value, f"{name} renamed"
    if kind < 0.45:
        parent[key] = [parent[key]] if rng.random() < 0.5 else {"a": parent[key]}
        return value, f"{name} wrapped"
    parent[key] = new
    return value, f"{name} = {new!r:.40}"


def _places(value: Any, name: str = "") -> Any:
    """Yield parent, key and name of all values in a tree; of long lists only the ends."""
    keys = list(value) if isinstance(value, dict) else list(range(len(value))) if isinstance(value, list) else []
    for key in keys if len(keys) < 50 else [*keys[:3], *keys[-3:]]:
        yield value, key, f"{name}/{key}"
        yield from _places(value[key], f"{name}/{key}")
