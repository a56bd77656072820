"""``scgpt integrate``."""

from __future__ import annotations

import argparse
import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

from ._files import check_files, read_cells, write_cells
from ._joined import check_joinable, joined
from ._options import MODEL, add_expression, add_training, command, expression_of, training_of


def add(commands: Any) -> None:
    """Add the command."""
    parser = command(
        commands,
        "integrate",
        does="embed batches, studies or modalities as one, by training on them",
        writes="""The file that --out names is the input with the embedding in .obsm['X_scGPT']; of several files, which
        are studies, it holds the cells of all, with what all have in common, and in .obs['study'] the name of the file.""",
        example="""\
scgpt integrate cells.h5ad --batch donor --out integrated.h5ad
scgpt integrate one.h5ad two.h5ad --batch donor --model mini --out integrated.h5ad
scgpt integrate cite_seq.h5mu --out integrated.h5mu""",
        run=_run,
        interrupted="--out is not written",
    )
    parser.add_argument("files", nargs="+", type=Path, help="h5ad files, or h5mu files of several modalities")
    parser.add_argument(
        "--batch", help="column of .obs with the batch (default: batch; none of an h5mu file without it)"
    )
    parser.add_argument("--model", help=f"to train on from: {MODEL} (default: a small one is trained from scratch)")
    parser.add_argument("--out", type=Path, required=True, help="h5ad or h5mu file to write, as the input")
    add_expression(parser)
    parser.add_argument("--n-top-genes", type=int, default=1200, help="how many to train on (default: %(default)s)")
    parser.add_argument(
        "--include-zeros", action="store_true", help="make tokens of genes that a cell does not express, too; slower"
    )
    add_training(parser)
    parser.add_argument("--key-added", default="X_scGPT", help="key of .obsm (default: %(default)s)")


def _run(args: argparse.Namespace) -> None:
    from scgpt import tl

    check_files(args.files, args.out, (".h5ad", ".h5mu"))
    if {path.suffix for path in args.files} != {args.out.suffix}:
        raise ValueError(f"the input and --out must be of one kind, all h5ad or all h5mu; --out is {args.out}.")
    paths = {path.stem: path for path in args.files}
    if len(paths) < len(args.files):
        raise ValueError("a study is called as its file, and two files have one name; rename one.")
    studies = {name: read_cells(path) for name, path in paths.items()}
    alone = next(iter(studies.values())) if len(studies) == 1 else None
    if alone is None:
        check_joinable(studies)
    batch_key = args.batch or (None if _without_batches(alone) else "batch")
    with redirect_stdout(sys.stderr):  # where scvi-tools shows the progress of a training
        tl.integrate(
            studies if alone is None else alone,
            batch_key=batch_key,
            model=args.model,
            n_top_genes=args.n_top_genes,
            include_zeros=args.include_zeros,
            key_added=args.key_added,
            **expression_of(args),
            **training_of(args),
        )
    data = joined(studies, batch_key or "batch") if alone is None else alone
    write_cells(data, args.out, f"{data.n_obs} cells, .obsm[{args.key_added!r}]")


def _without_batches(data: Any) -> bool:
    """Whether these are modalities of cells that are all one batch."""
    return hasattr(data, "mod") and not any("batch" in part.obs for part in (data, *data.mod.values()))
