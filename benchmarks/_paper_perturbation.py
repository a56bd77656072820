"""The paper's perturbation data, in the layouts that they come in."""

from __future__ import annotations

from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import scanpy as sc

import scgpt
from scgpt.metrics import PerturbationSplit, baselines, perturbation_scores, perturbed_by

KEY = "perturbation"
N_TOP_GENES, MAX_GENES = 5000, 1537


def read(path: Path) -> tuple[anndata.AnnData, str]:
    """Read a file in the layout of GEARS or of pertpy; return log-normalised cells under gene symbols, and what control is.

    GEARS: ``.obs["condition"]`` as ``A+ctrl``, ``ctrl``, log-normalised ``.X``, ``.var["gene_name"]``. pertpy:
    ``.obs["perturbation"]`` or ``.obs["perturbation_name"]`` as ``A``, ``A_B`` or ``A+B``, ``control``; counts.
    """
    cells = anndata.read_h5ad(path)
    if "condition" in cells.obs and (cells.obs["condition"] == "ctrl").any():
        column, control = "condition", "ctrl"
        cells.var_names = cells.var["gene_name"].astype(str) if "gene_name" in cells.var else cells.var_names
    else:
        column = next((name for name in ("perturbation", "perturbation_name") if name in cells.obs), None)
        if column is None:
            raise ValueError(f"{path} has neither .obs['condition'] nor .obs['perturbation']: it is of neither layout.")
        control = "control"
    cells.var_names_make_unique()
    names = cells.obs[column].astype(str)
    genes = set(cells.var_names)
    cells.obs[KEY] = [n if n in genes or n == control else n.replace("_", "+") for n in names]
    if scgpt.data.scale_of(cells) == "counts":
        sc.pp.normalize_total(cells, target_sum=1e4)
        sc.pp.log1p(cells)
    # What perturbs no measured gene cannot be marked.
    known = {n: n == control or genes.issuperset(perturbed_by(n, control=control)) for n in cells.obs[KEY].unique()}
    return cells[cells.obs[KEY].map(known).to_numpy()].copy(), control


def run(
    cells: anndata.AnnData, control: str, model: str | Path, seed: int, *, epochs: int | None = None
) -> pd.DataFrame:
    """Score a fine-tuned model and the baselines on perturbations that training did not see.

    The split is made as GEARS makes its "simulation", but not by its random numbers: its test perturbations are others.
    """
    names = [n for n in cells.obs[KEY].unique() if n != control]
    split = PerturbationSplit.simulation(names, seed=seed, control=control)
    sc.pp.highly_variable_genes(train := cells[split.cells(cells, "train")].copy(), n_top_genes=N_TOP_GENES)
    perturbed = {gene for name in names for gene in perturbed_by(name, control=control)}
    kept = train.var["highly_variable"].to_numpy() | train.var_names.isin(list(perturbed))
    train, test = train[:, kept].copy(), cells[split.cells(cells, "test"), kept].copy()
    asked = {"perturbation_key": KEY, "control": control}
    predicted = {
        "scGPT, fine-tuned": scgpt.tl.perturb(
            train,
            list(split.test),
            model=model,
            max_epochs=epochs,
            seed=seed,
            **asked,
        ),
        "no change": baselines.no_change(train, list(split.test), **asked),
        "mean of perturbations": baselines.mean_of_perturbations(train, list(split.test), **asked),
        "additive": baselines.additive(train, list(split.test), **asked),
        "bilinear ridge": baselines.bilinear_ridge(train, list(split.test), **asked),
    }
    scores = {}
    for method, own in predicted.items():
        for group, members in {"all": split.test, **split.groups}.items():
            part = own[own.obs[KEY].isin(list(members)).to_numpy()].copy()
            table = perturbation_scores(test, part, reference=train, seed=seed, n_bootstrap=200, **asked)
            scores[f"{method}, {group}"] = table.overall
    return pd.DataFrame(scores).T


def stand_in() -> tuple[anndata.AnnData, str]:
    """Cells in the layout of GEARS, made up."""
    import _synthetic_perturbations as synthetic

    cells = synthetic.make([*synthetic.genes(), *synthetic.pairs()[:10]], n_cells=12, n_control=60)
    names = cells.obs[KEY].astype(str)
    cells.obs["condition"] = np.where(
        names == "control", "ctrl", np.where(names.str.contains("+", regex=False), names, names + "+ctrl")
    )
    del cells.obs[KEY], cells.layers["counts"]
    cells.var["gene_name"] = cells.var_names
    cells.var_names = [f"ENSG{i:011d}" for i in range(cells.n_vars)]
    return cells, "ctrl"
