"""Data sets under names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from anndata import AnnData
from mudata import MuData

from ._checks import check_anndata


def by_name(data: Any) -> dict[str, AnnData | MuData]:
    """Return data sets under their names: those of a mapping, places in a list, or ``""`` for the only one.

    Raises
    ------
    TypeError
        When one is neither an AnnData nor a MuData.
    ValueError
        When there is none, or two have one name.
    """
    if isinstance(data, Mapping):
        studies = {str(key): study for key, study in data.items()}
        if len(studies) < len(data):
            raise ValueError(f"Two studies have one name: {[str(key) for key in data]}.")
    elif isinstance(data, list | tuple):
        studies = {str(i): study for i, study in enumerate(data)}
    else:
        studies = {"": data}
    if not studies:
        raise ValueError("There is no data set to integrate.")
    for study in studies.values():
        if not isinstance(study, MuData):
            check_anndata(study)
    return studies
