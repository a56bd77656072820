"""Generating expression with a model."""

from __future__ import annotations

import logging
import math
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
import scipy.sparse as sp
import torch
from anndata import AnnData
from numpy.typing import ArrayLike, NDArray

from scgpt._messages import listed, warn_user
from scgpt.data import (
    Cells,
    GeneMatch,
    TokenBatch,
    check_whole,
    column_of,
    derive_key,
    in_memory,
    unbin_values,
    uniform_of,
    values_of_bins,
)

from ._embedding import _CELLS_AT_ONCE, EmbeddingMixin, portions
from ._passes import Precision

logger = logging.getLogger(__name__)

Prompt = Literal["genes", "cell", "both"]

# Tokens read from the data set at a time; thousands of genes to generate make cells long.
_TOKENS_AT_ONCE = 4_000_000
# How far the length of an embedding that was scaled to 1 may be off.
_LENGTH_1 = 1e-3


class GenerationMixin(EmbeddingMixin):
    """``generate`` for models around an :class:`~scgpt.module.ScGPTModule`."""

    def generate(
        self,
        adata: AnnData | None = None,
        *,
        prompt: Prompt | None = None,
        genes: str | Iterable[str] | None = None,
        embeddings: ArrayLike | None = None,
        groupby: str | None = None,
        groups: str | Iterable[str] | None = None,
        n_cells: int | None = None,
        n_averaged: int = 1,
        n_rounds: int = 3,
        draw: bool = False,
        seed: int = 0,
        layer: str | None = None,
        gene_key: str | None = None,
        gene_mapping: Mapping[str, str] | pd.Series | str | Path | None = None,
        match: GeneMatch | None = None,
        max_length: int | None = None,
        precision: Precision = "auto",
        progress_bar: bool = True,
    ) -> AnnData:
        """Generate the expression of genes, from the other genes of a cell, from its embedding, or for pseudo-cells.

        See :func:`scgpt.tl.generate`, which does this and says in its result how it came about.

        Parameters
        ----------
        adata
            Any data set, of any genes; by default the model's own.
        prompt
            As in :func:`scgpt.tl.generate`, as all that follow but ``match``.
        genes
            See there.
        embeddings
            ``(n_obs, d_model)``, not normalised; see there.
        groupby
            See there.
        groups
            See there.
        n_cells
            See there.
        n_averaged
            See there.
        n_rounds
            See there.
        draw
            See there.
        seed
            See there.
        layer
            See there.
        gene_key
            See there.
        gene_mapping
            See there.
        match
            What :meth:`match` gave, if it was called before.
        max_length
            See there.
        precision
            See there.
        progress_bar
            See there.

        Returns
        -------
        As :func:`scgpt.tl.generate`, without provenance.

        Raises
        ------
        KeyError, ValueError
            As :func:`scgpt.tl.generate`.
        """
        adata = self._given_or_own(adata)
        prompt = resolve_prompt(prompt, embeddings, groupby)
        self._check_can_generate(draw)
        check_whole(n_rounds, "n_rounds")
        match = match or self.match(adata, gene_key=gene_key, gene_mapping=gene_mapping)
        asked = self._genes_to_generate(genes, match, prompt)
        if prompt != "cell":
            # Binned without the genes to generate: their values must have no say.
            match = match.within(np.setdiff1d(match.token_ids, asked))
            if not match.n_genes:
                raise ValueError("No gene is known: all that adata measured are to be generated. Use prompt='cell'.")
        source = self._cells(adata, match, layer, decodes=True)
        obs, drawn = _prompts_of(adata, groupby, groups, n_cells, n_averaged, seed)
        # A prompt is the mean of some cells of the data set: one of them, but for pseudo-cells.
        used, column = np.unique(np.concatenate(drawn), return_inverse=True)
        sizes = np.array([len(rows) for rows in drawn])
        weights = np.repeat(1 / sizes, sizes).astype(np.float32)
        mean = sp.csr_matrix((weights, column, np.append(0, sizes.cumsum())), shape=(len(drawn), len(used)))
        if not self.is_trained:
            warn_user("The model is not trained; what it generates means nothing yet.")
        embedded = None
        if prompt != "genes":
            if embeddings is not None:
                embedded = self._check_embeddings(embeddings, adata.n_obs)[used]
            else:
                embedded = self.get_latent_representation(
                    adata, indices=used, layer=layer, match=match, max_length=max_length, precision=precision,
                    normalize=False, progress_bar=progress_bar,
                )  # fmt: skip
            embedded = mean @ embedded
        table, share = (mean @ x for x in self._scale(source, used))
        if prompt == "cell":
            source = self._cells(adata, match.within(np.empty(0, np.int64)), layer, decodes=True)
        values = self._values_of_genes(
            source,
            np.array([rows[0] for rows in drawn]),
            asked,
            n_rounds,
            embedded,
            share,
            _draws(obs.index, seed) if draw else None,
            max_length,
            precision,
            progress_bar,
        )
        var = pd.DataFrame(index=pd.Index([self.vocab.tokens[i] for i in asked]))
        if self.tokenizer.n_bins is None:
            return AnnData(values, obs, var)
        return AnnData(unbin_values(values, table), obs, var, layers={"bins": values})

    @property
    def _decides(self) -> bool:
        """Whether the model says which of the genes to generate are expressed; else all are taken to be."""
        config = self.module.network.config
        return config.zero and config.gepc and not config.n_modalities and not self.tokenizer.include_zeros

    def _check_can_generate(self, draw: bool) -> None:
        """Raise where the network lacks what generating takes."""
        config = self.module.network.config
        if not config.n_flags:
            raise ValueError(
                "This network cannot generate: it has no embedding of unknown genes. Make it with n_flags=2, "
                "SCGPT(adata, n_flags=2) or from_pretrained(..., adata, n_flags=2, fresh=['flags']), and train it with "
                "objectives=['gen']."
            )
        if "gep" not in config.heads:
            raise ValueError(f"Generating needs the head 'gep', and this network has {list(config.heads)}.")
        if draw and not self._decides:
            raise ValueError(
                "draw=True needs a model that gives the probability of expression: one with zero=True and gepc=True, that "
                "was trained with the objective 'zero' and without zeros as tokens."
            )

    def _genes_to_generate(
        self, genes: str | Iterable[str] | None, match: GeneMatch, prompt: Prompt
    ) -> NDArray[np.int64]:
        """Return the ids of the genes to generate, each once."""
        measured = np.unique(match.token_ids[match.token_ids >= 0])
        if genes is not None:
            asked = self._gene_ids(list(dict.fromkeys([genes] if isinstance(genes, str) else map(str, genes))))
        elif prompt == "cell":
            asked = measured
        else:
            asked = np.setdiff1d(self.vocab.ids(self.vocab.genes), measured)
        if not len(asked):
            raise ValueError(
                "There is no gene to generate: "
                + ("genes is empty." if genes is not None else "adata measured all that the model knows; pass genes=.")
            )
        return asked

    def _check_embeddings(self, embeddings: ArrayLike, n_obs: int) -> NDArray[np.float32]:
        """Return embeddings that can stand in the place of ``<cls>``."""
        given, d_model = np.asarray(embeddings, dtype=np.float32), self.module.network.config.d_model
        if given.shape != (n_obs, d_model):
            raise ValueError(f"embeddings must be (n_obs, d_model) = {(n_obs, d_model)}, not {given.shape}.")
        if not np.isfinite(given).all():
            raise ValueError("embeddings hold NaN or infinite values.")
        if (np.abs(np.linalg.norm(given, axis=1) - 1) < _LENGTH_1).all():
            raise ValueError(
                "These embeddings are scaled to length 1, as scgpt.tl.embed writes them, and their scale is lost. Pass "
                "those of get_latent_representation(adata, normalize=False), or none: they are then made by the model."
            )
        return given

    def _scale(self, cells: Cells, index: NDArray[np.int64]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return ``(n, n_bins)`` values of cells' bins, and ``(n,)`` shares of their measured genes that they express."""
        n_bins, n_genes = self.tokenizer.n_bins or 2, len(np.unique(cells.token_ids[cells.token_ids >= 0]))
        as_they_are = replace(self.tokenizer, n_bins=None, max_length=n_genes + 1, include_zeros=False)
        table, share = np.empty((len(index), n_bins), np.float32), np.empty(len(index), np.float32)
        for start in range(0, len(index), _CELLS_AT_ONCE):
            rows = index[start : start + _CELLS_AT_ONCE]
            batch = as_they_are(cells.rows(rows), cells.token_ids, cell_index=rows)
            share[start : start + len(rows)] = (batch.lengths.numpy() - 1) / n_genes
            for i, values in enumerate(np.split(batch.values.numpy(), batch.offsets[1:-1].numpy()), start=start):
                table[i] = values_of_bins(values[1:], n_bins)  # the first is <cls>
        return table, share

    def _values_of_genes(
        self,
        cells: Cells,
        index: NDArray[np.int64],
        asked: NDArray[np.int64],
        n_rounds: int,
        embedded: NDArray[np.float32] | None,
        share: NDArray[np.float32],
        draws: Callable[[NDArray[np.int64], NDArray[np.int64]], NDArray[np.float64]] | None,
        max_length: int | None,
        precision: Precision,
        progress_bar: bool,
    ) -> NDArray[np.float32]:
        """Return the ``(n_prompts, n_genes)`` values that the network gives, bins where the tokenizer has them."""
        tokenizer = replace(self.tokenizer, ties="middle", max_length=max_length or self.tokenizer.max_length)
        lowest = 0 if tokenizer.include_zeros or tokenizer.n_bins is None else 1
        bounds = (lowest, math.inf if tokenizer.n_bins is None else tokenizer.n_bins - 1)
        at_once = min(max(1, _TOKENS_AT_ONCE // (tokenizer.max_length + len(asked))), _CELLS_AT_ONCE)
        tokenized = (
            # Several prompts may come of one cell: what is theirs goes by their own number.
            replace(cells.tokenize(index[numbers], tokenizer, unknown=asked), cell_index=torch.from_numpy(numbers))
            for numbers in portions(np.arange(len(index)), at_once)
        )

        def generated(batch: TokenBatch) -> NDArray[np.float32]:
            numbers = batch.cell_index.cpu().numpy()

            def of_prompts(x: NDArray[np.float32] | None) -> torch.Tensor | None:
                return None if x is None else torch.from_numpy(x[numbers]).to(self.device)

            thresholds: torch.Tensor | float = 0.5
            if draws is not None:
                drawn = draws(numbers[batch.cell_of_token.cpu().numpy()], batch.gene_ids.cpu().numpy())
                thresholds = torch.from_numpy(drawn).to(self.device)
            values = self.module.generate(
                batch,
                n_rounds,
                bounds=bounds,
                cell_prompt=of_prompts(embedded),
                share=of_prompts(share) if self._decides else None,
                thresholds=thresholds,
            )
            return values[batch.unknown].view(len(numbers), -1).cpu().numpy()

        result = np.empty((len(index), len(asked)), np.float32)
        n_empty = 0
        for part, values in self._passes(generated, tokenized, len(index), precision, "Generating", progress_bar):
            n_empty += int((part.lengths == 1 + len(asked)).sum())
            result[part.cell_index] = values
        if n_empty and embedded is None:
            logger.warning(
                "%d cells express no known gene; what is generated for them is that of an empty cell.", n_empty
            )
        return result


def resolve_prompt(prompt: Prompt | None, embeddings: object | None, groupby: str | None) -> Prompt:
    """Return what is generated from, by default the cell where ``embeddings`` or ``groupby`` are given, else known genes.

    Raises
    ------
    ValueError
        When the prompt is none of those known, or does not go with what is given.
    """
    if prompt is None:
        return "genes" if embeddings is None and groupby is None else "cell"
    if prompt not in ("genes", "cell", "both"):
        raise ValueError(f"prompt must be 'genes', 'cell' or 'both', not {prompt!r}.")
    if groupby is not None and prompt != "cell":
        raise ValueError(f"Pseudo-cells of groupby={groupby!r} have no known gene: leave out prompt={prompt!r}.")
    if embeddings is not None and prompt == "genes":
        raise ValueError("embeddings are cell prompts: pass prompt='cell', or prompt='both' for known genes beside.")
    return prompt


def _draws(names: pd.Index, seed: int) -> Callable[[NDArray[np.int64], NDArray[np.int64]], NDArray[np.float64]]:
    """Return a function from the places of cells and the ids of genes to numbers in [0, 1).

    They are a function of a cell's name and not of its place, so that other cells have no say.
    """
    ids = np.array([zlib.crc32(str(name).encode()) for name in names], np.int64)
    key = derive_key(seed, "expressed genes")
    return lambda cells, genes: uniform_of(key, ids[cells], genes)


def _prompts_of(
    adata: AnnData,
    groupby: str | None,
    groups: str | Iterable[str] | None,
    n_cells: int | None,
    n_averaged: int,
    seed: int,
) -> tuple[pd.DataFrame, Sequence[NDArray[np.int64]]]:
    """Return the ``.obs`` of what is generated, and of each cell the rows of those that it is generated after."""
    if groupby is None:
        return in_memory(adata.obs).copy(), list(np.arange(adata.n_obs)[:, None])
    for name, number in (("n_cells", n_cells), ("n_averaged", n_averaged)):
        if number is not None:
            check_whole(number, name)
    column = column_of(adata.obs, groupby, "groupby").astype("category")
    rows_of = {str(name): np.flatnonzero(column == name) for name in column.cat.categories}
    rows_of = {name: rows for name, rows in rows_of.items() if len(rows)}
    chosen = list(rows_of) if groups is None else [groups] if isinstance(groups, str) else [str(g) for g in groups]
    if strange := [name for name in chosen if name not in rows_of]:
        raise ValueError(f"No cell of .obs[{groupby!r}] is of the groups {strange}; there are {listed(list(rows_of))}.")
    if not chosen:
        raise ValueError(f"There is no group: no cell has a value in .obs[{groupby!r}], or groups is empty.")
    drawn: list[NDArray[np.int64]] = []
    for name in chosen:
        if n_cells is None:
            drawn.append(rows_of[name])
            continue
        # A function of the seed and the name: other groups have no say. No cell comes again before all have come.
        random = np.random.default_rng(derive_key(seed, f"pseudo-cells of {name}"))
        n, rows = n_cells * n_averaged, rows_of[name]
        turns = [random.permutation(rows) for _ in range(-(-n // len(rows)))]
        drawn += list(np.concatenate(turns)[:n].reshape(n_cells, n_averaged))
    per_group = n_cells or 1
    obs = pd.DataFrame(
        {groupby: pd.Categorical(np.repeat(chosen, per_group), categories=chosen)},
        index=[f"{name}-{i}" for name in chosen for i in range(per_group)],
    )
    return obs, drawn
