from pathlib import Path

import numpy as np

from scgpt.data import read_gmt

from ._bytes import damage_bytes
from ._oracle import Case
from ._text import damage_lines


def test_gmt(fuzz, tmp_path: Path):
    path = tmp_path / "sets.gmt"

    def make(rng: np.random.Generator) -> Case:
        path.unlink() if path.is_file() else path.is_dir() and path.rmdir()
        path.write_text("".join(f"SET{i}\thttp://x\tCD3D\tNKG7\tG{i}\n" for i in range(6)))
        name = damage_bytes(rng, path) if rng.random() < 0.5 else damage_lines(rng, path)
        return Case(name, lambda: read_gmt(path), _is_right)

    fuzz(make, 10)


def _is_right(sets: object) -> None:
    assert isinstance(sets, dict)
    assert sets
    assert all(name and genes and all(genes) for name, genes in sets.items())
