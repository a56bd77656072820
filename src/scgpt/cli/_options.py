"""What the commands have in common: how their help looks, and options of several of them."""

from __future__ import annotations

import argparse
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

MODEL = (
    "mini, the small model that is part of the package; whole-human or continual, which are downloaded; the folder of a "
    "checkpoint or saved model; or user/name on the Hugging Face hub"
)


def command(
    commands: Any,
    name: str,
    *,
    does: str,
    writes: str,
    example: str,
    run: Callable[[argparse.Namespace], None],
    interrupted: str = "nothing is written",
) -> argparse.ArgumentParser:
    """Add a command.

    Parameters
    ----------
    commands
        What :meth:`argparse.ArgumentParser.add_subparsers` returned.
    name
        Of the command.
    does
        What it does, in one line, for the list of commands.
    writes
        A sentence on where the result is written.
    example
        Calls of it, a line each.
    run
        Does it.
    interrupted
        What is there if it is interrupted.
    """
    parser = commands.add_parser(
        name,
        help=does,
        description=textwrap.fill(" ".join(f"{does[0].upper()}{does[1:]}. {writes}".split()), 79),
        epilog="example:\n" + textwrap.indent(example, "  "),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(run=run, interrupted=interrupted)
    return parser


def add_expression(parser: argparse.ArgumentParser) -> None:
    """Add where the expression is and what genes are called, for :func:`expression_of`."""
    parser.add_argument("--layer", help="layer with the expression (default: X)")
    parser.add_argument("--gene-key", help="column of .var with gene names (default: found by itself)")
    parser.add_argument("--gene-mapping", type=Path, help="CSV or TSV: names in the data, names in the model")


def expression_of(args: argparse.Namespace) -> dict[str, Any]:
    """Return these options as arguments of a verb."""
    return {name: getattr(args, name) for name in ("layer", "gene_key", "gene_mapping")}


def add_embedding(parser: argparse.ArgumentParser) -> None:
    """Add how cells are embedded, for :func:`embedding_of`."""
    parser.add_argument("--max-length", type=int, help="most tokens of a cell (default: the model's)")
    parser.add_argument(
        "--precision",
        choices=("auto", "float32", "bfloat16"),
        default="auto",
        help="of the network; auto is bfloat16 on GPUs that have it (default: %(default)s)",
    )


def embedding_of(args: argparse.Namespace) -> dict[str, Any]:
    """Return these options as arguments of a verb."""
    return {name: getattr(args, name) for name in ("max_length", "precision")}


def add_training(parser: argparse.ArgumentParser) -> None:
    """Add how long to train, and where to keep what was trained, for :func:`training_of`."""
    parser.add_argument("--max-epochs", type=int, help="passes over the cells (default: by their number)")
    parser.add_argument("--seed", type=int, default=0, help="of all that is random (default: %(default)s)")
    parser.add_argument("--save", type=Path, help="folder to save the trained model in (default: it is not saved)")


def training_of(args: argparse.Namespace) -> dict[str, Any]:
    """Return these options as arguments of a verb."""
    return {name: getattr(args, name) for name in ("max_epochs", "seed", "save")}


def add_confidence(parser: argparse.ArgumentParser) -> None:
    """Add what becomes of unsure cells, for :func:`confidence_of`."""
    parser.add_argument(
        "--min-confidence",
        type=float,
        default=0.0,
        help="cells of less, from 0 to 1, are not named (default: %(default)s)",
    )
    parser.add_argument("--unknown-label", default="Unknown", help="what they are called (default: %(default)s)")


def confidence_of(args: argparse.Namespace) -> dict[str, Any]:
    """Return these options as arguments of a verb."""
    return {name: getattr(args, name) for name in ("min_confidence", "unknown_label")}
