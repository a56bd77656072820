"""JSON files that may be damaged."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any


def read_object(path: Path, what_now: str = "download or write it again") -> dict[str, Any]:
    """Read a JSON object from a file.

    Parameters
    ----------
    path
        The file.
    what_now
        What the user is to do if it is damaged, for the message.

    Raises
    ------
    OSError
        When the file is not there or cannot be read.
    ValueError
        When it holds no JSON object, or one with a key that stands twice.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=_each_once)
    except (ValueError, RecursionError) as error:  # ValueErrors are those of JSON, UTF-8 and numbers of 5,000 digits
        raise ValueError(f"{path} is not valid JSON ({error}); {what_now}.") from None
    if not isinstance(content, dict):
        raise ValueError(f"{path} holds no JSON object; {what_now}.")
    return content


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        raise ValueError(f"the key {Counter(key for key, _ in pairs).most_common(1)[0][0]!r} stands twice")
    return content
