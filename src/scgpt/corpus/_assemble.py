"""A build, step by step; each step that is finished is found again by the next run."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import numpy as np

from scgpt._folders import full_disk_named
from scgpt._messages import inform
from scgpt.data import GeneVocab, derive_key

from ._collection import finish_collection, is_written, write_dataset
from ._corpus import FORMAT, KIND, MANIFEST, MEASURED, VOCAB, Corpus, Part, read_manifest
from ._genes import union_vocab
from ._selection import select
from ._sources import BadFile, Source
from ._stage import REPORT, Settings, Staged, stage

OnError = Literal["raise", "skip"]


@dataclass(frozen=True)
class Options:
    """Settings of a build, see :func:`scgpt.corpus.build`."""

    vocab: GeneVocab | None
    gene_key: str | None
    gene_mapping: Mapping[str, str] | None
    min_genes: int
    cells_per_dataset: int
    seed: int
    on_error: OnError
    overwrite: bool

    def __post_init__(self) -> None:
        for name, least in (("min_genes", 1), ("cells_per_dataset", 1), ("seed", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least}, not {getattr(self, name)}.")
        if self.on_error not in ("raise", "skip"):
            raise ValueError(f"on_error must be 'raise' or 'skip', not {self.on_error!r}.")


@dataclass
class _Errors:
    """What becomes of files that cannot be part of the corpus."""

    on_error: OnError
    skipped: dict[str, str] = field(default_factory=dict)

    @contextmanager
    def of(self, source: Source) -> Iterator[None]:
        try:
            yield
        except BadFile as error:
            if self.on_error == "raise":
                raise
            self.skipped[source.name] = str(error)
            inform(f"Skipped: {error}")

    def without(self, sources: Sequence[Source]) -> list[Source]:
        return [source for source in sources if source.name not in self.skipped]


def assemble(
    sources: Mapping[Part, Sequence[Source]],
    out: Path,
    options: Options,
    exclude: Mapping[str, set[str]],
    about: Mapping[str, Any],
) -> Corpus:
    """Build a corpus from sources.

    What is finished lies in a hidden folder beside ``out`` until all is, each thing under the hash of what it was made
    from: a later run takes what it would make itself, and nothing else.

    Parameters
    ----------
    sources
        To train on, and held out.
    out
        Folder of the corpus.
    options
        Settings.
    exclude
        Names of cells to leave out, for the names of sources.
    about
        What else the manifest says.
    """
    out = out.resolve()
    work = out.with_name(f".{out.name}.build")
    if out.exists():
        _check_replaceable(out, work, options.overwrite)
    with full_disk_named(out, "Make room and run the same again: what is finished is kept."):
        for folder in (work / "heads", work / "staged", work / "collection"):
            folder.mkdir(parents=True, exist_ok=True)
            for half_written in folder.glob(".*"):
                shutil.rmtree(half_written) if half_written.is_dir() else half_written.unlink()
        _fill(work, sources, options, exclude, about)
        if out.exists():
            out.rename(work / "replaced")
        (work / "collection").rename(out)
        shutil.rmtree(work)
    return Corpus(out)


def _check_replaceable(out: Path, work: Path, overwrite: bool) -> None:
    if read_manifest(out) is None:
        raise FileExistsError(f"{out} is there and is no corpus; name another folder.")
    if not overwrite:
        if not (work / "collection").exists():  # the run that finished it was ended before it had tidied up
            shutil.rmtree(work, ignore_errors=True)
        raise FileExistsError(f"The corpus {out} is there already; pass overwrite=True to replace it.")


def _fill(
    work: Path,
    sources: Mapping[Part, Sequence[Source]],
    options: Options,
    exclude: Mapping[str, set[str]],
    about: Mapping[str, Any],
) -> None:
    """Write the collection in its folder."""
    errors = _Errors(options.on_error)
    # Held-out files come first: of cells that two files hold, the one that is held out stays.
    part_of: dict[str, Part] = {s.name: part for part in ("held_out", "train") for s in sources[part]}
    everything = [*sources["held_out"], *sources["train"]]
    heads: dict[str, dict[str, Any]] = {}
    for source in everything:
        with errors.of(source):
            heads[source.name] = _head(source, work / "heads")
    excluded = _skip_copies(errors.without(everything), heads, exclude, errors)
    vocab = options.vocab or union_vocab(errors.without(everything), options.gene_key, options.gene_mapping, errors)

    ranges, n_datasets = {}, 0
    for part in ("train", "held_out"):
        n_cells = sum(heads[s.name]["cells"] for s in errors.without(sources[part]))
        ranges[part] = range(n_datasets, n_datasets - (-n_cells // options.cells_per_dataset))
        n_datasets = ranges[part].stop
    staged: dict[str, Staged] = {}
    for source in errors.without(everything):
        settings = Settings(
            vocab=vocab,
            gene_key=options.gene_key,
            gene_mapping=options.gene_mapping,
            min_genes=options.min_genes,
            excluded=excluded.get(source.name, set()),
            datasets=ranges[part_of[source.name]],
            key=derive_key(options.seed, source.name),
        )
        with errors.of(source):
            staged[source.name] = _stage(source, work / "staged", settings, heads[source.name])
    if not staged:
        raise ValueError(f"No file is left to build a corpus from. The first: {next(iter(errors.skipped.values()))}")

    reports = [s.report for s in staged.values()]
    kept, reasons = select(list(staged.values()))
    n_kept = {name: int(keep.sum()) for name, keep in zip(staged, kept, strict=True)}
    if not sum(n_kept[name] for name in staged if part_of[name] == "train"):
        raise ValueError(f"No cell to train on is left: {_summary(reports, reasons)}.")
    small = all(r["whole"] and r["highest"] <= np.iinfo(np.uint16).max for r in reports)
    dtype = np.dtype(np.uint16 if small else np.float32)
    datasets = []
    for part, numbers in ranges.items():
        for number in numbers:
            n_cells = sum(
                int((keep & (s.array("dataset") == number)).sum())
                for s, keep in zip(staged.values(), kept, strict=True)
            )
            if not n_cells:
                continue
            name = f"dataset_{number}"
            identity = _digest([number, options.seed, dtype.name, list(staged), [r["identity"] for r in reports]])
            if not is_written(work / "collection" / name, identity):
                write_dataset(
                    work / "collection" / name,
                    number,
                    list(staged.values()),
                    kept,
                    list(staged),
                    vocab,
                    dtype,
                    derive_key(options.seed, "shuffle", number),
                    identity,
                )
                inform(f"Dataset {number + 1} of {n_datasets} is written: {n_cells} cells.")
            datasets.append({"name": name, "part": part, "cells": n_cells})
    _finish(
        work / "collection",
        vocab,
        np.stack([np.load(s.folder / "measured.npy") for s in staged.values()]),
        {
            "kind": KIND,
            "format": FORMAT,
            "version": version("scgpt-tools"),
            **about,
            "min_genes": options.min_genes,
            "gene_key": options.gene_key,
            "seed": options.seed,
            "vocab_sha256": _digest(vocab.tokens),
            "datasets": datasets,
            "files": [
                {"name": source.name, "part": part_of[source.name], **heads.get(source.name, {})}
                | (
                    {"skipped": errors.skipped[source.name]}
                    if source.name in errors.skipped
                    else _account(staged, source.name, n_kept, dict(zip(staged, reasons, strict=True)))
                )
                for source in everything
            ],
        },
    )


def _head(source: Source, folder: Path) -> dict[str, Any]:
    """Return the number of cells and the hash of a source; it is hashed once while it stays the same."""
    path = folder / f"{_digest(source.name)[:16]}.json"
    stamp = source.stamp()
    if path.exists():
        known = json.loads(path.read_text(encoding="utf-8"))
        if known["stamp"] == stamp:
            return known["head"]
    head = {"cells": source.n_cells(), "sha256": source.sha256()}
    part = path.with_name(f".{path.name}")
    part.write_text(json.dumps({"stamp": stamp, "head": head}), encoding="utf-8")
    part.replace(path)
    return head


def _skip_copies(
    sources: Sequence[Source], heads: Mapping[str, Mapping], exclude: Mapping[str, set[str]], errors: _Errors
) -> dict[str, set[str]]:
    """Skip sources with the content of another, and exclude from that one what was to be excluded from either."""
    first_with: dict[str, str] = {}
    excluded: dict[str, set[str]] = {}
    for source in sources:
        first = first_with.setdefault(heads[source.name]["sha256"], source.name)
        excluded[first] = excluded.get(first, set()) | exclude.get(source.name, set())
        if first != source.name:
            errors.skipped[source.name] = f"same content as {first}"
            inform(f"Skipped: {source.name} has the same content as {first}.")
    return excluded


def _stage(source: Source, folder: Path, settings: Settings, head: Mapping[str, Any]) -> Staged:
    made_from = [
        head["sha256"],
        source.stamp(),
        settings.vocab.tokens,
        settings.gene_key,
        sorted((settings.gene_mapping or {}).items()),
        settings.min_genes,
        sorted(settings.excluded),
        [settings.datasets.start, settings.datasets.stop],
        settings.key,
    ]
    staged = Staged(folder / _digest(source.name)[:16])
    identity = _digest(made_from)
    if not (staged.folder / REPORT).exists() or staged.report["identity"] != identity:
        stage(source, staged.folder, settings, identity, head["sha256"])
        staged = Staged(staged.folder)
        n_cells = len(staged.array("row"))
        inform(f"{source.name}: {n_cells} of {head['cells']} cells, {staged.report['genes_matched']} genes known.")
    return staged


def _account(
    staged: Mapping[str, Staged], name: str, n_kept: Mapping[str, int], reasons: Mapping[str, dict[str, int]]
) -> dict[str, Any]:
    """Return what the manifest says of the genes and cells of a file."""
    report = staged[name].report
    return {
        **{key: report[key] for key in ("gene_key", "genes_matched", "genes_unmatched")},
        "kept": n_kept[name],
        "dropped": {reason: n for reason, n in (report["dropped"] | reasons[name]).items() if n},
    }


def _summary(reports: Sequence[Mapping], reasons: Sequence[Mapping[str, int]]) -> str:
    total: dict[str, int] = {}
    for counts in [*(r["dropped"] for r in reports), *reasons]:
        for reason, n in counts.items():
            total[reason] = total.get(reason, 0) + n
    return ", ".join(f"{n} {reason}" for reason, n in total.items() if n) or "the files hold none"


def _finish(folder: Path, vocab: GeneVocab, measured: np.ndarray, manifest: Mapping[str, Any]) -> None:
    """Make the datasets a collection, and write beside them what they are, the manifest last."""
    wanted = {dataset["name"] for dataset in manifest["datasets"]}
    for path in folder.iterdir():
        if path.name not in wanted:  # of a run with other settings, or written in part
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    finish_collection(folder)
    vocab.save(folder / VOCAB)
    np.save(folder / MEASURED, measured)
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _digest(what: Any) -> str:
    return hashlib.sha256(json.dumps(what).encode()).hexdigest()
