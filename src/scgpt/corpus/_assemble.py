"""A build, step by step; each step that is finished is found again by the next run."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import numpy as np

from scgpt._folders import full_disk_named, put_in_place, read_only_named, remove_whole, whole_file
from scgpt._messages import inform
from scgpt.data import GeneVocab, derive_key

from ._collection import finish_collection, is_written, write_dataset
from ._corpus import FORMAT, KIND, MANIFEST, MEASURED, VOCAB, Corpus, Part, digest_of, read_manifest
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
    if not (work / "collection").exists():  # the run that finished it was ended before it had tidied up
        shutil.rmtree(work, ignore_errors=True)
    if out.exists():
        _check_replaceable(out, options.overwrite)
    with full_disk_named(out, "Make room and run the same again: what is finished is kept."):
        with read_only_named(out):
            # The collection comes first, since work without it is finished.
            for folder in (work / "collection", work / "staged", work / "heads"):
                folder.mkdir(parents=True, exist_ok=True)
                for half_written in folder.glob(".*"):
                    shutil.rmtree(half_written) if half_written.is_dir() else half_written.unlink()
        try:
            _fill(work, sources, options, exclude, about)
        finally:
            if not any(path.is_file() for path in work.rglob("*")):  # nothing is finished that could be kept
                shutil.rmtree(work)
        put_in_place((work / "collection").rename(work / "finished"), out)
        shutil.rmtree(work)
    return Corpus(out)


def _check_replaceable(out: Path, overwrite: bool) -> None:
    if read_manifest(out) is None:
        raise FileExistsError(f"{out} is there and is no corpus; name another folder.")
    if not overwrite:
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
    everything = [*sources["held_out"], *sources["train"]]
    heads: dict[str, dict[str, Any]] = {}
    for source in everything:
        with errors.of(source):
            heads[source.name] = _head(source, work / "heads")
    excluded = _skip_copies(errors.without(everything), heads, exclude, errors)
    vocab = options.vocab or union_vocab(errors.without(everything), options.gene_key, options.gene_mapping, errors)
    numbers = _numbers({p: errors.without(own) for p, own in sources.items()}, heads, options.cells_per_dataset)
    staged: dict[str, Staged] = {}
    for part in ("held_out", "train"):
        for source in errors.without(sources[part]):
            settings = Settings(
                vocab=vocab,
                gene_key=options.gene_key,
                gene_mapping=options.gene_mapping,
                min_genes=options.min_genes,
                excluded=excluded.get(source.name, set()),
                datasets=numbers[part],
                key=derive_key(options.seed, source.name),
            )
            with errors.of(source):
                staged[source.name] = _stage(source, work / "staged", settings, heads[source.name])
    if not staged:
        raise ValueError(f"No file is left to build a corpus from. The first: {next(iter(errors.skipped.values()))}")

    kept, reasons = select(list(staged.values()))
    keeps, dropped = dict(zip(staged, kept, strict=True)), dict(zip(staged, reasons, strict=True))
    if not any(keeps[source.name].any() for source in errors.without(sources["train"])):
        raise ValueError(f"No cell to train on is left: {_summary(staged, dropped)}.")
    datasets = _write_datasets(work / "collection", staged, keeps, numbers, vocab, options.seed)
    files = []
    for source in everything:
        part = "held_out" if source in sources["held_out"] else "train"
        files.append({"name": source.name, "part": part, **heads.get(source.name, {})})
        if source.name in errors.skipped:
            files[-1]["skipped"] = errors.skipped[source.name]
        else:
            files[-1] |= _account(staged[source.name], keeps[source.name], dropped[source.name])
    manifest = {
        "kind": KIND,
        "format": FORMAT,
        "version": version("scgpt-tools"),
        **about,
        "min_genes": options.min_genes,
        "gene_key": options.gene_key,
        "seed": options.seed,
        "vocab_sha256": digest_of(vocab.tokens),
        "datasets": datasets,
        "files": files,
    }
    measured = np.stack([s.array("measured") for s in staged.values()])
    _finish(work / "collection", vocab, measured, manifest)


def _numbers(
    sources: Mapping[Part, Sequence[Source]], heads: Mapping[str, Mapping[str, Any]], cells_per_dataset: int
) -> dict[Part, range]:
    """Return the numbers of the datasets of each part, enough for all cells of its files."""
    numbers: dict[Part, range] = {}
    first = 0
    for part in ("train", "held_out"):
        n_cells = sum(heads[source.name]["cells"] for source in sources[part])
        numbers[part] = range(first, first - (-n_cells // cells_per_dataset))
        first = numbers[part].stop
    return numbers


def _write_datasets(
    folder: Path,
    staged: Mapping[str, Staged],
    keeps: Mapping[str, np.ndarray],
    numbers: Mapping[Part, range],
    vocab: GeneVocab,
    seed: int,
) -> list[dict[str, Any]]:
    """Write the datasets that are not there yet, and return what the manifest says of all."""
    parts = list(staged.values())
    reports = [source.report for source in parts]
    small = all(r["whole"] and r["highest"] <= np.iinfo(np.uint16).max for r in reports)
    dtype = np.dtype(np.uint16 if small else np.float32)
    datasets = []
    for part, number in [(part, number) for part, own in numbers.items() for number in own]:
        picked = [
            np.flatnonzero(keep & (source.array("dataset") == number))
            for source, keep in zip(parts, keeps.values(), strict=True)
        ]
        n_cells = sum(map(len, picked))
        if not n_cells:
            continue
        name = f"dataset_{number}"
        identity = digest_of([number, seed, dtype.name, list(staged), [r["identity"] for r in reports]])
        if not is_written(folder / name, identity):
            order = derive_key(seed, "shuffle", number)
            write_dataset(folder / name, parts, picked, list(staged), vocab, dtype, order, identity)
            inform(f"{name} is written, {n_cells} cells of about {sum(int(keep.sum()) for keep in keeps.values())}.")
        datasets.append({"name": name, "part": part, "cells": n_cells})
    return datasets


def _head(source: Source, folder: Path) -> dict[str, Any]:
    """Return the number of cells and the hash of a source; it is hashed once while it stays the same."""
    path = folder / f"{digest_of(source.name)[:16]}.json"
    stamp = source.stamp()
    if path.exists():
        known = json.loads(path.read_text(encoding="utf-8"))
        if known["stamp"] == stamp:
            return known["head"]
    head = {"cells": source.n_cells(), "sha256": source.sha256()}
    with whole_file(path) as part:
        part.write_text(json.dumps({"stamp": stamp, "head": head}), encoding="utf-8")
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
    staged = Staged(folder / digest_of(source.name)[:16])
    identity = digest_of(made_from)
    if not (staged.folder / REPORT).exists() or staged.report["identity"] != identity:
        stage(source, staged.folder, settings, identity, head["sha256"])
        staged = Staged(staged.folder)
        n_cells = len(staged.array("row"))
        inform(f"{source.name}: {n_cells} of {head['cells']} cells, {staged.report['genes_matched']} genes known.")
    return staged


def _account(staged: Staged, keep: np.ndarray, reasons: Mapping[str, int]) -> dict[str, Any]:
    """Return what the manifest says of the genes and cells of a file."""
    report = staged.report
    return {
        **{key: report[key] for key in ("gene_key", "genes_matched", "genes_unmatched")},
        "kept": int(keep.sum()),
        "dropped": {reason: n for reason, n in (report["dropped"] | reasons).items() if n},
    }


def _summary(staged: Mapping[str, Staged], reasons: Mapping[str, Mapping[str, int]]) -> str:
    """Return how many cells of all files are dropped for each reason."""
    total: Counter[str] = Counter()
    for name, source in staged.items():
        total.update(source.report["dropped"] | reasons[name])
    return ", ".join(f"{n} {reason}" for reason, n in total.items() if n) or "the files hold none"


def _finish(folder: Path, vocab: GeneVocab, measured: np.ndarray, manifest: Mapping[str, Any]) -> None:
    """Make the datasets a collection, and write beside them what they are, the manifest last."""
    wanted = {dataset["name"] for dataset in manifest["datasets"]}
    for path in folder.iterdir():
        if path.name not in wanted:  # of a run with other settings, or written in part
            remove_whole(path) if path.is_dir() else path.unlink()
    finish_collection(folder)
    vocab.save(folder / VOCAB)
    np.save(folder / MEASURED, measured)
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
