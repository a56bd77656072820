"""Expression of perturbed cells."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData

    from scgpt.model import SCGPT, Precision, SCGPTPerturbation


def perturb(
    adata: AnnData,
    perturbations: str | Iterable[str],
    *,
    model: str | Path | SCGPT | SCGPTPerturbation | None = None,
    pairs: bool = False,
    per_cell: bool = False,
    direction: str | None = None,
    n_cells: int | None = 300,
    perturbation_key: str | None = None,
    control: str = "control",
    sep: str = "+",
    treatments: Literal["all"] | Iterable[str] = (),
    direction_key: str | None = None,
    paired_within: str | Iterable[str] = (),
    layer: str | None = None,
    gene_key: str | None = None,
    gene_mapping: Mapping[str, str] | pd.Series | str | Path | None = None,
    max_epochs: int | None = None,
    seed: int = 0,
    network_kwargs: Mapping[str, Any] | None = None,
    train_kwargs: Mapping[str, Any] | None = None,
    save: str | Path | None = None,
    precision: Precision = "auto",
    progress_bar: bool = True,
) -> AnnData:
    r"""Predict the expression of cells under perturbations, also such that no cell was seen under :cite:p:`Cui2024`.

    Compare what it predicts with ``scgpt.metrics.baselines`` before relying on it: on real data simple baselines are
    hard to beat :cite:p:`AhlmannEltze2025`.

    Parameters
    ----------
    adata
        Log-normalised values of control cells, which predictions start from; where a model is trained, of perturbed cells,
        too. It is left as it is.
    perturbations
        Names of genes or treatments, joined by ``sep``: ``["KLF1", "KLF1+CEBPA"]``.
    model
        A trained :class:`~scgpt.model.SCGPTPerturbation` or its folder. With ``perturbation_key`` a checkpoint's name or
        folder, or a model, to fine-tune; None trains a small network from scratch.
    pairs
        Predict all pairs of the names, too.
    per_cell
        Return the predicted cells, not their means.
    direction
        In which genes are perturbed, where there are directions.
    n_cells
        Most control cells to predict each perturbation from, drawn at random; None for all.
    perturbation_key
        Column of ``.obs`` with the perturbations to learn from; see :meth:`scgpt.model.SCGPTPerturbation.setup_anndata`, as
        all that follow.
    control
        See there.
    sep
        See there.
    treatments
        See there.
    direction_key
        See there.
    paired_within
        See there.
    layer
        See there.
    gene_key
        See there.
    gene_mapping
        See there.
    max_epochs
        See :meth:`scgpt.model.SCGPTPerturbation.train`.
    seed
        Of weights, order, pairs and the control cells drawn.
    network_kwargs
        Fields of :class:`~scgpt.nn.ScGPTConfig` to change.
    train_kwargs
        Arguments of :meth:`scgpt.model.SCGPTPerturbation.train` to change.
    save
        Folder to save the trained model in.
    precision
        As in :func:`scgpt.tl.embed`.
    progress_bar
        Show progress.

    Returns
    -------
    A new AnnData of the genes that the model knows and ``adata`` measured. Its rows are the perturbations, in the order
    given and then the pairs, or with ``per_cell`` the cells of one after the other. It has:

    ``.X``
        float32, predicted log-normalised values; means over the control cells predicted from.
    ``.layers["delta"]``
        float32, their difference to the same control cells.
    ``.obs["perturbation"]``
        Its name.
    ``.obs["n_perturbed"]``
        Of how many genes and treatments.
    ``.obs["trained_on"]``
        Whether the model's data have cells under it.
    ``.obs["control_cell"]``
        With ``per_cell``, the name of the control cell.
    ``.uns["scgpt"]["X"]``
        Provenance.

    scanpy reads it as any data set: ``sc.pp.pca(space, layer="delta")``, ``sc.pp.neighbors``, ``sc.tl.umap``,
    ``sc.tl.leiden``; :func:`scgpt.tl.dominant_genes` names the clusters.

    Raises
    ------
    KeyError
        When a layer or column is not there, or a name is neither a gene nor a treatment of the model.
    ValueError
        When there are no control cells, a gene stands twice in a name, names are given twice, values are raw counts, or a
        trained model is told how to be trained.
    FileExistsError
        When the folder to save in holds anything.

    Examples
    --------
    >>> import scanpy as sc
    >>> import scgpt
    >>> adata = sc.datasets.pbmc68k_reduced()[:60].raw.to_adata()[:, ["CD79A", "NKG7", "LYZ", "CD74", "CD3D"]].copy()
    >>> adata.obs["gene"] = ["control", "CD79A", "NKG7"] * 20  # made up
    >>> names = ["CD79A", "CD79A+NKG7"]
    >>> predicted = scgpt.tl.perturb(adata, names, perturbation_key="gene", max_epochs=1, progress_bar=False)
    >>> predicted.shape, predicted.obs["trained_on"].to_dict()
    ((2, 5), {'CD79A': True, 'CD79A+NKG7': False})
    >>> predicted.layers["delta"].shape, predicted.obs["n_perturbed"].tolist()
    ((2, 5), [1, 2])
    """
    import pandas as pd
    from anndata import AnnData

    from scgpt.data import check_anndata, path_of
    from scgpt.hub import check_target
    from scgpt.metrics import perturbed_by
    from scgpt.model import SCGPTPerturbation, resolve_precision

    from ._arguments import refuse_own
    from ._provenance import fingerprint, genes_of, record

    check_anndata(adata)
    refuse_own(("max_epochs", "seed"), train_kwargs or {}, "perturb")
    if save is not None:
        check_target(path_of(save, "save"))  # before the training, not after it
    names = [perturbations] if isinstance(perturbations, str) else [str(name) for name in perturbations]
    if perturbation_key is None:
        of_training = {
            "max_epochs": max_epochs,
            "network_kwargs": network_kwargs,
            "train_kwargs": train_kwargs,
            "save": save,
            "treatments": treatments or None,
            "direction_key": direction_key,
            "paired_within": paired_within or None,
            "gene_key": gene_key,
            "gene_mapping": gene_mapping,
        }
        if given := [name for name, value in of_training.items() if value is not None]:
            raise ValueError(f"{', '.join(given)} are of training, which takes perturbation_key, too.")
        if model is None:
            raise ValueError(
                "Pass a trained model, or perturbation_key, the column of .obs with perturbations to learn."
            )
        made = model if isinstance(model, SCGPTPerturbation) else SCGPTPerturbation.from_pretrained(model)
    else:
        made = _make(
            adata,
            model,
            dict(network_kwargs or {}),
            seed,
            perturbation_key=perturbation_key,
            control=control,
            sep=sep,
            treatments=treatments,
            direction_key=direction_key,
            paired_within=paired_within,
            layer=layer,
            gene_key=gene_key,
            gene_mapping=gene_mapping,
        )
    written = made.names
    if pairs:
        names += [written.sep.join(pair) for pair in combinations(names, 2)]
    parts = [perturbed_by(name, control=written.control, sep=written.sep) for name in names]
    if len(set(parts)) < len(parts):
        twice = sorted({name for name, own in zip(names, parts, strict=True) if parts.count(own) > 1})
        raise ValueError(f"perturbations= names {twice[:5]} more than once.")
    made.marks_of(names, direction=direction)  # raises before the training
    rows = made.control_cells(adata, n_cells=n_cells, seed=seed)
    if perturbation_key is not None:
        epochs: dict[str, Any] = {} if max_epochs is None else {"max_epochs": max_epochs}
        made.train(**epochs, seed=seed, **{"enable_progress_bar": progress_bar} | dict(train_kwargs or {}))
        if save is not None:
            made.save(save)

    found = made.iter_predictions(
        names,
        adata,
        direction=direction,
        indices=rows,
        n_cells=None,
        layer=layer,
        precision=precision,
        progress_bar=progress_bar,
    )
    n_each, genes = len(rows) if per_cell else 1, made.predicted_genes(adata)
    # One after the other, so that memory is that of the means, into one array: thousands of small ones would lie between
    # what comes and goes, and keep the system from using that again.
    values, delta = np.empty((2, len(names) * n_each, len(genes)), np.float32)
    for i, profiles in enumerate(found):
        own, change = slice(i * n_each, (i + 1) * n_each), profiles.predicted - profiles.control
        values[own] = profiles.predicted if per_cell else profiles.predicted.mean(0)
        delta[own] = change if per_cell else change.mean(0)
    known = set(made.trained_on)
    obs = pd.DataFrame(
        {
            "perturbation": names,
            "n_perturbed": [len(own) for own in parts],
            "trained_on": [written.sep.join(own) in known for own in parts],
        },
        index=names,
    )
    obs = obs.loc[np.repeat(names, n_each)]
    if per_cell:
        cells = adata.obs_names[rows]
        obs["control_cell"] = np.tile(cells, len(names))
        obs.index = pd.Index([f"{name}-{cell}" for name in names for cell in cells])
    obs["perturbation"] = pd.Categorical(obs["perturbation"], categories=names)
    result = AnnData(values, obs=obs, var=pd.DataFrame(index=genes))
    result.layers["delta"] = delta
    record(
        result,
        "X",
        function="scgpt.tl.perturb",
        report=made.load_report,
        model_sha256=fingerprint(made),
        n_control_cells=len(rows),
        direction=direction or "",
        per_cell=per_cell,
        seed=seed,
        layer=made.layer_of(layer),
        precision=resolve_precision(made.device, precision),
        trained_on=made.trained_on,
        **genes_of(made.match(adata)),
        network=str(made.module.network.config),
    )
    return result


def _make(
    adata: AnnData,
    model: str | Path | SCGPT | SCGPTPerturbation | None,
    network_kwargs: dict[str, Any],
    seed: int,
    **setup: Any,
) -> SCGPTPerturbation:
    from anndata import AnnData

    from scgpt.data import in_memory
    from scgpt.model import SCGPTPerturbation

    # The matrix is shared, and what scvi-tools writes is not the user's.
    layers = {name: matrix for name, matrix in adata.layers.items() if name is not None}  # None is .X
    own = AnnData(adata.X, obs=in_memory(adata.obs).copy(), var=in_memory(adata.var).copy(), layers=layers)
    SCGPTPerturbation.setup_anndata(own, setup.pop("perturbation_key"), **setup)
    if model is None:
        return SCGPTPerturbation(own, seed=seed, **network_kwargs)
    return SCGPTPerturbation.from_pretrained(model, own, **network_kwargs)
