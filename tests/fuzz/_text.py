"""Damage to tables and other files of lines."""

from __future__ import annotations

from pathlib import Path

import numpy as np

_ODD_LINES = (
    "", "\t\t\t", " ", "\x00", "\ufeff", "# comment", "one", "a" * 100_000, '"', "a\tb\tc\td\te\tf\tg\th", ",,,", "'\"\t'", "\r",
    "é\u2028ü\tß\t€", "NaN\tNaN\tNaN", "\\\t\\\t\\", "=1+1\t@x\t-2",
)  # fmt: skip


def damage_lines(rng: np.random.Generator, path: Path) -> str:
    """Change, repeat, drop or add a line of a text file, or what stands between its fields, and say how."""
    lines = path.read_text(encoding="utf-8").split("\n")
    at = int(rng.integers(len(lines)))
    kind = rng.choice(["odd", "odd", "twice", "drop", "separator", "line ends", "shuffle", "quote", "encoding"])
    odd = _ODD_LINES[rng.integers(len(_ODD_LINES))]
    encoding, end = "utf-8", "\n"
    if kind == "odd":
        lines.insert(at, odd)
    elif kind == "twice":
        lines.insert(at, lines[at])
    elif kind == "drop":
        lines[at:] = [] if rng.random() < 0.5 else lines[at + 1 :]
    elif kind == "separator":
        lines = [line.replace("\t", str(rng.choice([",", ";", " ", "  ", "|", "\t\t"]))) for line in lines]
    elif kind == "line ends":
        end = str(rng.choice(["\r\n", "\r", "\n\n", "\x0b"]))
    elif kind == "shuffle":
        lines = [lines[i] for i in rng.permutation(len(lines))]
    elif kind == "quote":
        lines[at] = '"' + lines[at]
    else:
        lines[at] = f"é{lines[at]}"
        encoding = str(rng.choice(["latin-1", "utf-16", "utf-32", "utf-8-sig"]))
    path.write_bytes(end.join(lines).encode(encoding))
    return f"{path.name}: {kind} at line {at}" + (f", {odd!r:.30}" if kind == "odd" else "")
