"""The paper's data of several modalities."""

from __future__ import annotations

from pathlib import Path

import mudata
import multiomics
import numpy as np
import pandas as pd

import scgpt


def run(
    files: list[Path], model: str | Path | None, batch_key: str, label_key: str, seed: int, epochs: int | None = None
):
    """Score the joint embedding of one study, or of the mosaic of several, and what it is compared with.

    Parameters
    ----------
    files
        h5mu files with ``rna``, ``atac`` or ``protein``, with counts.
    model
        Checkpoint to start from; None from scratch.
    batch_key, label_key
        Columns of ``.obs`` of modalities.
    """
    studies = {str(i) if len(files) > 1 else "": mudata.read_h5mu(path) for i, path in enumerate(files)}
    for mdata in studies.values():
        for part in mdata.mod.values():
            part.obs["batch"] = scgpt.data.obs_column(mdata, batch_key).reindex(part.obs_names).astype(str)
            part.obs["cell_type"] = scgpt.data.obs_column(mdata, label_key).reindex(part.obs_names).astype(str)
    methods = {"scGPT": lambda *given: multiomics.scgpt_from_scratch(*given, model=model)}
    if len(studies) == 1:
        methods |= {"WNN": multiomics.wnn, "PCA and LSI side by side": multiomics.side_by_side}
    else:
        methods |= {"PCA of RNA": multiomics.pca_of_rna}
    scores = {
        name: multiomics.scores_of(method(studies, "", seed, epochs), studies, seed, 200)
        for name, method in methods.items()
    }
    return pd.DataFrame(scores).T


def stand_in(folder: Path) -> list[Path]:
    """Write a small study of RNA and proteins, made up."""
    from anndata import AnnData

    rng = np.random.default_rng(0)
    types = rng.integers(3, size=120)
    obs = pd.DataFrame(
        {"batch": rng.choice(["a", "b"], 120), "cell_type": [f"type {t}" for t in types]},
        index=[f"cell{i}" for i in range(120)],
    )
    parts = {}
    for kind, n in (("rna", 80), ("protein", 12)):
        rates = rng.gamma(0.5, 4, (3, n))
        counts = rng.poisson(rates[types]).astype(np.float32)
        parts[kind] = AnnData(counts, obs=obs.copy(), var=pd.DataFrame(index=[f"{kind}{i}" for i in range(n)]))
    path = folder / "study.h5mu"
    mudata.MuData(parts).write_h5mu(path)
    return [path]
