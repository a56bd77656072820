import json
from pathlib import Path

import numpy as np
import pandas as pd
import yaml

from scgpt.cli import main
from scgpt.data import GeneVocab, match_genes
from scgpt.pretraining import PretrainingConfig

from ._bytes import damage_bytes
from ._json import change_value
from ._oracle import Case
from ._text import damage_lines


def test_gene_mapping(fuzz, tmp_path: Path):
    path = tmp_path / "mapping.tsv"
    vocab = GeneVocab.from_genes([f"G{i}" for i in range(9)])
    var = pd.DataFrame(index=[f"ENSG{i:011d}" for i in range(8)] + ["G8"])

    def make(rng: np.random.Generator) -> Case:
        _renew(path, "".join(f"ENSG{i:011d}\tG{i}\n" for i in range(8)))
        name = damage_bytes(rng, path) if rng.random() < 0.4 else damage_lines(rng, path)
        return Case(name, lambda: match_genes(var, vocab, gene_mapping=path), is_right)

    def is_right(match: object) -> None:
        for token, name in zip(match.token_ids[match.token_ids >= 0], match.matched, strict=True):
            assert int(name.removeprefix("ENSG").removeprefix("G")) < 9
            assert vocab.tokens[token].startswith("G")

    fuzz(make, 12)


def test_pretraining_yaml(fuzz, tmp_path: Path):
    path = tmp_path / "run.yaml"
    settings = {
        "corpus": "corpus.zarr", "out": "run", "model": None, "network": {"d_model": 16, "n_layers": 1}, "lr": 1e-4,
        "tokenizer": {"n_bins": 7}, "objectives": {"gen": 1.0, "ecs": {"weight": 1.0, "beta": 0.3}},
        "mask_share": [0.25, 0.5], "batch_size": 32, "loggers": ["tensorboard"], "max_steps": 3, "schedule": "cosine",
        "devices": 1, "seed": 0, "grow_vocabulary": False,
    }  # fmt: skip
    texts = (
        "",
        "- 1",
        "a",
        "lr: [",
        "a: &a [*a]",
        "&a [*a]",
        "!!python/object:os.system x",
        "1: 2",
        "? [a]\n: b",
        "\t",
        "lr: 1e-4\n" * 2,
    )

    def make(rng: np.random.Generator) -> Case:
        _renew(path, yaml.safe_dump(settings))
        kind = rng.random()
        if kind < 0.2:
            name = damage_bytes(rng, path)
        elif kind < 0.35:
            name = damage_lines(rng, path)
        elif kind < 0.5:
            name = str(rng.choice([*texts, "[" * 20_000]))
            path.write_text(name)
        else:
            changed, name = change_value(rng, settings)
            path.write_text(yaml.safe_dump(changed, allow_unicode=True))
        changes = None if rng.random() < 0.7 else _changes(rng)
        return Case(f"{name:.60}, changes {changes}", lambda: PretrainingConfig.from_yaml(path, changes), is_right)

    def is_right(config: PretrainingConfig) -> None:
        assert config.batch_size >= 1
        assert np.isfinite(config.lr)
        assert all(0 < share <= 1 for share in np.atleast_1d(config.shares))
        assert PretrainingConfig.from_dict(yaml.safe_load(config.to_yaml())).to_yaml() == config.to_yaml()

    fuzz(make, 30)


def test_cells_to_exclude(fuzz, tmp_path: Path, capsys):
    from ._json import damage_json

    path, file = tmp_path / "exclude.json", tmp_path / "cells.h5ad"
    file.write_bytes(b"no cells")

    def make(rng: np.random.Generator) -> Case:
        _renew(
            path, json.dumps({"data": "cells", "test_cells": ["a", "b"]} if rng.random() < 0.5 else {"cells": ["a"]})
        )
        name = damage_json(rng, path)
        arguments = ["corpus", "build", str(file), "--out", str(tmp_path / "out.zarr"), "--exclude", str(path)]
        return Case(name, lambda: (main(arguments), capsys.readouterr().err), is_right)

    def is_right(answer: tuple[int, str]) -> None:
        status, shown = answer
        assert status == 1
        assert shown.count("\n") == 1
        assert 20 <= len(shown) < 1000

    fuzz(make, 8)


def _changes(rng: np.random.Generator) -> dict[str, object]:
    names = (
        "lr",
        "lr.x",
        "network.d_model",
        "network",
        "network.",
        ".",
        "",
        "tokenizer.n_bins",
        "objectives.gen",
        "none",
    )
    values = (1, -1, 0.5, float("nan"), "x", None, [], {}, True, 10**30, float("inf"))
    return {names[rng.integers(len(names))]: values[rng.integers(len(values))]}


def _renew(path: Path, text: str) -> None:
    if path.is_dir():
        path.rmdir()
    path.write_text(text, encoding="utf-8")
