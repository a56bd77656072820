"""``scgpt annotate``."""

from __future__ import annotations

import argparse
import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

from ._files import check_files, print_counts, read_cells, write_cells
from ._options import (
    MODEL,
    add_confidence,
    add_expression,
    add_training,
    command,
    confidence_of,
    expression_of,
    training_of,
)


def add(commands: Any) -> None:
    """Add the command."""
    parser = command(
        commands,
        "annotate",
        does="name cell types after known cells, by training on these",
        writes="""The file that --out names is the input with .obs['scgpt_label'], .obs['scgpt_confidence'] and
        .obsm['scgpt_probabilities']. The known cells are those of --reference, or those of the file that have a label.""",
        example="""\
scgpt annotate query.h5ad --reference atlas.h5ad --labels cell_type --out named.h5ad
scgpt annotate query.h5ad --reference atlas.h5ad --labels cell_type --model mini --save annotator --out named.h5ad
scgpt annotate more.h5ad --model annotator --out more_named.h5ad""",
        run=_run,
        interrupted="--out is not written",
    )
    parser.add_argument("file", type=Path, help="h5ad file with counts or log-normalised values")
    parser.add_argument(
        "--reference", type=Path, help="h5ad file of cells whose type is known (default: the file itself)"
    )
    parser.add_argument(
        "--labels", help="column of .obs with the known types; needed unless --model is an annotator that was saved"
    )
    parser.add_argument(
        "--unlabeled", default="Unknown", help="what stands there for cells of unknown type (default: %(default)s)"
    )
    parser.add_argument(
        "--model", help=f"to train on from, or an annotator: {MODEL} (default: a small one is trained from scratch)"
    )
    parser.add_argument("--out", type=Path, required=True, help="h5ad file to write")
    add_expression(parser)
    parser.add_argument("--class-weight", choices=("balanced",), help="give rare types the say of frequent ones")
    add_confidence(parser)
    add_training(parser)
    parser.add_argument("--key-added", default="scgpt", help="beginning of the keys written (default: %(default)s)")


def _run(args: argparse.Namespace) -> None:
    from scgpt import tl

    check_files([args.file, *filter(None, [args.reference])], args.out)
    if args.labels is None and (args.model is None or args.reference is not None):
        raise ValueError("pass --labels, the column of .obs with the known types.")
    adata = read_cells(args.file)
    reference = None if args.reference is None else read_cells(args.reference)
    with redirect_stdout(sys.stderr):  # where scvi-tools shows the progress of a training
        tl.annotate(
            adata,
            args.labels,
            reference=reference,
            unlabeled_category=args.unlabeled,
            model=args.model,
            class_weight=args.class_weight,
            key_added=args.key_added,
            **expression_of(args),
            **confidence_of(args),
            **training_of(args),
        )
    label = f"{args.key_added}_label"
    print_counts(adata.obs[label])
    write_cells(adata, args.out, f".obs[{label!r}] and what belongs to it")
