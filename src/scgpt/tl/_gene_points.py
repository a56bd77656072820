"""Embeddings of genes, as programs and networks are made of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from anndata import AnnData

    from scgpt.data import GeneMatch
    from scgpt.model import SCGPT

    from ._chosen_genes import ChosenGenes

type GeneEmbedding = Literal["input", "contextual"]


def points_of(
    adata: AnnData,
    model: SCGPT,
    match: GeneMatch,
    chosen: ChosenGenes,
    embedding: GeneEmbedding,
    layer: str | None,
    progress_bar: bool,
) -> NDArray[np.float32]:
    """Return ``(n_genes, d_model)`` embeddings of genes, of length 1; NaN where no cell expresses one.

    Raises
    ------
    ValueError
        When the embedding is none of those known.
    """
    if embedding == "input":
        points = model.get_gene_embeddings(chosen.names)
    elif embedding == "contextual":
        points = model.get_contextual_gene_embeddings(
            adata, chosen.names, layer=layer, match=match, progress_bar=progress_bar
        )
    else:
        raise ValueError(f"embedding must be 'input' or 'contextual', not {embedding!r}.")
    values = points.to_numpy()
    return values / np.linalg.norm(values, axis=1, keepdims=True)


def write_points(adata: AnnData, chosen: ChosenGenes, points: NDArray[np.float32], key: str) -> None:
    """Write embeddings of genes into ``.varm``, NaN for all others."""
    everything = np.full((adata.n_vars, points.shape[1]), np.nan, np.float32)
    everything[chosen.rows] = points
    adata.varm[key] = everything
