"""``scgpt corpus build`` and ``scgpt corpus census``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from ._options import command

_WRITES = "The folder that --out names is the corpus, for the setting `corpus` of `scgpt pretrain`."
_INTERRUPTED = "the same command goes on with what is finished"


def add(commands: Any) -> None:
    """Add the commands."""
    corpus = commands.add_parser(
        "corpus",
        help="build a corpus to pretrain on",
        description=f"Build a corpus to pretrain on. {_WRITES}",
        epilog="`scgpt corpus COMMAND --help` tells more, with an example.",
    )
    sources = corpus.add_subparsers(required=True, title="commands", metavar="COMMAND")

    build = command(
        sources,
        "build",
        does="build a corpus from h5ad, zarr and h5mu files",
        writes=_WRITES,
        example="scgpt corpus build one.h5ad two.h5ad --held-out three.h5ad --out corpus.zarr",
        run=_build,
        interrupted=_INTERRUPTED,
    )
    build.add_argument(
        "files", nargs="+", type=Path, help="h5ad, zarr or h5mu files with counts or log-normalised values"
    )
    build.add_argument(
        "--held-out", nargs="+", type=Path, default=[], help="files whose cells are for validation (default: none)"
    )
    build.add_argument(
        "--exclude",
        nargs="+",
        type=Path,
        default=[],
        help="""JSON files with cells to leave out: objects of file names and lists of cells, or such as in
        benchmarks/splits (default: none)""",
    )
    build.add_argument("--layer", help="layer with the expression (default: X)")
    build.add_argument(
        "--on-error",
        choices=("raise", "skip"),
        default="raise",
        help="what to do with a bad file (default: %(default)s)",
    )

    census = command(
        sources,
        "census",
        does="build a corpus from CELLxGENE Census or another TileDB-SOMA experiment",
        writes=_WRITES,
        example="scgpt corpus census blood --out corpus.zarr",
        run=_census,
        interrupted=_INTERRUPTED,
    )
    census.add_argument("query", help="an organ, pan-cancer, or a filter of cells")
    census.add_argument("--uri", help="of an experiment (default: that of the census)")
    census.add_argument("--version", default="stable", help="of the census (default: %(default)s)")
    census.add_argument("--held-out", help="filter of cells that are for validation (default: none)")
    census.add_argument(
        "--primary",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="only cells with is_primary_data; the authors took all (default: --primary)",
    )

    for parser in (build, census):
        parser.add_argument("--out", type=Path, required=True, help="folder to write, such as corpus.zarr")
        parser.add_argument("--vocab", type=Path, help="vocab.json, or a checkpoint's folder (default: all genes)")
        parser.add_argument("--gene-key", help="column of .var with gene names (default: found by itself)")
        parser.add_argument("--gene-mapping", type=Path, help="CSV or TSV: names in the data, names in the vocabulary")
        parser.add_argument(
            "--min-genes", type=int, default=50, help="fewest expressed genes of a cell (default: %(default)s)"
        )
        parser.add_argument("--seed", type=int, default=0, help="of the order of cells (default: %(default)s)")
        parser.add_argument("--overwrite", action="store_true", help="replace a corpus that is there")


def _build(args: argparse.Namespace) -> None:
    from scgpt.corpus import build

    exclude: dict[str | Path, list[str]] = {}
    for path in args.exclude:
        for name, cells in _cells_to_exclude(path).items():
            exclude.setdefault(name, []).extend(cells)
    corpus = build(
        args.files,
        held_out=args.held_out,
        exclude=exclude,
        layer=args.layer,
        on_error=args.on_error,
        **_settings(args),
    )
    for file in corpus.manifest["files"]:
        told = f"skipped, {file['skipped']}" if "skipped" in file else f"{file['kept']} of {file['cells']} cells"
        dropped = [f"{n} {reason}" for reason, n in file.get("dropped", {}).items()]
        print("; ".join([f"{file['name']}: {told}", *dropped]))
    print(corpus)


def _cells_to_exclude(path: Path) -> dict[str, list[str]]:
    """Read a JSON file with names of cells."""
    from scgpt._json import read_object

    cells = read_object(path, "it must hold one object of file names and lists of cells")
    if {"data", "test_cells"} <= set(cells):
        cells = {str(cells["data"]): cells["test_cells"]}
    if not all(isinstance(ids, list) for ids in cells.values()):
        raise ValueError(f"{path} must hold one object of file names and lists of cells.")
    return cells


def _census(args: argparse.Namespace) -> None:
    from scgpt.corpus import census

    settings = _settings(args)
    if settings["gene_key"] is None:
        del settings["gene_key"]
    where = {"uri": args.uri, "version": args.version, "held_out": args.held_out, "primary": args.primary}
    print(census(args.query, **where, **settings))


def _settings(args: argparse.Namespace) -> dict[str, Any]:
    """Return what both ways to a corpus have in common."""
    names = ("out", "vocab", "gene_key", "gene_mapping", "min_genes", "seed", "overwrite")
    return {name: getattr(args, name) for name in names}
