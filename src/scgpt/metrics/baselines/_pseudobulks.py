"""Mean profiles of training perturbations, and predictions in the form that scores take."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from scgpt.metrics._messages import warn_user
from scgpt.metrics._moments import LogValues
from scgpt.metrics._perturbation_inputs import check_finite, check_unique_genes
from scgpt.metrics._perturbations import PERTURBATION_KEY, PerturbationGroups, canonical_names, perturbed_by

from ._notes import note

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData


@dataclass(frozen=True)
class Pseudobulks:
    """Mean profiles of the conditions in training cells.

    Parameters
    ----------
    genes
        Names of the genes.
    names
        Canonical names of the perturbations.
    control
        ``(n_genes,)`` mean of control cells.
    means
        ``(n_perturbations, n_genes)`` means of perturbed cells.
    n_cells
        ``(n_perturbations,)``.
    control_label
        What stands for control.
    sep
        Between the genes of one perturbation.
    """

    genes: pd.Index
    names: list[str]
    control: NDArray[np.float64]
    means: NDArray[np.float64]
    n_cells: NDArray[np.intp]
    control_label: str
    sep: str

    @classmethod
    def of(
        cls,
        adata: AnnData,
        perturbation_key: str,
        control: str,
        sep: str,
        layer: str | None,
        *,
        needs_perturbed: bool = False,
    ) -> Pseudobulks:
        """Compute them from cells."""
        check_unique_genes(adata, "training")
        groups = PerturbationGroups.of(adata, perturbation_key, control, sep)
        if needs_perturbed and not groups.names:
            raise ValueError(f"No training cell is perturbed: all are {control!r} in .obs[{perturbation_key!r}].")
        values = LogValues.of(adata, layer)
        if values.look_like_counts:
            where = "`.X`" if layer is None else f"Layer {layer!r}"
            warn_user(f"{where} of the training cells seems to hold counts; the baselines take log-normalised values.")
        moments = values.moments([groups.control_rows, *groups.rows.values()])
        check_finite(moments, [control, *groups.names], "observed")
        return cls(adata.var_names, groups.names, moments.mean[0], moments.mean[1:], moments.n_cells[1:], control, sep)

    @property
    def changes(self) -> NDArray[np.float64]:
        """``(n_perturbations, n_genes)``, from control."""
        return self.means - self.control

    @property
    def mean_change(self) -> NDArray[np.float64]:
        """``(n_genes,)`` of all perturbed cells together."""
        return np.average(self.changes, axis=0, weights=self.n_cells)

    @property
    def conditions(self) -> NDArray[np.float64]:
        """``(1 + n_perturbations, n_genes)`` means, control first."""
        return np.concatenate([self.control[None], self.means])

    def genes_of(self, name: str) -> tuple[str, ...]:
        """Return the genes that a perturbation perturbs."""
        return perturbed_by(name, control=self.control_label, sep=self.sep)

    def asked_for(self, perturbations: Iterable[str]) -> list[str]:
        """Return canonical names of the perturbations to predict."""
        names = canonical_names(perturbations, self.control_label, self.sep, "the perturbations to predict")
        if not names:
            raise ValueError("There is no perturbation to predict.")
        if self.control_label in names:
            raise ValueError(f"Control, {self.control_label!r}, is no perturbation to predict: leave it out.")
        return names


def predictions(
    training: Pseudobulks,
    names: list[str],
    changes: NDArray[np.float64],
    method: str,
    lacking: Sequence[Sequence[str]] | None = None,
    **params: str | int | float,
) -> AnnData:
    """Return predictions as :func:`~scgpt.metrics.baselines.no_change` tells.

    Parameters
    ----------
    training
        What they are made from.
    names
        Canonical names of the predicted perturbations.
    changes
        ``(n, n_genes)`` from control.
    method
        Name of the baseline.
    lacking
        For each perturbation the genes that the baseline knew nothing of; none by default.
    **params
        For the note.
    """
    import anndata as ad
    import pandas as pd

    fallback = [""] * len(names) if lacking is None else [training.sep.join(genes) for genes in lacking]
    out = ad.AnnData(
        (training.control + changes).astype(np.float32),
        obs=pd.DataFrame({PERTURBATION_KEY: names, "fallback": fallback}, index=names),
        var=pd.DataFrame(index=training.genes),
        layers={"delta": changes.astype(np.float32)},
    )
    note(out, "baseline", method, "numpy", n_training_perturbations=len(training.names), **params)
    return out
