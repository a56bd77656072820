"""The command line: ``scgpt ...`` or ``python -m scgpt ...``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit status: 0, or with one line that says what to do 1, and 130 if interrupted."""
    args = _parser().parse_args(arguments)
    try:
        args.run(args)
    except (ValueError, KeyError, OSError, ImportError, FloatingPointError) as error:
        message = error.args[0] if isinstance(error, KeyError) else error  # KeyError shows its message in quotes
        print(f"scgpt {args.command}: {message}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"\nscgpt {args.command}: interrupted; {args.interrupted}.", file=sys.stderr)
        return 130
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="scgpt", description="scGPT, a foundation model of single cells.")
    parser.add_argument("--version", action="version", version=f"scgpt-tools {version('scgpt-tools')}")
    commands = parser.add_subparsers(dest="command", required=True)

    embed = commands.add_parser("embed", help="embed the cells of an h5ad file")
    embed.add_argument("file", type=Path, help="h5ad file with counts or log-normalised values")
    embed.add_argument("--model", required=True, help="checkpoint's name (whole-human, blood, ...) or folder")
    embed.add_argument("--out", type=Path, required=True, help="h5ad file to write, the input with the embedding")
    embed.add_argument("--layer", help="layer with the expression; X by default")
    embed.add_argument("--gene-key", help="column of .var with gene names; found by itself by default")
    embed.add_argument("--gene-mapping", type=Path, help="CSV or TSV: names in the data, names in the model")
    embed.add_argument("--max-length", type=int, help="most tokens of a cell; by default the model's")
    embed.add_argument("--precision", choices=("auto", "float32", "bfloat16"), default="auto")
    embed.add_argument("--key-added", default="X_scGPT", help="key of .obsm")
    embed.set_defaults(run=_embed, interrupted="nothing is written")

    convert = commands.add_parser("convert", help="convert a checkpoint of the authors to safetensors and JSON")
    convert.add_argument("model", help="checkpoint's name (whole-human, blood, ...) or folder")
    convert.add_argument("out", type=Path, help="folder to write")
    convert.add_argument("--overwrite", action="store_true", help="replace the folder if it is there")
    convert.set_defaults(run=_convert, interrupted="nothing is written")

    corpus = commands.add_parser("corpus", help="build a corpus to pretrain on").add_subparsers(required=True)
    build = corpus.add_parser("build", help="from h5ad and zarr files")
    build.add_argument(
        "files", nargs="+", type=Path, help="h5ad, zarr or h5mu files with counts or log-normalised values"
    )
    build.add_argument("--held-out", nargs="+", type=Path, default=[], help="files whose cells are for validation")
    build.add_argument(
        "--exclude",
        nargs="+",
        type=Path,
        default=[],
        help="""JSON files with cells to leave out: objects
        of file names and lists of cells, or such as in benchmarks/splits""",
    )
    build.add_argument("--layer", help="layer with the expression; X by default")
    build.add_argument("--on-error", choices=("raise", "skip"), default="raise", help="what to do with a bad file")
    build.set_defaults(run=_corpus_build)

    census = corpus.add_parser("census", help="from CELLxGENE Census or another TileDB-SOMA experiment")
    census.add_argument("query", help="an organ, pan-cancer, or a filter of cells")
    census.add_argument("--uri", help="of an experiment; the census by default")
    census.add_argument("--version", default="stable", help="of the census")
    census.add_argument("--held-out", help="filter of cells that are for validation")
    census.add_argument(
        "--primary",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="""only cells with
        is_primary_data; the authors took all""",
    )
    census.set_defaults(run=_corpus_census)
    for command in (build, census):
        command.add_argument("--out", type=Path, required=True, help="folder to write, such as corpus.zarr")
        command.add_argument("--vocab", type=Path, help="vocab.json, or a checkpoint's folder; all genes by default")
        command.add_argument("--gene-key", help="column of .var with gene names; found by itself by default")
        command.add_argument("--gene-mapping", type=Path, help="CSV or TSV: names in the data, names in the vocabulary")
        command.add_argument("--min-genes", type=int, default=50, help="fewest expressed genes of a cell")
        command.add_argument("--seed", type=int, default=0, help="of the order of cells")
        command.add_argument("--overwrite", action="store_true", help="replace a corpus that is there")
        command.set_defaults(interrupted="the same command goes on with what is finished")

    pretrain = commands.add_parser("pretrain", help="pretrain on a corpus, or go on with a run that was cut off")
    pretrain.add_argument("--config", type=Path, required=True, help="YAML file with the settings of the run")
    pretrain.add_argument(
        "--set",
        nargs="+",
        default=[],
        metavar="NAME=VALUE",
        help="settings in place of those in the file, such as lr=3e-4 network.d_model=128",
    )
    pretrain.set_defaults(run=_pretrain, interrupted="the same command goes on from the last state")
    return parser


def _embed(args: argparse.Namespace) -> None:
    import anndata

    import scgpt.tl
    from scgpt._folders import full_disk_named, read_only_named, whole_file
    from scgpt._formats import DAMAGE

    if args.out.resolve() == args.file.resolve():
        raise ValueError(f"--out names the input, {args.file}; name another file.")
    for option, path in (("the input", args.file), ("--out", args.out)):
        if path.suffix != ".h5ad":
            raise ValueError(f"{option} must be an .h5ad file, not {path}.")
    if not args.out.parent.is_dir():
        raise FileNotFoundError(f"there is no folder {args.out.parent} to write to.")
    if not args.file.is_file():
        raise FileNotFoundError(f"there is no file {args.file}.")
    try:
        adata = anndata.read_h5ad(args.file)
    except DAMAGE as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"{args.file} cannot be read, it is damaged or no h5ad file: {reason:.300}") from error
    scgpt.tl.embed(
        adata,
        args.model,
        layer=args.layer,
        gene_key=args.gene_key,
        gene_mapping=args.gene_mapping,
        max_length=args.max_length,
        precision=args.precision,
        key_added=args.key_added,
    )
    record = adata.uns["scgpt"][args.key_added]
    print(
        f"{adata.n_obs} cells; {record['n_genes_matched']} of {adata.n_vars} genes known (.var {record['gene_key']!r})"
    )
    folder = args.out.resolve().parent
    with full_disk_named(folder, "Free some space and run the same again."), read_only_named(folder):
        with whole_file(args.out) as part:
            adata.write_h5ad(part)


def _convert(args: argparse.Namespace) -> None:
    from scgpt import hub

    if args.out.is_dir() and any(args.out.iterdir()) and not args.overwrite:
        raise FileExistsError(f"{args.out} is not empty; name another folder, or replace a checkpoint by --overwrite.")
    checkpoint = hub.read(args.model)
    hub.write_checkpoint(checkpoint, args.out, overwrite=args.overwrite)
    print(checkpoint.report)


def _pretrain(args: argparse.Namespace) -> None:
    import yaml
    from lightning.pytorch.utilities import rank_zero_only

    from scgpt.pretraining import PretrainingConfig, pretrain

    changes: dict[str, Any] = {}
    for change in args.set:
        name, given, value = change.partition("=")
        if not given:
            raise ValueError(f"--set takes NAME=VALUE, not {change!r}.")
        try:
            changes[name] = yaml.safe_load(value)
        except (yaml.YAMLError, ValueError, RecursionError):
            raise ValueError(f"--set {name}=...: {value!r:.50} is not valid YAML.") from None
    # Lightning draws its bar on stdout, which is for the model's folder where it goes to a file or another command.
    folder = pretrain(PretrainingConfig.from_yaml(args.config, changes), progress_bar=sys.stdout.isatty())
    if rank_zero_only.rank == 0:
        print(folder)


def _corpus_build(args: argparse.Namespace) -> None:
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
        **_corpus_settings(args),
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


def _corpus_census(args: argparse.Namespace) -> None:
    from scgpt.corpus import census

    settings = _corpus_settings(args)
    if settings["gene_key"] is None:
        del settings["gene_key"]
    where = {"uri": args.uri, "version": args.version, "held_out": args.held_out, "primary": args.primary}
    print(census(args.query, **where, **settings))


def _corpus_settings(args: argparse.Namespace) -> dict[str, Any]:
    """Return what both ways to a corpus have in common."""
    names = ("out", "vocab", "gene_key", "gene_mapping", "min_genes", "seed", "overwrite")
    return {name: getattr(args, name) for name in names}
