"""The command line: ``scgpt ...`` or ``python -m scgpt ...``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit status: 0, or 1 with one line that says what to do."""
    args = _parser().parse_args(arguments)
    try:
        args.run(args)
    except (ValueError, KeyError, OSError) as error:
        message = error.args[0] if isinstance(error, KeyError) else error  # KeyError shows its message in quotes
        print(f"scgpt {args.command}: {message}", file=sys.stderr)
        return 1
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
    embed.set_defaults(run=_embed)

    convert = commands.add_parser("convert", help="convert a checkpoint of the authors to safetensors and JSON")
    convert.add_argument("model", help="checkpoint's name (whole-human, blood, ...) or folder")
    convert.add_argument("out", type=Path, help="folder to write")
    convert.add_argument("--overwrite", action="store_true", help="replace the folder if it is there")
    convert.set_defaults(run=_convert)
    return parser


def _embed(args: argparse.Namespace) -> None:
    import anndata

    import scgpt.tl

    if args.out.resolve() == args.file.resolve():
        raise ValueError(f"--out names the input, {args.file}; name another file.")
    for option, path in (("the input", args.file), ("--out", args.out)):
        if path.suffix != ".h5ad":
            raise ValueError(f"{option} must be an .h5ad file, not {path}.")
    if not args.out.parent.is_dir():
        raise FileNotFoundError(f"there is no folder {args.out.parent} to write to.")
    adata = anndata.read_h5ad(args.file)
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
    # The file takes its place only once it is whole.
    part = args.out.with_name(f".{args.out.name}.part")
    adata.write_h5ad(part)
    part.replace(args.out)


def _convert(args: argparse.Namespace) -> None:
    from scgpt import hub

    if args.out.is_dir() and any(args.out.iterdir()) and not args.overwrite:
        raise FileExistsError(f"{args.out} is not empty; name another folder, or replace a checkpoint by --overwrite.")
    checkpoint = hub.read(args.model)
    hub.write_checkpoint(checkpoint, args.out, overwrite=args.overwrite)
    print(checkpoint.report)
