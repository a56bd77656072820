"""``scgpt pretrain``."""

from __future__ import annotations

import argparse
import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

from ._options import command


def add(commands: Any) -> None:
    """Add the command."""
    parser = command(
        commands,
        "pretrain",
        does="pretrain a network on a corpus, or go on with a run that was cut off",
        writes="""The folder that the setting `out` names holds the model in `model`, states to go on from, and a log.""",
        example="scgpt pretrain --config run.yaml --set lr=3e-4 network.d_model=128",
        run=_run,
        interrupted="the same command goes on from the last state",
    )
    parser.add_argument("--config", type=Path, required=True, help="YAML file with the settings of the run")
    parser.add_argument(
        "--set",
        nargs="+",
        default=[],
        metavar="NAME=VALUE",
        help="settings in place of those in the file (default: none)",
    )


def _run(args: argparse.Namespace) -> None:
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
    with redirect_stdout(sys.stderr):  # where Lightning shows the progress
        folder = pretrain(PretrainingConfig.from_yaml(args.config, changes), progress_bar=sys.stderr.isatty())
    rank_zero_only(print)(folder)
