"""Names of perturbations, and the cells that stand under each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ._columns import named_codes_of
from ._messages import listed, warn_user

if TYPE_CHECKING:
    from anndata import AnnData

PERTURBATION_KEY = "perturbation"
"""Column of ``.obs`` with the names in predictions."""
FEW_CELLS = 5
"""Means of fewer cells say little."""


def perturbed_by(name: str, *, control: str = "control", sep: str = "+") -> tuple[str, ...]:
    """Return what a perturbation's name says that cells were perturbed by.

    The order in a name has no meaning, and the control label in it adds nothing: ``"B+A"`` is ``"A+B"``, and
    ``"A+control"``, as GEARS writes it, is ``"A"``.

    Parameters
    ----------
    name
        Genes, or treatments, joined by ``sep``; or the control label.
    control
        Label of cells that were not perturbed.
    sep
        Between the genes of one name.

    Returns
    -------
    The genes, sorted; none for control.

    Raises
    ------
    ValueError
        When a gene is named twice, or nothing stands beside a ``sep``.

    Examples
    --------
    >>> from scgpt.metrics import perturbed_by
    >>> perturbed_by("KLF1+CEBPA"), perturbed_by("KLF1+ctrl", control="ctrl"), perturbed_by("control")
    (('CEBPA', 'KLF1'), ('KLF1',), ())
    """
    if name == control:
        return ()
    parts = [part.strip() for part in name.split(sep)]
    if not all(parts):
        raise ValueError(f"The perturbation {name!r} names nothing on one side of {sep!r}.")
    genes = sorted(part for part in parts if part != control)
    if twice := [gene for gene, times in Counter(genes).items() if times > 1]:
        raise ValueError(f"The perturbation {name!r} names {listed(twice)} twice.")
    return tuple(genes)


def canonical_name(name: str, control: str, sep: str) -> str:
    """Return the name with its genes in order: the one that all names of a perturbation share."""
    return sep.join(perturbed_by(name, control=control, sep=sep)) or control


def canonical_names(names: Iterable[str], control: str, sep: str, what: str) -> list[str]:
    """Return names of perturbations as :func:`canonical_name` does; ``what`` they are goes into messages.

    Raises
    ------
    ValueError
        When a name is missing, or a perturbation is named twice.
    """
    names = [names] if isinstance(names, str) else list(names)
    if missing := sum(not isinstance(name, str) for name in names):
        raise ValueError(f"{missing} of {len(names)} names of {what} are no text.")
    out = [canonical_name(name, control, sep) for name in names]
    if twice := sorted(name for name, times in Counter(out).items() if times > 1):
        raise ValueError(f"Of {what}, these are named twice: {listed(twice)}.")
    return out


@dataclass(frozen=True)
class PerturbationGroups:
    """Which rows stand under which perturbation.

    Parameters
    ----------
    rows
        For each perturbation, by its canonical name and in the order of these, its rows; control is not among them.
    control_rows
        Rows that were not perturbed.
    """

    rows: dict[str, NDArray[np.intp]]
    control_rows: NDArray[np.intp]

    @classmethod
    def of(
        cls, adata: AnnData, perturbation_key: str, control: str, sep: str, *, needs_control: bool = True
    ) -> PerturbationGroups:
        """Read them from a column.

        Raises
        ------
        KeyError
            When the column is not there.
        ValueError
            When cells have no perturbation, a name makes no sense, or no cell is control where there has to be one.
        """
        codes, given = named_codes_of(adata, perturbation_key, "perturbation")
        names = [canonical_name(name, control, sep) for name in given]
        # Several names, as "A+B" and "B+A", may be one perturbation.
        unique = sorted(set(names))
        of_rows = np.array([unique.index(name) for name in names], dtype=np.intp)[codes]
        by_group = np.split(
            np.argsort(of_rows, kind="stable"), np.cumsum(np.bincount(of_rows, minlength=len(unique)))[:-1]
        )
        rows = dict(zip(unique, by_group, strict=True))
        control_rows = rows.pop(control, np.array([], dtype=np.intp))
        if needs_control and not len(control_rows):
            raise ValueError(
                f"No cell is control: none is {control!r} in .obs[{perturbation_key!r}], which has "
                f"{listed(sorted(rows))}. Pass the label that stands there for control."
            )
        return cls(rows, control_rows)

    @property
    def names(self) -> list[str]:
        """Canonical names of the perturbations, sorted."""
        return list(self.rows)

    def warn_of_few_cells(self, names: Iterable[str]) -> None:
        """Say which perturbations have so few cells that their means say little."""
        few = [f"{name} ({len(self.rows[name])})" for name in names if len(self.rows[name]) < FEW_CELLS]
        if few:
            warn_user(
                f"{len(few)} perturbations have fewer than {FEW_CELLS} cells, so what is observed of them is mostly "
                f"noise: {listed(few)}."
            )
