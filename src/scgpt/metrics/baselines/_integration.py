"""Integration: embeddings that mix batches and keep cell types apart."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from scgpt.metrics._columns import codes_of

from ._cells import counts_of, log_normalized, training_cells, variable_genes
from ._components import principal_components
from ._notes import note

if TYPE_CHECKING:
    from anndata import AnnData

    from ._cells import Cells


def pca(
    adata: AnnData,
    *,
    layer: str | None = None,
    normalize: bool = True,
    batch_key: str | None = None,
    n_top_genes: int | None = 2000,
    n_comps: int = 50,
    train: Cells | None = None,
    seed: int = 0,
    key_added: str = "X_pca",
) -> None:
    """Principal components of the most variable genes.

    No batches are removed: this is what an integration starts from.

    Parameters
    ----------
    adata
        Cells by genes.
    layer
        Layer with counts; ``.X`` by default.
    normalize
        Scale the counts of each cell to 10,000 and take ``log1p`` first. False where the layer is log-normalised.
    batch_key
        Column of ``.obs`` with the batches, for genes that vary within many batches rather than between them.
    n_top_genes
        Number of most variable genes, as :func:`scanpy.pp.highly_variable_genes` finds them; None for all.
    n_comps
        Number of components, fewer where there are not as many genes or cells.
    train
        Cells to choose genes and fit components on: a mask, or names. The other cells are projected. All by default.
    seed
        Of the solver.
    key_added
        Key of ``.obsm`` and ``.uns``.

    Returns
    -------
    None. Sets:

    ``adata.obsm[key_added]``
        ``(n_obs, n_comps)`` float32.
    ``adata.uns[key_added]``
        How it was made.

    Raises
    ------
    KeyError
        When a column, layer or training cell is not there.
    ValueError
        When counts are asked for and not there; when values are NaN or infinite; when there are fewer than two cells to fit
        on, or two genes; when a number is below 1.

    Examples
    --------
    >>> import scanpy as sc
    >>> import scgpt
    >>> adata = sc.datasets.pbmc68k_reduced()[::5].raw.to_adata()  # log-normalised values
    >>> scgpt.metrics.baselines.pca(adata, normalize=False, n_comps=20)
    >>> adata.obsm["X_pca"].shape
    (140, 20)
    """
    mask = training_cells(adata, train)
    adata.obsm[key_added], n_genes = principal_components(
        adata, layer, normalize, batch_key, n_top_genes, n_comps, mask, seed
    )
    note(adata, key_added, "pca", "scikit-learn", n_genes=n_genes, n_train=int(mask.sum()), seed=seed)


def harmony(
    adata: AnnData,
    batch_key: str,
    *,
    use_rep: str | None = None,
    layer: str | None = None,
    normalize: bool = True,
    n_top_genes: int | None = 2000,
    n_comps: int = 50,
    seed: int = 0,
    key_added: str = "X_harmony",
) -> None:
    """Principal components with batches removed by Harmony :cite:p:`Korsunsky2019`, at its default settings.

    Harmony has no model to embed further cells with: it has to see all of them, so there is no ``train``.

    Needs harmonypy: ``pip install harmonypy``.

    Parameters
    ----------
    adata
        Cells by genes.
    batch_key
        Column of ``.obs`` with the batches.
    use_rep
        Key of ``.obsm`` with principal components; by default :func:`pca` makes them from the most variable genes.
    layer
        As in :func:`pca`.
    normalize
        As in :func:`pca`.
    n_top_genes
        As in :func:`pca`.
    n_comps
        As in :func:`pca`.
    seed
        Of the solver and of Harmony.
    key_added
        Key of ``.obsm`` and ``.uns``.

    Returns
    -------
    None. Sets:

    ``adata.obsm[key_added]``
        ``(n_obs, n_comps)`` float32.
    ``adata.uns[key_added]``
        How it was made.

    Raises
    ------
    ImportError
        When harmonypy is not installed.
    KeyError
        As :func:`pca`, and when ``use_rep`` is not there.
    ValueError
        As :func:`pca`, and when all cells are of one batch.

    Examples
    --------
    >>> import scanpy as sc
    >>> import scgpt
    >>> adata = sc.datasets.pbmc68k_reduced()[::5].raw.to_adata()
    >>> scgpt.metrics.baselines.harmony(adata, "phase", normalize=False, n_comps=20)  # real batches are such as donors
    >>> adata.obsm["X_harmony"].shape
    (140, 20)
    """
    try:
        import harmonypy
    except ImportError as error:
        raise ImportError("This baseline needs harmonypy: run `pip install harmonypy`.") from error
    import pandas as pd

    batches = codes_of(adata, batch_key, "batch")
    if batches.max() == 0:
        raise ValueError(f"All cells are of one batch in .obs[{batch_key!r}]: there is nothing for Harmony to remove.")
    if use_rep is None:
        everything = training_cells(adata, None)
        components, _ = principal_components(adata, layer, normalize, batch_key, n_top_genes, n_comps, everything, seed)
    elif use_rep in adata.obsm:
        components = np.asarray(adata.obsm[use_rep])
    else:
        raise KeyError(f"There is no {use_rep!r} in .obsm, which has {list(adata.obsm)}.")
    # As text: early versions of harmonypy take integers for a continuous covariate.
    batch_table = pd.DataFrame({"batch": batches.astype(str)})
    result = harmonypy.run_harmony(components, batch_table, ["batch"], verbose=False, random_state=seed)
    corrected = np.asarray(result.Z_corr, dtype=np.float32)
    # Up to version 0.0.10 cells are columns.
    adata.obsm[key_added] = corrected if corrected.shape == components.shape else corrected.T
    note(adata, key_added, "harmony", "harmonypy", batch_key=batch_key, seed=seed)


def scvi(
    adata: AnnData,
    batch_key: str,
    *,
    layer: str | None = None,
    n_top_genes: int | None = 2000,
    train: Cells | None = None,
    max_epochs: int | None = None,
    accelerator: str = "auto",
    progress_bar: bool = True,
    seed: int = 0,
    save: str | Path | None = None,
    key_added: str = "X_scVI",
) -> None:
    """Latent representation of scVI :cite:p:`Lopez2018`, at its default settings.

    Parameters
    ----------
    adata
        Cells by genes.
    batch_key
        Column of ``.obs`` with the batches. scVI's encoder does not read them, so cells of batches that it was not
        trained on can be embedded.
    layer
        Layer with counts; ``.X`` by default.
    n_top_genes
        Number of most variable genes, as :func:`scanpy.pp.highly_variable_genes` finds them; None for all.
    train
        Cells to choose genes and train on: a mask, or names. The other cells are embedded by the trained model. All by
        default.
    max_epochs
        Passes over the training cells; by default what scvi-tools chooses for their number.
    accelerator
        ``"cpu"``, ``"gpu"`` or ``"auto"``.
    progress_bar
        Show progress.
    seed
        Of weights and training.
    save
        Folder to keep the model in, for :func:`scanvi` to start from.
    key_added
        Key of ``.obsm`` and ``.uns``.

    Returns
    -------
    None. Sets:

    ``adata.obsm[key_added]``
        ``(n_obs, 10)`` float32.
    ``adata.uns[key_added]``
        How it was made.

    Raises
    ------
    KeyError
        When a column, layer or training cell is not there.
    ValueError
        When values are not counts, or no cell is to be trained on.

    Examples
    --------
    >>> import scgpt
    >>> import scvi
    >>> adata = scvi.data.synthetic_iid(batch_size=30)  # made-up counts of two batches
    >>> scgpt.metrics.baselines.scvi(adata, "batch", n_top_genes=None, max_epochs=1, progress_bar=False)
    >>> adata.obsm["X_scVI"].shape
    (60, 10)
    """
    mask = training_cells(adata, train)
    data = _data_for_scvi(adata, layer, batch_key, n_top_genes, mask)
    with _seeded(seed):
        model = _trained_scvi(data[mask].copy(), max_epochs, accelerator, progress_bar)
        adata.obsm[key_added] = model.get_latent_representation(data)
    if save is not None:
        model.save(str(save))
    note(
        adata,
        key_added,
        "scvi",
        "scvi-tools",
        batch_key=batch_key,
        n_genes=data.n_vars,
        n_train=int(mask.sum()),
        seed=seed,
    )


def scanvi(
    adata: AnnData,
    batch_key: str,
    labels_key: str,
    *,
    layer: str | None = None,
    unlabeled_category: str = "Unknown",
    n_top_genes: int | None = 2000,
    train: Cells | None = None,
    scvi_model: str | Path | None = None,
    max_epochs: int | None = None,
    accelerator: str = "auto",
    progress_bar: bool = True,
    seed: int = 0,
    key_added: str = "X_scANVI",
) -> None:
    """Latent representation of scANVI :cite:p:`Xu2021` on top of scVI, at its default settings.

    It reads labels: where the same labels score the embedding, name the cells to learn from with ``train``, and score
    the others.

    Parameters
    ----------
    adata
        Cells by genes.
    batch_key
        Column of ``.obs`` with the batches.
    labels_key
        Column of ``.obs`` with the labels; those of cells outside ``train`` are not read.
    layer
        Layer with counts; ``.X`` by default.
    unlabeled_category
        Label of training cells whose label is not known.
    n_top_genes
        As in :func:`scvi`.
    train
        As in :func:`scvi`.
    scvi_model
        Folder of the scVI to start from, which :func:`scvi` made of the same cells with ``save``; by default it is
        trained here.
    max_epochs
        Passes over the training cells, first of scVI, then of scANVI; by default what scvi-tools chooses for each.
    accelerator
        ``"cpu"``, ``"gpu"`` or ``"auto"``.
    progress_bar
        Show progress.
    seed
        Of weights and training.
    key_added
        Key of ``.obsm`` and ``.uns``.

    Returns
    -------
    None. Sets:

    ``adata.obsm[key_added]``
        ``(n_obs, 10)`` float32.
    ``adata.uns[key_added]``
        How it was made.

    Raises
    ------
    KeyError
        As :func:`scvi`.
    ValueError
        As :func:`scvi`, and when no training cell has a label.

    Examples
    --------
    >>> import scgpt
    >>> import scvi
    >>> adata = scvi.data.synthetic_iid(batch_size=30)  # made-up counts of two batches
    >>> scgpt.metrics.baselines.scanvi(adata, "batch", "labels", n_top_genes=None, max_epochs=1, progress_bar=False)
    >>> adata.obsm["X_scANVI"].shape
    (60, 10)
    """
    from scvi.model import SCANVI, SCVI

    mask = training_cells(adata, train)
    data = _data_for_scvi(adata, layer, batch_key, n_top_genes, mask)
    codes_of(adata[mask], labels_key, "label")
    labels = np.where(mask, adata.obs[labels_key].astype(str), unlabeled_category)
    if (labels[mask] == unlabeled_category).all():
        raise ValueError(f"No training cell has a label in .obs[{labels_key!r}].")
    data.obs["label"] = labels
    with _seeded(seed):
        if scvi_model is None:
            first = _trained_scvi(data[mask].copy(), max_epochs, accelerator, progress_bar)
        else:
            first = SCVI.load(str(scvi_model), adata=data[mask].copy(), accelerator=accelerator)
        model = SCANVI.from_scvi_model(first, unlabeled_category, labels_key="label")
        model.train(max_epochs=max_epochs, accelerator=accelerator, enable_progress_bar=progress_bar)
        # The encoder does not read the label, but scvi-tools refuses one that it does not know.
        data.obs["label"] = np.where(mask, labels, labels[mask][0])
        adata.obsm[key_added] = model.get_latent_representation(data)
    note(
        adata,
        key_added,
        "scanvi",
        "scvi-tools",
        batch_key=batch_key,
        labels_key=labels_key,
        n_genes=data.n_vars,
        n_train=int(mask.sum()),
        seed=seed,
    )


def _data_for_scvi(
    adata: AnnData, layer: str | None, batch_key: str, n_top_genes: int | None, mask: NDArray[np.bool_]
) -> AnnData:
    """Return the counts of variable genes with a column ``batch``: scvi-tools writes into what it is given."""
    import anndata as ad
    import pandas as pd

    counts = counts_of(adata, layer, "pass the layer that does")
    batches = codes_of(adata, batch_key, "batch")
    genes = variable_genes(log_normalized(counts[mask]), n_top_genes, batches[mask])
    # The encoder does not read the batch, but scvi-tools refuses one that it does not know.
    known = np.where(np.isin(batches, batches[mask]), batches, batches[mask][0])
    # Names of our own: those of the cells need not be unique.
    names = [str(i) for i in range(len(known))]
    obs = pd.DataFrame({"batch": pd.Categorical(known.astype(str))}, index=names)
    return ad.AnnData(counts[:, genes], obs=obs)


def _trained_scvi(data: AnnData, max_epochs: int | None, accelerator: str, progress_bar: bool) -> Any:
    from scvi.model import SCVI

    SCVI.setup_anndata(data, batch_key="batch")
    model = SCVI(data)
    model.train(max_epochs=max_epochs, accelerator=accelerator, enable_progress_bar=progress_bar)
    return model


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Set scvi-tools' seed, and put everybody's random numbers back afterwards."""
    import scvi
    from lightning.pytorch.utilities.seed import isolate_rng
    from torch.backends import cudnn

    before = scvi.settings.seed, cudnn.deterministic, cudnn.benchmark
    with isolate_rng():
        scvi.settings.seed = seed
        try:
            yield
        finally:
            scvi.settings.seed, cudnn.deterministic, cudnn.benchmark = before
