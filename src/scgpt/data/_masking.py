"""Hiding what a model is to predict: values, genes, or modalities altogether."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from scgpt._token_batch import TokenBatch

from ._hashing import uniform_of
from ._kernels import ONE_AT_A_TIME, choose


def mask_values(batch: TokenBatch, share: float, *, mask_value: float = -1.0, key: int = 0) -> TokenBatch:
    """Hide the values of a share of each cell's genes.

    Which genes are hidden depends on ``key``, the cell and the gene alone. ``<cls>`` is never hidden, and of the
    genes of a cell at least one stays known.

    Parameters
    ----------
    batch
        Cells with their values.
    share
        Share of each cell's genes to hide, rounded down.
    mask_value
        What stands for a hidden value.
    key
        Another key hides other genes.

    Returns
    -------
    The batch with values masked; ``targets`` holds the true values and ``predict`` is True where they are hidden.

    Raises
    ------
    ValueError
        When ``share`` is not in [0, 1].

    Examples
    --------
    >>> import torch
    >>> from scgpt.data import TokenBatch, mask_values
    >>> genes, values = torch.tensor([4, 0, 1, 2, 3]), torch.tensor([-2.0, 1.0, 2.0, 3.0, 4.0])  # 4 is <cls>
    >>> cell = TokenBatch(genes, values, offsets=torch.tensor([0, 5]), cell_index=torch.tensor([0]))
    >>> hidden = mask_values(cell, 0.5)
    >>> int(hidden.predict.sum()), hidden.values[hidden.predict].tolist(), hidden.targets.tolist()
    (2, [-1.0, -1.0], [-2.0, 1.0, 2.0, 3.0, 4.0])
    """
    hidden = _choose(batch, share, key, "masked values")
    return replace(
        batch,
        values=batch.values.masked_fill(hidden, mask_value),
        targets=batch.values,
        predict=hidden,
    )


def mark_unknown(batch: TokenBatch, share: float, *, key: int = 0) -> TokenBatch:
    """Make a share of each cell's genes unknown: what generative attention is to predict from the others.

    Unlike a masked gene, an unknown one is seen by no other token. Which genes are unknown depends on ``key``, the cell
    and the gene alone. ``<cls>`` never is, and of the genes of a cell at least one stays known.

    Parameters
    ----------
    batch
        Cells with their values.
    share
        Share of each cell's genes to make unknown, rounded down.
    key
        Another key chooses other genes; the same one chooses those that :func:`mask_values` hides.

    Returns
    -------
    The batch with ``unknown`` and ``predict`` True at these genes, and all true values in ``targets``.

    Raises
    ------
    ValueError
        When ``share`` is not in [0, 1].

    Examples
    --------
    >>> import torch
    >>> from scgpt.data import TokenBatch, mark_unknown
    >>> genes, values = torch.tensor([4, 0, 1, 2, 3]), torch.tensor([-2.0, 1.0, 2.0, 3.0, 4.0])  # 4 is <cls>
    >>> cell = TokenBatch(genes, values, offsets=torch.tensor([0, 5]), cell_index=torch.tensor([0]))
    >>> asked = mark_unknown(cell, 0.75)
    >>> int(asked.unknown.sum()), bool(asked.unknown[0]), asked.targets.tolist()
    (3, False, [-2.0, 1.0, 2.0, 3.0, 4.0])
    """
    hidden = _choose(batch, share, key, "unknown genes")
    return replace(batch, unknown=hidden, targets=batch.values, predict=hidden)


def add_unknown(batch: TokenBatch, genes: NDArray[np.int64]) -> TokenBatch:
    """Add genes to each cell whose values are to be generated, after its own tokens.

    Parameters
    ----------
    batch
        Cells, as a tokenizer gives them.
    genes
        ``(G,)`` ids, none of which is a gene of the cells.

    Returns
    -------
    The batch, ``unknown`` at the genes that were added.

    Examples
    --------
    >>> import numpy as np
    >>> import torch
    >>> from scgpt.data import TokenBatch, add_unknown
    >>> genes, values = torch.tensor([4, 0]), torch.tensor([-2.0, 1.0])  # 4 is <cls>
    >>> cell = TokenBatch(genes, values, offsets=torch.tensor([0, 2]), cell_index=torch.tensor([0]))
    >>> more = add_unknown(cell, np.array([1, 3]))
    >>> more.gene_ids.tolist(), more.unknown.tolist()
    ([4, 0, 1, 3], [False, False, True, True])
    """
    n_genes, n_cells = len(genes), batch.n_cells
    unknown = torch.ones(batch.n_tokens + n_cells * n_genes, dtype=torch.bool)
    unknown[torch.arange(batch.n_tokens) + batch.cell_of_token * n_genes] = False
    gene_ids, values = torch.empty(len(unknown), dtype=torch.int64), torch.zeros(len(unknown))
    gene_ids[~unknown], values[~unknown] = batch.gene_ids, batch.values
    gene_ids[unknown] = torch.from_numpy(genes).repeat(n_cells)
    offsets = batch.offsets + torch.arange(n_cells + 1) * n_genes
    return replace(batch, gene_ids=gene_ids, values=values, offsets=offsets, unknown=unknown)


def drop_genes(batch: TokenBatch, share: float, *, key: int = 0) -> TokenBatch:
    """Leave a share of each cell's genes out of its tokens.

    What is then asked of all genes that were measured can only be answered from the cell's other genes, and the
    fewer tokens cost less. Which genes are dropped depends on ``key``, the cell and the gene alone.

    Parameters
    ----------
    batch
        Cells.
    share
        Share of each cell's genes to drop, rounded down; at least one stays.
    key
        Another key drops other genes.

    Raises
    ------
    ValueError
        When ``share`` is not in [0, 1].
    """
    dropped = _choose(batch, share, key, "dropped genes")
    return batch.keep(~dropped) if share else batch


def drop_modalities(batch: TokenBatch, share: float, *, key: int = 0) -> TokenBatch:
    """Leave one modality out of the tokens of a share of the cells that have several.

    What is then asked of its features can only be answered from the cell's other modalities. Which cells and which of
    their modalities depends on ``key`` and the cell alone.

    Parameters
    ----------
    batch
        Cells with their modalities.
    share
        Chance of each cell to lose one.
    key
        Another key drops others.

    Raises
    ------
    ValueError
        When ``share`` is not in [0, 1], or the batch has no modalities.
    """
    if not 0 <= share <= 1:
        raise ValueError(f"The share of dropped modalities must lie in [0, 1], not {share}.")
    if share == 0:
        return batch
    if batch.modality_ids is None:
        raise ValueError("There are no modalities to drop.")
    cell, modality = batch.cell_of_token.numpy(), batch.modality_ids.numpy()
    has = np.zeros((batch.n_cells, modality.max() + 1), dtype=bool)
    has[cell, modality] = True
    has[:, 0] = False  # <cls>
    n_modalities = has.sum(1)
    cells = batch.cell_index.numpy()
    chance, which = (uniform_of(key, cells, np.full_like(cells, purpose)) for purpose in (0, 1))
    # The nth modality that the cell has.
    place = has.cumsum(1) - 1
    chosen = has & (place == np.floor(which * n_modalities).astype(int)[:, None])
    chosen &= ((chance < share) & (n_modalities > 1))[:, None]
    return batch.keep(torch.from_numpy(~chosen[cell, modality]))


def _choose(batch: TokenBatch, share: float, key: int, what: str) -> torch.Tensor:
    """Return a ``(T,)`` mask with a share of each cell's genes, never ``<cls>`` and never all genes."""
    if not 0 <= share <= 1:
        raise ValueError(f"The share of {what} must lie in [0, 1], not {share}.")
    if share == 0:
        return torch.zeros(batch.n_tokens, dtype=torch.bool)
    with ONE_AT_A_TIME:
        chosen = choose(
            np.uint64(key), batch.cell_index.numpy(), batch.gene_ids.numpy(), batch.offsets.numpy(), float(share)
        )
    return torch.from_numpy(chosen)
