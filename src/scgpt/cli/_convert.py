"""``scgpt convert``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from ._options import command


def add(commands: Any) -> None:
    """Add the command."""
    parser = command(
        commands,
        "convert",
        does="convert a checkpoint of the authors to safetensors and JSON",
        writes="""The folder holds model.safetensors, config.json, vocab.json and registry.json; --model of other commands
        takes it.""",
        example="scgpt convert downloaded/scGPT_human whole-human-converted",
        run=_run,
    )
    parser.add_argument(
        "model",
        help="folder with best_model.pt, args.json and vocab.json; or a name that --model of other commands takes",
    )
    parser.add_argument("out", type=Path, help="folder to write")
    parser.add_argument("--overwrite", action="store_true", help="replace a checkpoint that is there")


def _run(args: argparse.Namespace) -> None:
    from scgpt import hub

    if args.out.is_dir() and any(args.out.iterdir()) and not args.overwrite:
        raise FileExistsError(f"{args.out} is not empty; name another folder, or replace a checkpoint by --overwrite.")
    checkpoint = hub.read(args.model)
    hub.write_checkpoint(checkpoint, args.out, overwrite=args.overwrite)
    print(checkpoint.report)
