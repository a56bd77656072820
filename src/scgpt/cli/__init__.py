"""The command line: ``scgpt ...`` or ``python -m scgpt ...``; one file a command."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from importlib.metadata import version

from . import _annotate, _convert, _corpus, _embed, _integrate, _map, _pretrain

_START = """\
start here:
  scgpt embed cells.h5ad --model mini --out embedded.h5ad

`scgpt COMMAND --help` tells what a command takes and writes, with an example.
All of it and more is there in Python, too: import scgpt"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit status: 0, or with one line that says what to do 1, and 130 if interrupted."""
    args = parser().parse_args(arguments)
    try:
        args.run(args)
    except (ValueError, KeyError, OSError, ImportError, FloatingPointError, MemoryError) as error:
        # A KeyError shows its message in quotes.
        message = error.args[0] if isinstance(error, KeyError) and error.args else error
        told = " ".join(" ".join([str(message), *getattr(error, "__notes__", ())]).split())
        print(f"scgpt {args.command}: {told}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"\nscgpt {args.command}: interrupted; {args.interrupted}.", file=sys.stderr)
        return 130
    return 0


def parser() -> argparse.ArgumentParser:
    """Return what reads the arguments; ``run`` of what it returns is the command."""
    parser = argparse.ArgumentParser(
        prog="scgpt",
        description="scGPT, a foundation model of single cells.",
        epilog=_START,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"scgpt-tools {version('scgpt-tools')}")
    commands = parser.add_subparsers(dest="command", required=True, title="commands", metavar="COMMAND")
    for command in (_embed, _annotate, _map, _integrate, _convert, _corpus, _pretrain):
        command.add(commands)
    return parser
