"""The one thing that ``scgpt.data`` and ``scgpt.nn`` share: a batch of cells as one flat run of tokens."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from functools import cached_property
from itertools import pairwise

import torch
from torch import Tensor

# How each optional field is laid out: one entry per token, or one per cell.
_PER_TOKEN = ("gene_ids", "values", "condition_ids", "modality_ids", "unknown", "targets", "predict")
_PER_CELL = ("cell_index", "batch_labels", "labels", "levels")
_PER_MEASURED = ("measured", "measured_modality_ids")


class Packed:
    """Rows of ``B`` cells in one flat run: those of cell ``b`` are ``offsets[b]:offsets[b + 1]``."""

    offsets: Tensor
    """``(B + 1,)`` int64, rising from 0."""

    @property
    def n_cells(self) -> int:
        """Number of cells ``B``."""
        return len(self.offsets) - 1

    @cached_property
    def lengths(self) -> Tensor:
        """``(B,)`` number of rows of each cell."""
        return self.offsets.diff()

    @cached_property
    def boundaries(self) -> list[int]:
        """``offsets`` on the host: on a GPU this waits for the device once."""
        return self.offsets.tolist()

    @property
    def longest(self) -> int:
        """Number of rows of the longest cell; 0 without cells."""
        return max((stop - start for start, stop in pairwise(self.boundaries)), default=0)

    @property
    def first(self) -> Tensor:
        """``(B,)`` position of each cell's first row."""
        return self.offsets[:-1]


@dataclass(frozen=True, eq=False)
class Picked(Packed):
    """Rows picked from a packed batch, cell by cell.

    Parameters
    ----------
    index
        ``(K,)`` int64, where they stand in the batch.
    offsets
        ``(B + 1,)`` int64, rising from 0 to ``K``.
    """

    index: Tensor
    offsets: Tensor


@dataclass(frozen=True, eq=False)
class TokenBatch(Packed):
    """A batch of cells without padding: ``T`` tokens of ``B`` cells in one flat run.

    Tokens of cell ``b`` are ``offsets[b]:offsets[b + 1]``; the first of them is ``<cls>``. Optional fields are
    None where a task does not use them.

    Parameters
    ----------
    gene_ids
        ``(T,)`` int64, rows of the gene embedding.
    values
        ``(T,)`` float32: bins, log values, or the mask value.
    offsets
        ``(B + 1,)`` int64, rising from 0 to ``T``.
    cell_index
        ``(B,)`` int64, row of each cell in the data set that it came from.
    condition_ids
        ``(T, C)`` int64; the embeddings of a token's ``C`` conditions are summed, id 0 means none.
    modality_ids
        ``(T,)`` int64.
    unknown
        ``(T,)`` bool: the value of the token is to be generated, and what stands in ``values`` is not read.
    targets
        ``(T,)`` float32, true values for the objectives.
    predict
        ``(T,)`` bool: tokens whose target counts in the objectives.
    batch_labels
        ``(B,)`` int64, experimental batch of each cell.
    labels
        ``(B,)`` int64, class of each cell.
    measured
        ``(G,)`` int64, genes that the data set measured, each once.
    levels
        ``(B, G)`` float32, value of each of them in each cell: 0 where the cell does not express it, infinite where it does and
        no token ever told how much, NaN where its batch did not measure it.
    measured_modality_ids
        ``(G,)`` int64, their modality.

    Raises
    ------
    ValueError
        When the lengths of the fields disagree.

    Examples
    --------
    >>> import torch
    >>> from scgpt.data import TokenBatch
    >>> gene_ids = torch.tensor([[2, 0, 1], [2, 1, 0]])  # 2 is <cls>
    >>> values = torch.tensor([[-2.0, 3.0, 1.0], [-2.0, 4.0, 0.0]])
    >>> padding = torch.tensor([[False, False, False], [False, False, True]])
    >>> batch = TokenBatch.from_padded(gene_ids, values, padding)
    >>> batch.n_cells, batch.n_tokens, batch.offsets.tolist(), batch.values.tolist()
    (2, 5, [0, 3, 5], [-2.0, 3.0, 1.0, -2.0, 4.0])
    >>> batch.to_padded()["values"].tolist()
    [[-2.0, 3.0, 1.0], [-2.0, 4.0, 0.0]]
    """

    gene_ids: Tensor
    values: Tensor
    offsets: Tensor
    cell_index: Tensor
    condition_ids: Tensor | None = None
    modality_ids: Tensor | None = None
    unknown: Tensor | None = None
    targets: Tensor | None = None
    predict: Tensor | None = None
    batch_labels: Tensor | None = None
    labels: Tensor | None = None
    measured: Tensor | None = None
    levels: Tensor | None = None
    measured_modality_ids: Tensor | None = None

    def __post_init__(self) -> None:
        n_tokens, n_cells = len(self.gene_ids), len(self.offsets) - 1
        for names, length, what in ((_PER_TOKEN, n_tokens, "tokens"), (_PER_CELL, n_cells, "cells")):
            for name in names:
                field = getattr(self, name)
                if field is not None and len(field) != length:
                    raise ValueError(f"TokenBatch.{name} has {len(field)} entries for {length} {what}.")

    @property
    def n_tokens(self) -> int:
        """Number of tokens ``T`` over all cells."""
        return len(self.gene_ids)

    @cached_property
    def cell_of_token(self) -> Tensor:
        """``(T,)`` position in the batch of the cell that each token belongs to."""
        cells = torch.arange(self.n_cells, device=self.offsets.device)
        return torch.repeat_interleave(cells, self.lengths, output_size=self.n_tokens)

    @cached_property
    def cls_tokens(self) -> Picked:
        """The ``<cls>`` of each cell."""
        return Picked(self.first, torch.arange(self.n_cells + 1, device=self.offsets.device))

    @cached_property
    def known_and_self(self) -> Picked:
        """What a token may see where some are unknown: its cell's known tokens and, as ``T`` in the index, itself."""
        assert self.unknown is not None  # for the type checker
        known_K = (~self.unknown).nonzero().squeeze(1)
        cell_K = self.cell_of_token[known_K]
        after_each = torch.arange(self.n_cells + 1, device=self.offsets.device)
        n_known = self.lengths.new_zeros(self.n_cells).index_add(0, cell_K, torch.ones_like(cell_K))
        index = self.offsets.new_full((len(known_K) + self.n_cells,), self.n_tokens)
        index[torch.arange(len(known_K), device=index.device) + cell_K] = known_K
        return Picked(index, torch.nn.functional.pad(n_known.cumsum(0), (1, 0)) + after_each)

    @cached_property
    def known_values(self) -> Tensor:
        """``(T,)`` the values that may be read: 0 where they are unknown."""
        return self.values if self.unknown is None else self.values.masked_fill(self.unknown, 0)

    def to(self, device: torch.device | str, non_blocking: bool = False) -> TokenBatch:
        """Return the batch on ``device``."""
        present = {f.name: x for f in fields(self) if (x := getattr(self, f.name)) is not None}
        return replace(self, **{name: x.to(device, non_blocking=non_blocking) for name, x in present.items()})

    def cells(self, start: int, stop: int) -> TokenBatch:
        """Return cells ``start:stop`` as a batch that shares memory with this one."""
        first, last = self.boundaries[start], self.boundaries[stop]
        changes: dict[str, Tensor] = {"offsets": self.offsets[start : stop + 1] - first}
        for names, cut in ((_PER_TOKEN, slice(first, last)), (_PER_CELL, slice(start, stop))):
            changes |= {n: getattr(self, n)[cut] for n in names if getattr(self, n) is not None}
        return replace(self, **changes)

    def keep(self, kept: Tensor) -> TokenBatch:
        """Return the batch with some of its tokens alone, ``kept`` being ``(T,)`` bool; ``<cls>`` always stays."""
        kept = kept.index_fill(0, self.first, True)
        lengths = self.lengths.new_zeros(self.n_cells).index_add(0, self.cell_of_token, kept.long())
        changes = {n: getattr(self, n)[kept] for n in _PER_TOKEN if getattr(self, n) is not None}
        return replace(self, offsets=torch.nn.functional.pad(lengths.cumsum(0), (1, 0)), **changes)

    def split(self, max_tokens: float) -> list[TokenBatch]:
        """Cut into consecutive batches of at most ``max_tokens`` tokens, and of at least one cell."""
        if self.n_tokens <= max_tokens:
            return [self] if self.n_cells else []
        parts, start = [], 0
        for stop in range(1, self.n_cells + 1):
            is_last = stop == self.n_cells
            if is_last or self.boundaries[stop + 1] - self.boundaries[start] > max_tokens:
                parts.append(self.cells(start, stop))
                start = stop
        return parts

    @classmethod
    def from_padded(
        cls,
        gene_ids: Tensor,
        values: Tensor,
        padding: Tensor,
        condition_ids: Tensor | None = None,
        modality_ids: Tensor | None = None,
        batch_labels: Tensor | None = None,
        unknown: Tensor | None = None,
        *,
        cell_index: Tensor | None = None,
        targets: Tensor | None = None,
        predict: Tensor | None = None,
        labels: Tensor | None = None,
        measured: Tensor | None = None,
        levels: Tensor | None = None,
        measured_modality_ids: Tensor | None = None,
    ) -> TokenBatch:
        """Pack padded ``(B, L)`` arrays, as other code has them.

        Parameters
        ----------
        gene_ids
            ``(B, L)`` int.
        values
            ``(B, L)`` float.
        padding
            ``(B, L)`` bool, True where there is no token.
        condition_ids
            ``(B, L)`` or ``(B, L, C)`` int.
        modality_ids
            ``(B, L)`` int.
        batch_labels
            ``(B,)`` int.
        unknown
            ``(B, L)`` bool.
        cell_index
            ``(B,)`` int; ``0 .. B - 1`` if not given.
        targets
            ``(B, L)`` float.
        predict
            ``(B, L)`` bool.
        labels
            ``(B,)`` int.
        measured
            ``(G,)`` int.
        levels
            ``(B, G)`` float.
        measured_modality_ids
            ``(G,)`` int.

        Raises
        ------
        ValueError
            When shapes differ, or a cell is all padding.
        """
        present = ~padding.bool()
        if gene_ids.shape != present.shape or values.shape != present.shape:
            raise ValueError(
                f"gene_ids {tuple(gene_ids.shape)}, values {tuple(values.shape)} and padding "
                f"{tuple(padding.shape)} must have the same shape (cells, length)."
            )
        lengths = present.sum(1)
        if not bool((lengths > 0).all()):
            raise ValueError("A cell is all padding; every cell needs at least its <cls> token.")

        def pack(x: Tensor | None, dtype: torch.dtype) -> Tensor | None:
            return None if x is None else x[present].to(dtype)

        if condition_ids is not None and condition_ids.ndim == 2:
            condition_ids = condition_ids.unsqueeze(-1)
        if cell_index is None:
            cell_index = torch.arange(len(lengths), device=lengths.device)
        return cls(
            gene_ids=gene_ids[present].long(),
            values=values[present].float(),
            offsets=torch.nn.functional.pad(lengths.cumsum(0), (1, 0)),
            cell_index=cell_index.long(),
            condition_ids=pack(condition_ids, torch.int64),
            modality_ids=pack(modality_ids, torch.int64),
            unknown=pack(unknown, torch.bool),
            targets=pack(targets, torch.float32),
            predict=pack(predict, torch.bool),
            batch_labels=None if batch_labels is None else batch_labels.long(),
            labels=None if labels is None else labels.long(),
            measured=None if measured is None else measured.long(),
            levels=None if levels is None else levels.float(),
            measured_modality_ids=None if measured_modality_ids is None else measured_modality_ids.long(),
        )

    def to_padded(self, pad_id: int = 0, pad_value: float = 0.0) -> dict[str, Tensor]:
        """Return padded ``(B, L)`` tensors, such that ``TokenBatch.from_padded(**batch.to_padded())`` is the batch.

        Parameters
        ----------
        pad_id
            What stands in integer fields where there is no token.
        pad_value
            What stands in float fields where there is no token.
        """
        padding = torch.ones(self.n_cells, self.longest, dtype=torch.bool, device=self.offsets.device)
        position = torch.arange(self.n_tokens, device=self.offsets.device) - self.first[self.cell_of_token]
        padding[self.cell_of_token, position] = False
        padded = {"padding": padding}
        for name in _PER_TOKEN:
            x = getattr(self, name)
            if x is not None:
                fill = pad_value if x.is_floating_point() else False if x.dtype == torch.bool else pad_id
                padded[name] = x.new_full((*padding.shape, *x.shape[1:]), fill)
                padded[name][~padding] = x
        padded |= {n: getattr(self, n) for n in (*_PER_CELL, *_PER_MEASURED) if getattr(self, n) is not None}
        return padded
