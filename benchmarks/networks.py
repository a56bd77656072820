"""Gene programs and gene networks: scGPT beside co-expression, GRNBoost2 and chance.

Two data sets, ``pbmc_facs`` (sorted blood cells) and ``kang_ifnb`` (blood cells with and without interferon beta). Of each the
1,200 most variable genes are read, and beside them the HLA and CD genes and the transcription factors of TRRUST that at least
``MIN_SHARE`` of the cells express. Three models: ``scgpt-mini`` as it is (it was pretrained on training cells of pbmc_facs, and
on no cell of kang_ifnb), fine-tuned on all cells of the data set, and trained on them from scratch. What is asked is not told to
any of them: the answers are curated lists of genes.

- **Groups**: HLA class I and II, CD3, CD79 and CD8. ``within``: the share of pairs, one of two genes of a group and one of genes of
  two groups, in which the former has the higher cosine (1/2 by chance); the silhouette of the groups; and of some genes at which
  place among all genes their partner comes.
- **Pathways**: of Reactome, which programs are enriched in (false discovery rate below 0.05), over resolutions of the clustering;
  ``scgpt.tl.compare_pathways``. Programs are of the 1,200 most variable genes.
- **TRRUST**: ``scgpt.metrics.network_scores`` of edges from its transcription factors to the genes that it names. Attention is
  the mean over all cells, similarity the cosine of gene embeddings.
- **Interferon** (kang_ifnb): targets of IRF1, IRF7 and IRF9 (STAT1 and STAT2 are not in the data) by the difference in attention between stimulated and
  control cells, the first 20 each: the share of them among the hallmark genes of the response to interferon alpha, over the
  share that these have of all genes (enrichment, 1 by chance), and beside it the same by difference in co-expression.

Settings are those of ``RECIPE``; they were not chosen on any of these scores. Seeds are of training and clustering.

    python benchmarks/networks.py                  # all, an hour or two on one core
    python benchmarks/networks.py --quick          # minutes: few cells, one epoch; nothing is kept
    python benchmarks/networks.py --task kang_ifnb --method "scGPT, from scratch"
    python benchmarks/networks.py --kept           # report what is kept, run nothing
"""

from __future__ import annotations

import argparse
import json
import warnings
from collections.abc import Callable
from itertools import combinations

import _data
import _runs
import anndata
import numpy as np
import pandas as pd
from sklearn.metrics import silhouette_score

REFERENCE = _data.FOLDER.parent / "reference"
SEEDS = 3
N_TOP_GENES, MIN_SHARE = 1200, 0.02
QUICK_CELLS = 300
RESOLUTIONS = (1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 40.0)
GROUPS = {
    "HLA class I": ("HLA-A", "HLA-B", "HLA-C", "HLA-E", "HLA-F", "HLA-G"),
    "HLA class II": (
        *("HLA-DRA", "HLA-DRB1", "HLA-DRB5", "HLA-DPA1", "HLA-DPB1"),
        *("HLA-DQA1", "HLA-DQA2", "HLA-DQB1", "HLA-DMA", "HLA-DMB", "HLA-DOA", "HLA-DOB"),
    ),
    "CD3": ("CD3D", "CD3E", "CD3G"),
    "CD79": ("CD79A", "CD79B"),
    "CD8": ("CD8A", "CD8B"),
}
PARTNERS = {"CD79A": ("CD79B",), "CD3D": ("CD3E", "CD3G"), "CD8A": ("CD8B",), "HLA-DRA": ("HLA-DRB1", "HLA-DPA1")}
REGULATORS = ("STAT1", "STAT2", "IRF1", "IRF7", "IRF9")
INTERFERON = "HALLMARK_INTERFERON_ALPHA_RESPONSE"
N_TARGETS = 20
TASKS = ("pbmc_facs", "kang_ifnb")
RECIPE = {
    "network": {"norm": "pre", "zero": True, "dropout": 0.0},
    "training": {
        "lr": 1e-3,
        "objectives": {"zero": 1000, "gep": 1},
        "drop_share": 0.3,
        "plan_kwargs": {"schedule": "cosine", "warmup_steps": 100},
        "train_size": 1.0,
    },
    "cells_seen": 60_000,
}


def trrust() -> pd.DataFrame:
    return pd.read_csv(
        REFERENCE / "trrust_rawdata.human.tsv", sep="\t", names=["regulator", "target", "mode", "pmid"], dtype=str
    )


def load(task: str, quick: bool) -> anndata.AnnData:
    """Log-normalised values of the genes to read, the most variable of them marked; counts stay in a layer."""
    import scanpy as sc

    from scgpt.data import read_gmt

    cells = _data.load_genes(task)
    if quick:
        cells = cells[np.sort(np.random.default_rng(0).permutation(cells.n_obs)[:QUICK_CELLS])].copy()
    cells.layers["counts"] = cells.X.copy()
    sc.pp.normalize_total(cells)
    sc.pp.log1p(cells)
    sc.pp.highly_variable_genes(cells, n_top_genes=N_TOP_GENES)
    asked = {
        *trrust()["regulator"],
        *(g for genes in read_gmt(REFERENCE / "HLA_CD_from_vocab.gmt").values() for g in genes),
    }
    share = (cells.X > 0).mean(0).A1
    kept = cells.var["highly_variable"] | (cells.var_names.isin(asked) & (share >= MIN_SHARE))
    return cells[:, kept.to_numpy()].copy()


def as_it_is(cells, seed, epochs):
    from scgpt.model import SCGPT

    return SCGPT.from_pretrained("mini")


def trained(model, cells, seed, epochs):
    epochs = epochs or -(-RECIPE["cells_seen"] // cells.n_obs)
    model.train(epochs, seed=seed, enable_progress_bar=False, **RECIPE["training"])
    return model


def fine_tuned(cells, seed, epochs):
    from scgpt.model import SCGPT

    own = cells.copy()
    SCGPT.setup_anndata(own, layer="counts")
    return trained(SCGPT.from_pretrained("mini", own), own, seed, epochs)


def from_scratch(cells, seed, epochs):
    from scgpt.model import SCGPT

    own = cells.copy()
    SCGPT.setup_anndata(own, layer="counts")
    return trained(SCGPT(own, seed=seed, **RECIPE["network"]), own, seed, epochs)


def cosines_of(points: pd.DataFrame) -> pd.DataFrame:
    values = points.to_numpy(dtype=np.float64)
    values = values / np.linalg.norm(values, axis=1, keepdims=True)
    return pd.DataFrame(values @ values.T, index=points.index, columns=points.index)


def scores_of_groups(similarity: pd.DataFrame) -> dict[str, float]:
    """How far groups of genes lie apart, and at which place genes have their partners."""
    groups = {name: [gene for gene in genes if gene in similarity.index] for name, genes in GROUPS.items()}
    members = [(name, gene) for name, genes in groups.items() for gene in genes]
    same, other = [], []
    for (group, gene), (other_group, other_gene) in combinations(members, 2):
        (same if group == other_group else other).append(similarity.loc[gene, other_gene])
    higher = (np.array(same)[:, None] > np.array(other)).mean() + 0.5 * (
        np.array(same)[:, None] == np.array(other)
    ).mean()
    genes, labels = [gene for _, gene in members], [name for name, _ in members]
    distance = (1 - similarity.loc[genes, genes]).clip(lower=0).to_numpy(copy=True)
    np.fill_diagonal(distance, 0)
    scores = {"within": float(higher), "silhouette": float(silhouette_score(distance, labels, metric="precomputed"))}
    for gene, partners in PARTNERS.items():
        for partner in partners:
            if {gene, partner} <= set(similarity.index):
                others = similarity.loc[gene].drop(gene)
                scores[f"{gene} to {partner}"] = int((others > others[partner]).sum()) + 1
    return scores


def scores_of_network(network: pd.DataFrame, seed: int) -> dict[str, float]:
    import scgpt

    known = trrust()
    row = scgpt.metrics.network_scores(
        network, known, targets={*known["regulator"], *known["target"]} & set(network.columns), seed=seed
    ).iloc[0]
    names = ("AUPRC", "AUPRC_ratio", "AUPRC_ratio_low", "AUPRC_ratio_high", "EPR", "AUROC", "n_links", "n_edges")
    return {name: float(row[name]) for name in names}


def regulators_in(cells) -> list[str]:
    return sorted(set(trrust()["regulator"]) & set(cells.var_names))


def enrichment(change: pd.DataFrame) -> float:
    """Share of hallmark genes among the targets that change most, over their share of all genes; mean over regulators."""
    from scgpt.data import read_gmt

    hallmark = set(read_gmt(REFERENCE / "h.all.v7.0.symbols.gmt")[INTERFERON])
    found = []
    for regulator in REGULATORS:
        if regulator not in change.index:
            continue
        row = change.loc[regulator].drop(regulator).dropna()
        targets = row.abs().sort_values(ascending=False, kind="stable").index[:N_TARGETS]
        found.append(
            np.mean([gene in hallmark for gene in targets]) / np.mean([gene in hallmark for gene in row.index])
        )
    return float(np.mean(found))


def scores_of_model(task: str, model, cells, seed: int, quick: bool) -> dict:
    import scgpt

    known = [gene for gene in cells.var_names if gene in model.vocab]
    cells = cells[:, known].copy()
    similarity = cosines_of(model.get_gene_embeddings(known))
    scores: dict = {"groups": scores_of_groups(similarity)}
    scgpt.tl.compare_pathways(
        cells, model, REFERENCE / "ReactomePathways.gmt", resolutions=RESOLUTIONS, layer="counts", seed=seed,
        progress_bar=False,
    )  # fmt: skip
    result = cells.uns["scgpt_pathways"]
    scores["pathways"] = result["counts"].to_dict("list") | {
        "found_by": result["pathways"]["found_by"].value_counts().to_dict()
    }
    groupby = "condition" if task == "kang_ifnb" else None
    read = {"genes": "all", "expression_layer": "counts", "progress_bar": False}
    scgpt.tl.attention_network(cells, model, **read)
    attention = scgpt.get.attention_matrix(cells)
    own = regulators_in(cells)
    scores["TRRUST, attention"] = scores_of_network(attention.loc[own], seed)
    scores["TRRUST, similarity"] = scores_of_network(similarity.loc[own], seed)
    if groupby:
        scgpt.tl.attention_network(cells, model, groupby=groupby, control="control", **read)
        scores["interferon"] = enrichment(scgpt.get.attention_matrix(cells, group="stimulated"))
    return scores


def coexpression(task: str, cells, seed: int, quick: bool) -> dict:
    from scgpt.metrics import baselines

    def of(part: anndata.AnnData, absolute: bool = True) -> pd.DataFrame:
        return baselines.coexpression(part, normalize=False, absolute=absolute)

    whole = of(cells)
    scores: dict = {
        "groups": scores_of_groups(of(cells, absolute=False)),
        "TRRUST, similarity": scores_of_network(whole.loc[regulators_in(cells)], seed),
    }
    if task == "kang_ifnb":
        stimulated = (cells.obs["condition"] == "stimulated").to_numpy()
        scores["interferon"] = enrichment(of(cells[stimulated], False) - of(cells[~stimulated], False))
    return scores


def grnboost2(task: str, cells, seed: int, quick: bool) -> dict:
    from scgpt.metrics import baselines

    known = trrust()
    asked = sorted({*known["regulator"], *known["target"]} & set(cells.var_names))
    some = cells[np.random.default_rng(seed).permutation(cells.n_obs)[:1000]]
    network = baselines.grnboost2(
        some, regulators_in(cells), genes=asked[:20] if quick else asked, normalize=False, seed=seed
    )
    return {"TRRUST, similarity": scores_of_network(network, seed)}


def chance(task: str, cells, seed: int, quick: bool) -> dict:
    from scgpt.metrics import baselines

    network = baselines.random_network(list(cells.var_names), seed=seed)
    symmetric = (network + network.T) / 2
    scores: dict = {
        "groups": scores_of_groups(symmetric),
        "TRRUST, similarity": scores_of_network(network.loc[regulators_in(cells)], seed),
    }
    if task == "kang_ifnb":
        scores["interferon"] = enrichment(network)
    return scores


MODELS: dict[str, Callable] = {
    "scGPT, mini as it is": as_it_is,
    "scGPT, mini fine-tuned": fine_tuned,
    "scGPT, from scratch": from_scratch,
}
BASELINES: dict[str, Callable] = {"co-expression": coexpression, "GRNBoost2": grnboost2, "chance": chance}
METHODS = (*MODELS, *BASELINES)
WITHOUT_SEEDS = ("co-expression", "GRNBoost2")


def run(task: str, method: str, seed: int, quick: bool) -> dict:
    cells = load(task, quick)

    def scored() -> dict:
        if method in BASELINES:
            return BASELINES[method](task, cells, seed, quick)
        return scores_of_model(task, MODELS[method](cells, seed, 1 if quick else None), cells, seed, quick)

    scores, cost = _runs.measured(scored)
    sizes = {"n_cells": cells.n_obs, "n_genes": cells.n_vars}
    return {"task": task, "method": method, "seed": seed, "settings": settings(method), "scores": scores} | sizes | cost


def settings(method: str) -> str:
    """What a kept result depends on; one of other settings is made anew."""
    return str(RECIPE) if method in MODELS else ""


def planned(args: argparse.Namespace) -> list[_runs.Planned]:
    return [
        _runs.Planned(task, method, (seed,), _runs.file_name(task, method, seed))
        for task in args.task or TASKS
        for seed in range(1 if args.quick else SEEDS)
        for method in args.method or METHODS
        if not (seed and method in WITHOUT_SEEDS)
    ]


def with_spread(values: pd.Series, digits: int) -> str:
    values = values.dropna()
    if not len(values):
        return ""
    return f"{values.mean():.{digits}f}" + (f" ± {values.std(ddof=0):.{digits}f}" if len(values) > 1 else "")


def table(results: list[dict], part: str, digits: int = 2) -> pd.DataFrame:
    """One kind of scores of each method, mean over seeds ± standard deviation."""
    rows = []
    for method, group in pd.DataFrame(results).groupby("method", sort=False):
        scores = pd.DataFrame([s[part] for s in group["scores"] if part in s])
        if len(scores):
            rows.append({"method": method, "runs": len(scores)} | {c: with_spread(scores[c], digits) for c in scores})
    return pd.DataFrame(rows).fillna("")


def pathways(results: list[dict]) -> pd.DataFrame:
    rows = []
    for method, group in pd.DataFrame(results).groupby("method", sort=False):
        counts = [s["pathways"] for s in group["scores"] if "pathways" in s]
        for i, resolution in enumerate(RESOLUTIONS if counts else ()):
            names = ("model", "coexpression", "shared", "only_model", "only_coexpression")
            rows.append(
                {"method": method, "resolution": resolution}
                | {name: with_spread(pd.Series([c[name][i] for c in counts]), 0) for name in names}
            )
        if counts:
            found = (
                pd.DataFrame([c["found_by"] for c in counts])
                .reindex(columns=["model", "coexpression", "both"])
                .fillna(0)
            )
            total = {"shared": found["both"], "only_model": found["model"], "only_coexpression": found["coexpression"]}
            total |= {kind: found[kind] + found["both"] for kind in ("model", "coexpression")}
            rows.append({"method": method, "resolution": "any"} | {n: with_spread(v, 0) for n, v in total.items()})
    return pd.DataFrame(rows)


def report(results: list[dict]) -> str:
    parts = [
        "# Gene programs and networks\n",
        "Made by `benchmarks/networks.py`, whose head says what is asked. Mean over seeds ± standard deviation; intervals of "
        f"AUPRC are those of the choice of regulators. {results[0]['machine']['cpu']}.\n",
    ]
    for task in dict.fromkeys(r["task"] for r in results):
        own = [r for r in results if r["task"] == task]
        parts += [f"## {task}\n", f"{own[0]['n_cells']:,} cells, {own[0]['n_genes']:,} genes.\n"]
        parts += ["### Groups of genes\n", table(own, "groups").to_markdown(index=False), ""]
        parts += ["### Reactome pathways\n", pathways(own).to_markdown(index=False), ""]
        for part in ("TRRUST, attention", "TRRUST, similarity"):
            parts += [f"### {part}\n", table(own, part, 3).to_markdown(index=False), ""]
        of_interferon = [
            r | {"scores": {"x": {"enrichment": r["scores"]["interferon"]}}} for r in own if "interferon" in r["scores"]
        ]
        if of_interferon:
            parts += ["### Interferon targets\n", table(of_interferon, "x").to_markdown(index=False), ""]
    return "\n".join(parts)


def main() -> None:
    warnings.filterwarnings("ignore", category=UserWarning)
    args = _runs.command_line(__doc__, TASKS, METHODS)
    if args.one:
        print(json.dumps(run(args.task[0], args.method[0], args.one[0], args.quick)))
        return
    results = _runs.collect(__file__, planned(args), args, settings)
    _runs.publish(__file__, report(results), results, args)


if __name__ == "__main__":
    main()
