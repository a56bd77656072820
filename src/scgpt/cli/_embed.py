"""``scgpt embed``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from ._files import check_files, read_cells, write_cells
from ._options import MODEL, add_embedding, add_expression, command, embedding_of, expression_of


def add(commands: Any) -> None:
    """Add the command."""
    parser = command(
        commands,
        "embed",
        does="embed the cells of an h5ad file by a model as it is",
        writes="The file that --out names is the input with the embedding in .obsm['X_scGPT'].",
        example="scgpt embed cells.h5ad --model mini --out embedded.h5ad",
        run=_run,
    )
    parser.add_argument("file", type=Path, help="h5ad file with counts or log-normalised values")
    parser.add_argument("--model", required=True, help=MODEL)
    parser.add_argument("--out", type=Path, required=True, help="h5ad file to write")
    add_expression(parser)
    add_embedding(parser)
    parser.add_argument("--key-added", default="X_scGPT", help="key of .obsm (default: %(default)s)")


def _run(args: argparse.Namespace) -> None:
    from scgpt import tl

    check_files([args.file], args.out)
    adata = read_cells(args.file)
    tl.embed(adata, args.model, **expression_of(args), **embedding_of(args), key_added=args.key_added)
    made = adata.uns["scgpt"][args.key_added]
    print(f"{adata.n_obs} cells; {made['n_genes_matched']} of {adata.n_vars} genes known (.var {made['gene_key']!r})")
    write_cells(adata, args.out, f".obsm[{args.key_added!r}]")
