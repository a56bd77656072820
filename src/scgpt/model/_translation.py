"""What a modality that cells lack would hold, told from those that they have."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import torch
from mudata import MuData
from numpy.typing import ArrayLike, NDArray

from scgpt._messages import warn_user
from scgpt.data import MODALITIES, GeneVocab, MultiCells, TokenBatch, Tokenizer, unbin_values, values_of_bins
from scgpt.module import ScGPTModule

from ._embedding import _rows
from ._passes import Precision

_CELLS_AT_ONCE = 2048


class TranslationMixin:
    """``predict_modality`` for models of several modalities."""

    module: ScGPTModule
    tokenizer: Tokenizer
    vocab: GeneVocab
    extras: dict[str, Any]
    device: torch.device
    is_trained: bool
    train_indices: NDArray[np.int64]
    _cells_of: Any
    _batch_labels: Any
    _kinds_of: Any
    _registered_cells: Any
    _given_or_own: Any
    _of_cells: Any
    _gene_ids: Any

    def predict_modality(
        self,
        modality: str,
        mdata: MuData | None = None,
        *,
        source: str | Iterable[str] | None = None,
        features: Iterable[str] | None = None,
        indices: ArrayLike | None = None,
        precision: Precision = "auto",
        progress_bar: bool = True,
    ) -> pd.DataFrame:
        """Predict the values of a modality from the others, also in cells that have it.

        The cell embedding tells the chance that a feature is above 0, and the bin of its value if so; a bin stands for
        what it is on average in the cells trained on. Where the decoders read the batch, the prediction is the mean of
        those for the batches that have the modality.

        Parameters
        ----------
        modality
            Kind of the modality: ``"rna"``, ``"atac"`` or ``"protein"``.
        mdata
            Any data set with modalities of the same kinds; by default the model's own.
        source
            Kinds of modalities to look at; by default all others.
        features
            Names of features; by default all of this modality that the model was trained on.
        indices
            Rows; all by default.
        precision
            See :meth:`SCGPT.get_latent_representation`.
        progress_bar
            See there.

        Returns
        -------
        ``(n_cells, n_features)`` float32 in the units of the values that the model was trained on, 0 or more. Cells that
        have no other modality have NaN.

        Raises
        ------
        KeyError
            When the model knows no such modality or feature, or ``mdata`` has no other.
        ValueError
            When the model was not trained with the objectives ``zero`` and ``levels``; when cells have batches that it was not
            trained on and that it reads.
        """
        mdata = self._given_or_own(mdata)
        profile = self._profile(modality)
        names = list(profile["features"]) if features is None else [str(name) for name in features]
        if lacking := sorted(set(names) - set(profile["features"])):
            raise KeyError(f"The model was not trained on the {modality} features {lacking[:5]}.")
        there = [kind for kind in self._kinds_of(mdata) if kind != modality]
        wanted = there if source is None else [source] if isinstance(source, str) else list(source)
        if modality in wanted or not wanted:
            raise KeyError(f"{modality!r} is predicted from other modalities; those of mdata are {there}.")
        if not self.is_trained:
            warn_user("The model is not trained; its predictions mean nothing yet.")
        rows = _rows(mdata, indices)
        cells = self._cells_of(mdata, wanted, self._batch_labels(mdata, decodes=False))
        present = cells.present[rows]
        result = np.full((len(rows), len(names)), np.nan, np.float32)
        asked = pd.Index(profile["features"]).get_indexer(names)
        result[present] = self._of_cells(
            self._translator(modality, profile, asked),
            len(names),
            cells,
            rows[present],
            max_length=None,
            precision=precision,
            progress_bar=progress_bar,
            doing="Translating",
        )
        return pd.DataFrame(result, index=mdata.obs_names[rows], columns=names)

    def _translator(self, modality: str, profile: dict[str, Any], asked: NDArray[np.int64]) -> Any:
        """Return a function from a batch to the values of the features at some places of those trained on."""
        network = self.module.network
        names = [token_name(modality, name) for name in profile["features"]]
        ids = torch.from_numpy(self._gene_ids(names)).to(self.device)
        modality_ids = torch.full_like(ids, MODALITIES[modality])
        table = np.asarray(profile["values"], dtype=np.float32)[None]
        batches = profile["batches"] if network.config.batch_embedding else [None]

        @torch.inference_mode()
        def translate(batch: TokenBatch) -> torch.Tensor:
            cells = self.module.embed(batch)
            share = cells.new_full((len(cells), 1), profile["share"])
            total = np.zeros((len(cells), len(asked)), np.float32)
            for label in batches:
                labels = None if label is None else torch.full((len(cells),), label, device=cells.device)
                chance = network.expressed(ids, cells, share, labels, modality_ids)
                level = network.levels(ids, cells, labels, modality_ids)
                bins = level.float().cpu().numpy()[:, asked].clip(1, table.shape[1] - 1)
                total += chance.cpu().numpy()[:, asked] * unbin_values(bins, np.repeat(table, len(bins), axis=0))
            return torch.from_numpy(total / len(batches))

        return translate

    def _profile(self, modality: str) -> dict[str, Any]:
        """Return what was kept of a modality in training."""
        if "levels" not in self.extras.get("objectives", ()) or "zero" not in self.extras["objectives"]:
            raise ValueError(
                "To predict a modality a model must be trained with the objectives 'zero' and 'levels', as "
                "scgpt.tl.integrate does; this one was trained with "
                f"{list(self.extras.get('objectives', ())) or 'none of them'}."
            )
        profiles = self.extras["profiles"]
        if modality not in profiles:
            raise KeyError(f"The model was trained on the modalities {list(profiles)}, not on {modality!r}.")
        return profiles[modality]

    def _keep_profiles(self) -> None:
        """Keep what the bins of each modality stand for, and how much of it cells express, in the cells trained on."""
        self.extras["objectives"] = [objective.name for objective in self.module.objectives]
        if not {"zero", "levels"} <= set(self.extras["objectives"]):
            return
        whole: MultiCells = self._registered_cells()
        matches = self.match()  # type: ignore[attr-defined]
        n_bins = self.tokenizer.n_bins or 2
        self.extras["profiles"] = {}
        for kind, part in whole.modalities.items():
            index = self.train_indices[part.rows[self.train_indices] >= 0]
            if not len(index):
                continue
            known = np.unique(matches[kind].token_ids[matches[kind].token_ids >= 0])
            as_they_are = replace(self.tokenizer, n_bins=None, max_length=len(known) + 1, include_zeros=False)
            table, n_expressed = np.zeros(n_bins), 0
            for rows in np.array_split(part.rows[index], -(-len(index) // _CELLS_AT_ONCE)):
                batch = part.cells.tokenize(rows, as_they_are)
                n_expressed += batch.n_tokens - batch.n_cells
                for values in np.split(batch.values.numpy(), batch.offsets[1:-1].numpy()):
                    table += values_of_bins(values[1:], n_bins)  # the first is <cls>
            batches = [] if whole.batch_labels is None else np.unique(whole.batch_labels[index]).tolist()
            self.extras["profiles"][kind] = {
                "features": [feature_name(kind, self.vocab.tokens[i]) for i in known],
                "share": n_expressed / (len(index) * len(known)),
                "values": (table / len(index)).tolist(),
                "batches": [int(label) for label in batches],
            }


def token_name(kind: str, name: str) -> str:
    """Return a feature's name in the vocabulary: a protein is not the gene of its name."""
    return name if kind == "rna" else f"{kind}:{name}"


def feature_name(kind: str, token: str) -> str:
    """Return the name that :func:`token_name` was given."""
    return token if kind == "rna" else token.removeprefix(f"{kind}:")
