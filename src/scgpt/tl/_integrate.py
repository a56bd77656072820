"""Integration of batches and studies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData
    from mudata import MuData

    from scgpt.data import Study
    from scgpt.hub import Checkpoint
    from scgpt.model import SCGPT, MultiSCGPT

# Asking the cell embedding which of all genes the cell expresses helps on shallow data, where most values are 1 and say
# little; that loss is a mean over genes, hence its weight. Half the genes are dropped because it learns as much from an
# epoch in 40 % of the time. Batches are not normalised apart: where they hold different types that moves alike cells apart.
FROM_SCRATCH: dict[str, Any] = {
    "network": {"norm": "pre", "input_norm": None, "zero": True, "dropout": 0.0},
    "training": {
        "lr": 1e-3,
        "drop_share": 0.5,
        "mask_share": 0.0,
        "objectives": {"zero": 1000, "dar": 30},
        "plan_kwargs": {"schedule": "cosine", "warmup_steps": 100},
    },
    # Small data are learnt by heart when they are seen more often, and clusters of one type come apart.
    "cells_seen": 100_000,
    "epochs": (5, 30),
}
# Where zeros are tokens, "zero" asks of hidden genes alone: what would be dropped is hidden.
HIDDEN = {"drop_share": 0.0, "mask_share": FROM_SCRATCH["training"]["drop_share"]}
# The authors' settings for the integration of PBMC 10K with their own network. One with pre-norm, such as "mini", learns
# little at that rate and goes on as from scratch.
FINE_TUNING: dict[str, Any] = {
    "network": {"zero": True, "gepc": True, "input_norm": "domain"},
    "training": {
        "lr": 1e-4,
        "batch_size": 64,
        "objectives": {"gep": 1, "gepc": 1, "zero": 1, "ecs": {"weight": 10, "beta": 0.8}, "dar": 1},
        "plan_kwargs": {"schedule": "epoch_decay", "decay": 0.9},
    },
    "max_epochs": 15,
}
BATCHES = {"batch_embedding": True, "adversary": True}


def integrate(
    data: AnnData | MuData | Sequence[AnnData | MuData] | Mapping[str, AnnData | MuData],
    *,
    batch_key: str | None = "batch",
    model: str | Path | SCGPT | MultiSCGPT | None = None,
    layer: str | None = None,
    n_top_genes: int = 1200,
    gene_key: str | None = None,
    gene_mapping: Mapping[str, str] | pd.Series | str | Path | None = None,
    include_zeros: bool = False,
    prepare_kwargs: Mapping[str, Any] | None = None,
    max_epochs: int | None = None,
    seed: int = 0,
    network_kwargs: Mapping[str, Any] | None = None,
    train_kwargs: Mapping[str, Any] | None = None,
    save: str | Path | None = None,
    progress_bar: bool = True,
    key_added: str = "X_scGPT",
    copy: bool = False,
) -> AnnData | MuData | list[AnnData | MuData] | dict[str, AnnData | MuData] | None:
    r"""Embed the cells of several batches, studies or modalities as one data set :cite:p:`Cui2024`.

    A model is trained on the cells without their types: from scratch, or on from pretrained weights. The embedding is
    for :func:`scanpy.pp.neighbors`. For the embedding of a pretrained model as it is, see :func:`scgpt.tl.embed`.

    Parameters
    ----------
    data
        Cells by genes, with counts or log-normalised values. Several studies, in a list or by name, may have measured
        different genes: the genes are chosen from all of them, and one that a study did not measure is an absent
        token there, not a zero. A MuData of genes, peaks and proteins is embedded by all of them; its cells may lack
        modalities, and in a list or mapping with such an AnnData is a study of RNA.
    batch_key
        Column of ``.obs`` with the experimental batch. Of several studies, one that lacks it is a batch itself, and
        batches of two studies are never the same. None for a MuData that is all one batch.
    model
        A model, the folder of a checkpoint or a checkpoint's name to train on from; None trains a small network from
        scratch.
    layer
        Layer with the expression; ``.X`` by default. Of a MuData see ``prepare_kwargs``.
    n_top_genes
        How many highly variable genes to train on. They are chosen within batches, on log-normalised values: counts
        are told by being whole numbers and are normalised for that.
    gene_key
        Column of ``.var`` with the gene names; by default found by itself where there is a model, else the index.
    gene_mapping
        From names in the data to other names, see :func:`scgpt.data.match_genes`.
    include_zeros
        Whether chosen genes that a cell does not express are tokens too, as in the authors' fine-tuning. It
        multiplies the time that a step takes. Not for MuData.
    prepare_kwargs
        For MuData, arguments of :func:`scgpt.pp.join_modalities`: ``modalities`` (which of ``.mod`` is ``"rna"``,
        ``"atac"`` and ``"protein"``; by default those with usual names), ``layers``, ``n_top_peaks``, ``peaks``,
        ``values`` (what to make of counts of peaks and proteins).
    max_epochs
        Passes over the cells. By default as many as see 100,000 cells, but 5 to 30; 15 on from the weights of a
        post-norm network, as the authors fine-tune. Of several modalities as many as see 40,000 cells, but 5 to 80.
    seed
        Of weights, order, masks and dropout.
    network_kwargs
        Fields of :class:`~scgpt.nn.ScGPTConfig` to change.
    train_kwargs
        Arguments of :meth:`scgpt.model.SCGPT.train` to change, such as ``batch_size``, ``lr``, ``checkpoints``.
    save
        Folder to save the trained model in. It embeds new cells of these batches, under the names in the provenance;
        trained on from pretrained weights it knows more genes than it was trained on: give it those in the provenance.
    progress_bar
        Show progress.
    key_added
        Key of ``.obsm`` and ``.uns["scgpt"]``.
    copy
        Return copies instead of writing to ``data``.

    Returns
    -------
    None, or copies in the shape of ``data``. Sets in every AnnData:

    ``.obsm[key_added]``
        ``(n_obs, d_model)`` float32, of length 1 each; NaN where a cell has no modality.
    ``.uns["scgpt"][key_added]``
        Provenance: parameters, package version, checkpoint and its hash, genes, batches, seed.

    Raises
    ------
    KeyError
        When a layer or column is not there.
    ValueError
        When there is only one batch of an AnnData, or cells lack theirs; when no gene matches, or a study shares none with the
        others; when values cannot be expression.
    FileExistsError
        When the folder to save in holds anything.

    Examples
    --------
    >>> import scanpy as sc
    >>> import scgpt
    >>> adata = sc.datasets.pbmc68k_reduced()[::10].raw.to_adata()[:, :100].copy()
    >>> scgpt.tl.integrate(
    ...     adata, batch_key="phase", max_epochs=1, progress_bar=False
    ... )  # real batches are such as donors
    >>> adata.obsm["X_scGPT"].shape, adata.uns["scgpt"]["X_scGPT"]["batches"]
    ((70, 64), ['G1', 'G2M', 'S'])
    >>> sc.pp.neighbors(adata, use_rep="X_scGPT")

    Studies that measured different genes:

    >>> studies = {"lung": adata[:40, :80].copy(), "blood": adata[40:, 20:].copy()}
    >>> scgpt.tl.integrate(studies, max_epochs=1, progress_bar=False)
    >>> {name: study.obsm["X_scGPT"].shape for name, study in studies.items()}
    {'lung': (40, 64), 'blood': (30, 64)}
    """
    from scgpt._messages import inform
    from scgpt.data import MEASURED, by_name, check_name, join_studies, path_of
    from scgpt.hub import check_target
    from scgpt.model import SCGPT

    from ._arguments import refuse_own, target
    from ._integrate_modalities import integrate_modalities
    from ._provenance import fingerprint, record

    train_kwargs = dict(train_kwargs or {})
    refuse_own(("max_epochs", "seed"), train_kwargs, "integrate")
    studies = by_name(data)
    check_name(batch_key, "batch_key")
    layer = None if layer == "X" else layer
    if save is not None:
        check_target(path_of(save, "save"))  # before the training, not after it
    studies = {key: target(adata, copy, key_added) for key, adata in studies.items()}
    if any(hasattr(study, "mod") for study in studies.values()):
        if layer is not None or include_zeros:
            raise ValueError(
                "Of MuData name the layer of each modality by prepare_kwargs={'layers': {'rna': ...}}; "
                "include_zeros=True is not for them."
            )
        integrate_modalities(
            studies,
            batch_key=batch_key,
            model=model,
            n_top_genes=n_top_genes,
            gene_key=gene_key,
            gene_mapping=gene_mapping,
            prepare_kwargs=prepare_kwargs or {},
            max_epochs=max_epochs,
            seed=seed,
            network_kwargs=network_kwargs or {},
            train_kwargs=train_kwargs,
            save=save,
            progress_bar=progress_bar,
            key_added=key_added,
        )
        return _in_shape_of(data, studies) if copy else None
    if prepare_kwargs:
        raise ValueError("prepare_kwargs= is for MuData; an AnnData has one modality.")
    if batch_key is None:
        raise ValueError("batch_key=None is for MuData; to integrate an AnnData takes batches.")
    checkpoint = None if model is None else SCGPT.checkpoint_of(model)
    if checkpoint is not None:
        _check_kind(checkpoint, network_kwargs or {})
    parts = {
        key: _study(key, adata, batch_key, layer, gene_key, gene_mapping, checkpoint) for key, adata in studies.items()
    }
    if len(set().union(*(part.batches.unique() for part in parts.values()))) < 2:
        raise ValueError(
            f".obs[{batch_key!r}] names one batch alone: there is nothing to integrate. For its embedding use "
            "scgpt.tl.embed, or train a scgpt.model.SCGPT."
        )
    joint = join_studies(parts, n_top_genes, batch_key=batch_key)
    SCGPT.setup_anndata(joint, batch_key=batch_key, measured_key=MEASURED)

    for key, scale in joint.uns["scale"].items():
        values = "counts" if scale == "counts" else f"{scale} values"
        inform(f"{f'Study {key!r}' if key else 'The data set'} holds {values}.")
    shared = int(joint.varm[MEASURED].all(axis=1).sum())
    inform(
        f"Integrating {joint.obs[batch_key].nunique()} batches of {joint.n_obs} cells over {joint.n_vars} genes, "
        f"{shared} of them measured in all."
    )

    recipe = FROM_SCRATCH if checkpoint is None or checkpoint.config.norm == "pre" else FINE_TUNING
    network = BATCHES | recipe["network"] | dict(network_kwargs or {})
    tokens: dict[str, Any] = {"include_zeros": include_zeros, "max_length": joint.n_vars + 1}
    if checkpoint is None:
        trained = SCGPT(joint, seed=seed, **tokens, **network)
    else:
        changes = {"n_batches": joint.obs[batch_key].nunique()} | network
        # What knows the batches of other data, or reads what such a part adds.
        fresh = [*checkpoint.config.changed(**changes).parts_of_batches, "gep"]
        fresh += ["gepc"] if network.get("gepc", True) else []
        trained = SCGPT.from_pretrained(checkpoint, joint, fresh=fresh, **changes)
        trained.tokenizer = replace(trained.tokenizer, **tokens)
    if max_epochs is None:
        max_epochs = recipe.get("max_epochs") or _epochs(recipe, joint.n_obs)
    # Without types there is nothing to keep cells away from; and a batch's statistics are those of cells trained on.
    training = {"train_size": 1.0, "seed": seed} | deepcopy(recipe["training"])
    if recipe is FROM_SCRATCH and include_zeros:
        training |= HIDDEN
    training["plan_kwargs"] |= train_kwargs.pop("plan_kwargs", {})
    training |= train_kwargs
    if "objectives" not in train_kwargs:
        heads = trained.module.network.config.heads
        training["objectives"] = {n: w for n, w in training["objectives"].items() if n in heads or n == "ecs"}
    trained.train(max_epochs, enable_progress_bar=progress_bar, **training)
    if save is not None:
        trained.save(save)

    report = trained.load_report
    if report is not None and checkpoint is not None:
        report = replace(report, sha256=checkpoint.report.sha256)  # of the weights that it started from
    embedding = trained.get_latent_representation(progress_bar=progress_bar)
    by = fingerprint(trained)
    start = 0
    for key, adata in studies.items():
        adata.obsm[key_added] = embedding[start : start + adata.n_obs]
        start += adata.n_obs
        record(
            adata,
            key_added,
            function="scgpt.tl.integrate",
            report=report,
            model_sha256=by,
            batch_key=batch_key,
            layer=layer or "X",
            scale=joint.uns["scale"][key],
            n_studies=len(studies),
            batches=list(joint.obs[batch_key].cat.categories),
            genes=list(joint.var_names),
            max_epochs=max_epochs,
            seed=seed,
            network=str(trained.module.network.config),
            training=str(training),
        )
    return _in_shape_of(data, studies) if copy else None


def _in_shape_of(data: Any, studies: Mapping[str, Any]) -> Any:
    if isinstance(data, Mapping):
        return dict(zip(data, studies.values(), strict=True))
    return list(studies.values()) if isinstance(data, Sequence) else studies[""]


def _check_kind(checkpoint: Checkpoint, changes: Mapping[str, Any]) -> None:
    """Raise for a model of another task, whose parts need what an integration does not give them."""
    config = checkpoint.config
    others = {"expression": ("affine", "mlp"), "n_conditions": (None, 0), "n_modalities": (None, 0)}
    for name, (unfit, fit) in others.items():
        value = changes.get(name, getattr(config, name))
        if value == unfit or (unfit is None and value):
            raise ValueError(
                f"This model has {name}={value!r}, for which an integration has no data. Pass "
                f"network_kwargs={{{name!r}: {fit!r}}} to integrate without."
            )


def _study(
    name: str,
    adata: AnnData,
    batch_key: str,
    layer: str | None,
    gene_key: str | None,
    gene_mapping: Any,
    checkpoint: Checkpoint | None,
) -> Study:
    """Return one data set with the names of its genes and batches."""
    import pandas as pd

    from scgpt.data import Study, as_text, column_of, in_memory, match_genes, own_names, without_missing

    var = in_memory(adata.var)
    if checkpoint is None:
        genes = own_names(var, gene_key, gene_mapping)
    else:
        tokens = match_genes(var, checkpoint.vocab, gene_key=gene_key, gene_mapping=gene_mapping).token_ids
        genes = [checkpoint.vocab.tokens[i] if i >= 0 else "" for i in tokens]
    if name and batch_key not in adata.obs:  # a study is a batch itself
        batches = pd.Series(name, index=adata.obs_names)
    else:
        batches = as_text(without_missing(column_of(adata.obs, batch_key, "batch_key"), batch_key, "batch"), batch_key)
        batches = f"{name}:" + batches if name else batches
    return Study(adata, genes, batches, layer)


def _epochs(recipe: Mapping[str, Any], n_cells: int) -> int:
    fewest, most = recipe["epochs"]
    return max(fewest, min(most, round(recipe["cells_seen"] / n_cells)))
