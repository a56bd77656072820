"""Cells under perturbations whose combined effects are known.

Twenty genes act through four programs. A perturbation lowers its own gene, and moves genes of its program and some of its
own. Effects of two genes are

- of different programs: added;
- of one program: the common part counts once and a half, not twice;
- of the programs 0 and 1: the sum is made half as strong again, and twenty genes move that neither gene moves alone.

Counts are drawn from the cell's profile, which has a state of its own, after its depth.
"""

from __future__ import annotations

from itertools import combinations

import anndata
import numpy as np
import pandas as pd
import scanpy as sc
import scipy.sparse as sp

N_GENES, N_PERTURBED, N_PROGRAMS = 200, 20, 4
CONTROL, KEY = "control", "perturbation"
_DEPTH, _N_STATES = 2000, 3


def genes() -> list[str]:
    """Names of the perturbed genes, which are the first."""
    return [f"G{i:03d}" for i in range(N_PERTURBED)]


def pairs() -> list[str]:
    """Return all pairs of the perturbed genes."""
    return ["+".join(pair) for pair in combinations(genes(), 2)]


def program(gene: str) -> int:
    """Return the program of a gene."""
    return int(gene[1:]) % N_PROGRAMS


def log_effects(seed: int) -> dict[str, np.ndarray]:
    """Return the effect of each gene and pair on the logarithm of expression, ``(N_GENES,)`` each."""
    rng = np.random.default_rng([seed, 1])
    of_program = np.zeros((N_PROGRAMS, N_GENES))
    for own in of_program:
        own[rng.permutation(N_GENES - N_PERTURBED)[:30] + N_PERTURBED] = rng.normal(0, 0.7, 30)
    together = np.zeros(N_GENES)
    together[rng.permutation(N_GENES - N_PERTURBED)[:20] + N_PERTURBED] = rng.normal(0, 0.7, 20)
    common, private = {}, {}
    for i, gene in enumerate(genes()):
        common[gene] = of_program[program(gene)] * rng.uniform(0.5, 1.2)
        private[gene] = np.zeros(N_GENES)
        private[gene][rng.permutation(N_GENES - N_PERTURBED)[:10] + N_PERTURBED] = rng.normal(0, 0.7, 10)
        private[gene][i] = -1.5
    effects = {gene: common[gene] + private[gene] for gene in genes()}
    for a, b in combinations(genes(), 2):
        shared = common[a] + common[b]
        if program(a) == program(b):
            shared = shared * 0.75
        effect = shared + private[a] + private[b]
        if {program(a), program(b)} == {0, 1}:
            effect = 1.5 * effect + together
        effects[f"{a}+{b}"] = effect
    return effects


def make(perturbations: list[str], *, n_cells: int = 100, n_control: int = 500, seed: int = 0) -> anndata.AnnData:
    """Return log-normalised cells under some perturbations, and control cells; effects are those of ``seed``."""
    rng = np.random.default_rng([seed, 2])
    base = rng.normal(0, 1, N_GENES)
    states = rng.normal(0, 0.4, (_N_STATES, N_GENES))
    effects = log_effects(seed) | {CONTROL: np.zeros(N_GENES)}
    names = np.repeat([CONTROL, *perturbations], [n_control, *[n_cells] * len(perturbations)])
    cells = np.random.default_rng([seed, 3, len(names)])
    log = base + cells.normal(0, 1, (len(names), _N_STATES)) @ states + np.stack([effects[name] for name in names])
    share = np.exp(log) / np.exp(log).sum(1, keepdims=True)
    counts = cells.poisson(share * _DEPTH * cells.lognormal(0, 0.3, (len(names), 1)))
    adata = anndata.AnnData(
        sp.csr_matrix(counts, dtype=np.float32),
        obs=pd.DataFrame({KEY: pd.Categorical(names)}, index=[f"cell{i}" for i in range(len(names))]),
        var=pd.DataFrame(index=[f"G{i:03d}" for i in range(N_GENES)]),
    )
    adata.layers["counts"] = adata.X.copy()
    sc.pp.normalize_total(adata, target_sum=1e4)
    sc.pp.log1p(adata)
    return adata
