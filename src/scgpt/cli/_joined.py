"""Several files of cells, each a study, as one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from anndata import AnnData
    from mudata import MuData

STUDY = "study"
# A gene that a study did not measure would be a zero there.
_HOW: dict[str, Any] = {"join": "inner", "label": STUDY, "index_unique": "-", "merge": "same", "uns_merge": "same"}


def check_joinable(studies: Mapping[str, AnnData | MuData]) -> None:
    """Raise, before a model is trained, where studies could not be written as one file.

    Raises
    ------
    ValueError
        When the column of studies is taken, or variables have no names by which they are the same in all.
    """
    for name, data in studies.items():
        if STUDY in data.obs:
            raise ValueError(
                f"{name} has a column .obs[{STUDY!r}], where the names of the files are to stand; rename it."
            )
    for kind, parts in _by_kind(studies).items():
        where = f".mod[{kind!r}].var_names" if kind else ".var_names"
        for name, part in parts.items():
            if not part.var_names.is_unique:
                raise ValueError(
                    f"{where} of {name} names variables twice; make them unique by var_names_make_unique()."
                )
        if not set.intersection(*(set(part.var_names) for part in parts.values())):
            raise ValueError(
                f"the files share no name in {where}, and one file is to hold what they share; rename these."
            )


def joined(studies: Mapping[str, Any], batch_key: str) -> AnnData | MuData:
    """Return the cells of all studies, with the variables and columns that all have."""
    import anndata

    parts = _by_kind(studies)
    if "" in parts:
        for name, adata in studies.items():
            if batch_key not in adata.obs:  # as it was integrated: the study is a batch
                adata.obs[batch_key] = name
        return anndata.concat(studies, **_HOW)
    from mudata import MuData

    joint = MuData({kind: anndata.concat(of_kind, **_HOW) for kind, of_kind in parts.items()})
    # What stands beside the modalities is joined as that of data without any.
    beside = {
        name: anndata.AnnData(
            obs=mdata.obs, obsm={key: mdata.obsm[key] for key in mdata.obsm if key not in mdata.mod}, uns=mdata.uns
        )
        for name, mdata in studies.items()
    }
    whole = anndata.concat(beside, **_HOW)[joint.obs_names]
    joint.obs = whole.obs
    joint.uns.update(whole.uns)
    for key, values in whole.obsm.items():
        joint.obsm[key] = values
    return joint


def _by_kind(studies: Mapping[str, Any]) -> dict[str, dict[str, AnnData]]:
    """Return the data sets of each modality, under "" where there is one alone."""
    kinds: dict[str, dict[str, AnnData]] = {}
    for name, data in studies.items():
        for kind, part in data.mod.items() if hasattr(data, "mod") else [("", data)]:
            kinds.setdefault(kind, {})[name] = part
    return kinds
