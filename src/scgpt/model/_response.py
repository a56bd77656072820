"""How cells respond to perturbations, as a trained model predicts it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
import torch
from anndata import AnnData
from numpy.typing import ArrayLike, NDArray
from tqdm.auto import tqdm

from scgpt._messages import listed, warn_user
from scgpt.data import (
    Cells,
    GeneMatch,
    GeneValues,
    GeneVocab,
    Marks,
    TokenBatch,
    Tokenizer,
    check_log_normalised,
    check_whole,
    derive_key,
    in_memory,
    tokens_of_cells,
)
from scgpt.module import ScGPTModule

from ._embedding import _rows
from ._passes import Passes, Precision, in_precision, tokens_per_pass
from ._perturbations import PERTURBATIONS_KEY, PerturbationNames, names_of


@dataclass(frozen=True)
class PredictedProfiles:
    """What :meth:`SCGPTPerturbation.iter_predictions` yields of one perturbation.

    Parameters
    ----------
    name
        The perturbation, as it was asked for.
    predicted
        ``(n_cells, n_genes)`` float32.
    control
        ``(n_cells, n_genes)`` float32, of the control cells that it is predicted from.

    Examples
    --------
    >>> import numpy as np
    >>> from scgpt.model import PredictedProfiles
    >>> control, predicted = np.ones((3, 2), np.float32), np.full((3, 2), 1.5, np.float32)
    >>> profiles = PredictedProfiles("KLF1", predicted=predicted, control=control)
    >>> (profiles.predicted - profiles.control).mean(0).tolist()  # the mean change of two genes
    [0.5, 0.5]
    """

    name: str
    predicted: NDArray[np.float32]
    control: NDArray[np.float32]


class ResponseMixin:
    """``predict`` for models of perturbations."""

    module: ScGPTModule
    tokenizer: Tokenizer
    vocab: GeneVocab
    device: torch.device
    is_trained: bool
    registry: dict[str, Any]
    match: Callable[..., GeneMatch]
    layer_of: Callable[..., str]
    _given_or_own: Callable[[Any], Any]

    @property
    def names(self) -> PerturbationNames:
        """How the model's perturbations are written."""
        return names_of(self._state)

    @property
    def trained_on(self) -> list[str]:
        """Perturbations of the data set that the model was set up with."""
        return list(self._state["trained_on"])

    @property
    def _state(self) -> Mapping[str, Any]:
        state = self.registry["field_registries"].get(PERTURBATIONS_KEY, {}).get("state_registry")
        if not state:
            raise ValueError(
                "Nothing says which perturbations this model knows. Set data up with SCGPTPerturbation.setup_anndata and "
                "pass them: SCGPTPerturbation.from_pretrained(model, adata)."
            )
        return state

    @property
    def _gene_mapping(self) -> Mapping[str, str]:
        return self.registry["setup_args"].get("gene_mapping") or {}

    def predict(
        self,
        perturbations: str | Iterable[str],
        adata: AnnData | None = None,
        *,
        direction: str | None = None,
        indices: ArrayLike | None = None,
        n_cells: int | None = 300,
        seed: int = 0,
        layer: str | None = None,
        precision: Precision = "auto",
        progress_bar: bool = True,
    ) -> pd.DataFrame:
        """Predict the mean expression of cells under perturbations.

        Parameters
        ----------
        perturbations
            Names of genes or treatments, joined by the model's ``sep``; also such that no cell was trained on.
        adata
            As in :meth:`iter_predictions`, as all that follow.
        direction
            See there.
        indices
            See there.
        n_cells
            See there.
        seed
            See there.
        layer
            See there.
        precision
            See there.
        progress_bar
            See there.

        Returns
        -------
        ``(n_perturbations, n_genes)`` float32 log-normalised values, with the variables of ``adata`` that are genes of the
        model as columns.

        Raises
        ------
        KeyError, ValueError
            As :meth:`iter_predictions`.
        """
        found = self.iter_predictions(
            perturbations,
            adata,
            direction=direction,
            indices=indices,
            n_cells=n_cells,
            seed=seed,
            layer=layer,
            precision=precision,
            progress_bar=progress_bar,
        )
        names, means = zip(*((profiles.name, profiles.predicted.mean(0)) for profiles in found), strict=True)
        return pd.DataFrame(np.array(means), index=list(names), columns=self.predicted_genes(adata))

    def predicted_genes(self, adata: AnnData | None = None) -> pd.Index:
        """Return the variables of a data set that are predicted, one for each gene of the model, in order of the genes."""
        return self._given_or_own(adata).var_names[_first_of_each(self.match(adata))]

    def control_cells(
        self,
        adata: AnnData | None = None,
        *,
        indices: ArrayLike | None = None,
        n_cells: int | None = None,
        seed: int = 0,
    ) -> NDArray[np.int64]:
        """Return the rows of control cells, or of some of them drawn at random.

        Parameters
        ----------
        adata
            Any data set; by default the model's own. All of its cells are taken for control cells where it has no column
            of perturbations.
        indices
            Rows to choose among.
        n_cells
            Most of them; all by default.
        seed
            Of the draw.

        Raises
        ------
        ValueError
            When there is none, or none is asked for.
        """
        adata = self._given_or_own(adata)
        if n_cells is not None:
            check_whole(n_cells, "n_cells")
        rows = _rows(adata, indices)
        names = replace(self.names, direction_column=None)  # which other data need not have
        if names.column in adata.obs:
            rows = rows[names.of(in_memory(adata.obs).iloc[rows])["name"].to_numpy() == names.control]
        if not len(rows):
            raise ValueError(f"There is no control cell ({names.control!r} in .obs[{names.column!r}]) to start from.")
        if n_cells is not None and n_cells < len(rows):
            rows = np.sort(np.random.default_rng(derive_key(seed, "controls")).permutation(rows)[:n_cells])
        return rows

    def iter_predictions(
        self,
        perturbations: str | Iterable[str],
        adata: AnnData | None = None,
        *,
        direction: str | None = None,
        indices: ArrayLike | None = None,
        n_cells: int | None = 300,
        seed: int = 0,
        layer: str | None = None,
        precision: Precision = "auto",
        progress_bar: bool = True,
    ) -> Iterator[PredictedProfiles]:
        """Predict cells under one perturbation after the other, from the same control cells.

        A cell's prediction depends on the cell and the perturbation alone, and on which genes were measured.

        Parameters
        ----------
        perturbations
            Names, see :meth:`predict`.
        adata
            Data set with the control cells, see :meth:`control_cells`; by default the model's own.
        direction
            In which genes are perturbed, where the model was trained with directions.
        indices
            Rows of ``adata`` to start from; all control cells by default.
        n_cells
            Most control cells, drawn at random; None for all.
        seed
            Of the draw.
        layer
            Layer with log-normalised values, ``"X"`` for ``.X``; by default the one that the model was set up with.
        precision
            As in :meth:`SCGPT.get_latent_representation`.
        progress_bar
            Show progress.

        Yields
        ------
        :class:`PredictedProfiles`, in the order of ``perturbations``; genes are :meth:`predicted_genes`.

        Raises
        ------
        KeyError
            When a perturbation names what is neither a gene nor a treatment of the model, or no direction is known by the
            name.
        ValueError
            When no perturbation or no control cell is there, a gene stands twice in a name, or values are raw counts.
        """
        adata = self._given_or_own(adata)
        wanted = [perturbations] if isinstance(perturbations, str) else [str(name) for name in perturbations]
        marks = self.marks_of(wanted, direction=direction)  # raises before the first
        if not self.is_trained:
            warn_user("The model is not trained; its predictions mean nothing yet.")
        layer = self.layer_of(layer)
        layer = None if layer == "X" else layer
        check_log_normalised(adata, layer)
        match = self.match(adata)
        expression = GeneValues(Cells(adata, match.token_ids, layer=layer))
        rows = self.control_cells(adata, indices=indices, n_cells=n_cells, seed=seed)
        control = expression.of(rows, expression.genes)
        return self._predictions(wanted, marks, expression.genes, control, rows, precision, progress_bar)

    def marks_of(self, perturbations: Iterable[str], *, direction: str | None = None) -> list[Marks]:
        """Return the tokens that perturbations put under conditions.

        Raises
        ------
        KeyError, ValueError
            As :meth:`iter_predictions`, for names that nothing can be predicted of.
        """
        names, perturbations = self.names, list(perturbations)
        marks = [names.marks(name, direction or "", self.vocab, self._gene_mapping) for name in perturbations]
        if not marks:
            raise ValueError("There is no perturbation to predict.")
        of_genes = [name for name in perturbations if names.genes(name)]
        if of_genes and not any(names.genes(name) for name in self.trained_on):
            warn_user(
                f"No cell that the model was trained on had a perturbed gene; what it predicts of {listed(of_genes)} means "
                "nothing."
            )
        return marks

    def _predictions(
        self,
        names: Sequence[str],
        marks: Sequence[Marks],
        genes: NDArray[np.int64],
        control: NDArray[np.float32],
        rows: NDArray[np.int64],
        precision: Precision,
        progress_bar: bool,
    ) -> Iterator[PredictedProfiles]:
        self.module.eval()
        passes = Passes(self.module.network)
        with in_precision(self.module.network, precision):
            for name, mark in tqdm(
                zip(names, marks, strict=True), "Predicting", len(names), disable=not progress_bar, unit="perturbation"
            ):
                yield PredictedProfiles(name, self._predict(mark, genes, control, rows, passes), control)

    @torch.inference_mode()
    def _predict(
        self,
        mark: Marks,
        genes: NDArray[np.int64],
        control: NDArray[np.float32],
        rows: NDArray[np.int64],
        passes: Passes,
    ) -> NDArray[np.float32]:
        """Return what a perturbation makes of each control cell, ``(n_cells, n_genes)``."""
        # A perturbed gene that was not measured is a token, too; what it becomes is not told.
        unmeasured = np.setdiff1d(mark.tokens, [*genes, self.vocab.cls_id])
        asked = np.union1d(genes, unmeasured)
        place = np.searchsorted(asked, genes)

        def batches() -> Iterator[TokenBatch]:
            at_once = max(1, tokens_per_pass(self.module.network) // (len(asked) + 1))
            for start in range(0, len(control), at_once):
                part = slice(start, start + at_once)
                values = np.zeros((len(control[part]), len(asked)), np.float32)
                values[:, place] = control[part]
                yield tokens_of_cells(
                    values,
                    asked,
                    [mark] * len(values),
                    cls_id=self.vocab.cls_id,
                    cls_value=self.tokenizer.cls_value,
                    cell_index=rows[part],
                )

        def predicted(batch: TokenBatch) -> NDArray[np.float32]:
            out = self.module.inference(batch, ("perturb_gep",)).perturb_gep
            assert out is not None  # the network raises where it has no such head
            return out.float().cpu().numpy().reshape(batch.n_cells, -1)[:, 1 + place]

        return np.concatenate([values for _, values in passes(predicted, batches())])


def _first_of_each(match: GeneMatch) -> NDArray[np.int64]:
    """Return a variable for each gene that a data set has, in the order of their ids."""
    known = np.flatnonzero(match.token_ids >= 0)
    return known[np.unique(match.token_ids[known], return_index=True)[1]]
