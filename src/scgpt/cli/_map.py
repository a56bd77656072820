"""``scgpt map``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from ._files import check_files, print_counts, read_cells, write_cells
from ._options import (
    MODEL,
    add_confidence,
    add_embedding,
    add_expression,
    command,
    confidence_of,
    embedding_of,
    expression_of,
)


def add(commands: Any) -> None:
    """Add the command."""
    parser = command(
        commands,
        "map",
        does="label cells after the most like cells of a reference, untrained",
        writes="""The file that --out names is the input with .obs['scgpt_mapped_label'],
        .obs['scgpt_mapped_label_confidence'] and the embedding in .obsm['X_scGPT'].""",
        example="scgpt map query.h5ad --reference atlas.h5ad --labels cell_type --model mini --out mapped.h5ad",
        run=_run,
    )
    parser.add_argument("file", type=Path, help="h5ad file with counts or log-normalised values")
    parser.add_argument(
        "--reference", type=Path, required=True, help="h5ad file of cells whose label is known, or folder of an index"
    )
    parser.add_argument("--labels", required=True, help="column of the reference's .obs with the labels")
    parser.add_argument("--model", required=True, help=MODEL)
    parser.add_argument("--out", type=Path, required=True, help="h5ad file to write")
    parser.add_argument("--k", type=int, default=10, help="how many neighbours vote (default: %(default)s)")
    parser.add_argument(
        "--weights",
        choices=("uniform", "distance"),
        default="uniform",
        help="of votes: all alike, or more for nearer neighbours (default: %(default)s)",
    )
    add_confidence(parser)
    add_expression(parser)
    add_embedding(parser)
    parser.add_argument("--key-added", default="scgpt_mapped_label", help="column of .obs (default: %(default)s)")


def _run(args: argparse.Namespace) -> None:
    from scgpt import tl

    is_index = args.reference.is_dir()
    check_files([args.file] if is_index else [args.file, args.reference], args.out)
    adata = read_cells(args.file)
    reference = args.reference if is_index else read_cells(args.reference)
    tl.map_reference(
        adata,
        reference,
        labels_key=args.labels,
        model=args.model,
        k=args.k,
        weights=args.weights,
        key_added=args.key_added,
        **confidence_of(args),
        **expression_of(args),
        **embedding_of(args),
    )
    print_counts(adata.obs[args.key_added])
    write_cells(adata, args.out, f".obs[{args.key_added!r}] and what belongs to it")
