"""Scores of integrated embeddings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ._agreement import adjusted_rand_index, normalized_mutual_information
from ._bootstrap import with_intervals
from ._columns import codes_of
from ._graph import connectivities, label_components, leiden, nearest_neighbors
from ._silhouettes import silhouettes

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData

_RESOLUTIONS = (0.2, 0.4, 0.6, 0.8, 1.0, 1.2, 1.4, 1.6, 1.8, 2.0)
_COLUMNS = ("NMI", "ARI", "ASW_label", "AvgBIO", "ASW_batch", "graph_connectivity", "AvgBATCH", "Overall")
_AVERAGES = ("AvgBIO", "AvgBATCH", "Overall")


def integration_scores(
    adata: AnnData,
    batch_key: str | None,
    label_key: str,
    embeddings: str | Sequence[str],
    *,
    n_neighbors: int = 15,
    resolutions: Sequence[float] = _RESOLUTIONS,
    n_bootstrap: int = 0,
    seed: int = 0,
    benchmarker: bool = False,
    unintegrated: str | None = None,
) -> pd.DataFrame:
    r"""Score how embeddings keep cell types apart and mix batches, as the paper of scGPT does :cite:p:`Cui2024`.

    The metrics are those of scib :cite:p:`Luecken2022`, with its definitions. All lie between 0 and 1, and higher is
    better.

    - ``NMI`` and ``ARI``: agreement of labels and Leiden clusters on the graph of nearest neighbours, at the
      resolution where the NMI is highest.
    - ``ASW_label``: mean silhouette of the labels, moved from -1 .. 1 to 0 .. 1.
    - ``AvgBIO``: the mean of these three.
    - ``ASW_batch``: 1 minus the absolute silhouette of the batches among the cells of a label, averaged over cells, then
      over labels; labels of a single batch, or with no two cells of one batch, are left out.
    - ``graph_connectivity``: share of a label's cells that are in the largest connected piece of the graph of that
      label's cells, averaged over labels.
    - ``AvgBATCH``: the mean of these two.
    - ``Overall``: 0.6 AvgBIO + 0.4 AvgBATCH.

    scib-metrics' own selection of metrics differs from this one, and scores of the two should not be compared;
    ``benchmarker`` adds it.

    Neighbours and distances are exact, so time grows with the square of the number of cells.

    Parameters
    ----------
    adata
        Cells with their embeddings.
    batch_key
        Column of ``.obs`` with the batches. None where there are no batches to mix: what needs them is NaN.
    label_key
        Column of ``.obs`` with the cell types, or other labels to be kept apart.
    embeddings
        Keys of ``.obsm``, each an embedding of ``(n_obs, n_dims)``, compared by Euclidean distance.
    n_neighbors
        Neighbours of a cell in the graph, the cell itself included as in :func:`scanpy.pp.neighbors`.
    resolutions
        Of the Leiden clusterings to choose from.
    n_bootstrap
        Times to draw cells with replacement for 95 % intervals of the averages. Clusters, silhouettes and connected
        pieces are held fixed, so the intervals tell of the choice of cells, not of training or clustering. Every
        embedding gets the same draws.
    seed
        Of the clusterings and the draws.
    benchmarker
        Add what :class:`scib_metrics.benchmark.Benchmarker` computes by default, with exact neighbours. Takes much
        longer.
    unintegrated
        Key of ``.obsm`` with an embedding from before the integration, for the Benchmarker's PCR comparison; by
        default principal components of ``.X``, which has to be log-normalised.

    Returns
    -------
    One row for each embedding, with columns as above; with ``n_bootstrap``, after each average its ``..._low`` and
    ``..._high``; with ``benchmarker``, columns whose names begin with ``scib-metrics:``, the totals last.

    Raises
    ------
    KeyError
        When a column or embedding is not there.
    ValueError
        When labels, batches or embeddings have missing values; when there is a single label or batch; when no label
        has cells of two batches.

    Examples
    --------
    >>> import scanpy as sc
    >>> import scgpt
    >>> adata = sc.datasets.pbmc68k_reduced()[::5].copy()
    >>> scores = scgpt.metrics.integration_scores(
    ...     adata, "phase", "bulk_labels", ["X_pca", "X_umap"], resolutions=[0.5, 1.0], n_bootstrap=10
    ... )
    >>> scores.index.tolist(), scores.columns[:4].tolist()
    (['X_pca', 'X_umap'], ['NMI', 'ARI', 'ASW_label', 'AvgBIO'])
    >>> bool((scores["AvgBIO_low"] <= scores["AvgBIO_high"]).all())
    True
    """
    import pandas as pd

    keys = [embeddings] if isinstance(embeddings, str) else list(embeddings)
    if not keys or len(set(keys)) < len(keys):
        raise ValueError(f"embeddings has to name keys of .obsm, each once, and is {keys}.")
    labels = codes_of(adata, label_key, "label")
    if labels.max() == 0:
        raise ValueError(f"All cells have the same label in .obs[{label_key!r}]; the scores need two or more.")
    if labels.max() == len(labels) - 1:
        raise ValueError(f"Every cell has a label of its own in .obs[{label_key!r}].")
    batches = None if batch_key is None else codes_of(adata, batch_key, "batch")
    if batches is not None:
        _check_batches(batches, labels, str(batch_key), label_key)
    elif benchmarker:
        raise ValueError("benchmarker=True needs batches: pass batch_key.")
    if len(labels) < n_neighbors:
        raise ValueError(f"There are {len(labels)} cells, fewer than n_neighbors={n_neighbors}.")
    arrays = {key: _embedding(adata, key) for key in keys}
    if benchmarker:
        from ._benchmarker import benchmarker_scores, check_size, principal_components

        check_size(adata)
        before = principal_components(adata) if unintegrated is None else _embedding(adata, unintegrated)

    rows = {}
    for key, embedding in arrays.items():
        cells = _ScoredCells.of(embedding, labels, batches, n_neighbors, resolutions, seed)
        rows[key] = cells.scores(np.ones(len(labels)))
        if n_bootstrap:
            rows[key] = with_intervals(rows[key], cells.scores, len(labels), n_bootstrap, seed, _AVERAGES)
    table = pd.DataFrame.from_dict(rows, orient="index").rename_axis("embedding")
    if benchmarker:
        assert batches is not None
        table = table.join(benchmarker_scores(arrays, labels, batches, before))
    return table


@dataclass(frozen=True)
class _ScoredCells:
    """What the scores of an embedding are sums over, for each cell."""

    labels: NDArray[np.intp]
    clusters: NDArray[np.intp]
    components: NDArray[np.intp]
    label_silhouettes: NDArray[np.float64]
    batch_silhouettes: NDArray[np.float64]

    @classmethod
    def of(
        cls,
        embedding: NDArray[np.float64],
        labels: NDArray[np.intp],
        batches: NDArray[np.intp] | None,
        n_neighbors: int,
        resolutions: Sequence[float],
        seed: int,
    ) -> _ScoredCells:
        graph = connectivities(nearest_neighbors(embedding, n_neighbors))
        clusterings = list(leiden(graph, resolutions, seed))
        agreement = [normalized_mutual_information(_contingency(labels, clusters)) for clusters in clusterings]
        return cls(
            labels,
            clusterings[int(np.argmax(agreement))],
            label_components(graph, labels),
            *silhouettes(embedding, labels, batches),
        )

    def scores(self, weights: NDArray[np.float64]) -> dict[str, float]:
        """Score the cells, each counted as often as its weight says."""
        table = _contingency(self.labels, self.clusters, weights)
        nmi, ari = normalized_mutual_information(table), adjusted_rand_index(table)
        asw_label = (np.average(self.label_silhouettes, weights=weights) + 1) / 2

        defined = ~np.isnan(self.batch_silhouettes)
        asw_batch = _mean_of_labels(1 - np.abs(self.batch_silhouettes[defined]), self.labels[defined], weights[defined])
        sizes = np.bincount(self.components, weights)
        largest = np.zeros(self.labels.max() + 1)
        np.maximum.at(largest, self.labels, sizes[self.components])
        of_label = np.bincount(self.labels, weights)
        connectivity = (largest[of_label > 0] / of_label[of_label > 0]).mean()

        bio, batch = np.mean([nmi, ari, asw_label]), np.mean([asw_batch, connectivity])
        values = nmi, ari, asw_label, bio, asw_batch, connectivity, batch, 0.6 * bio + 0.4 * batch
        return dict(zip(_COLUMNS, map(float, values), strict=True))


def _contingency(
    labels: NDArray[np.intp], clusters: NDArray[np.intp], weights: NDArray[np.float64] | None = None
) -> NDArray[np.float64]:
    shape = int(labels.max()) + 1, int(clusters.max()) + 1
    counts = np.bincount(labels * shape[1] + clusters, weights, minlength=shape[0] * shape[1])
    return counts.reshape(shape).astype(np.float64)


def _mean_of_labels(values: NDArray[np.float64], labels: NDArray[np.intp], weights: NDArray[np.float64]) -> float:
    """Average over the cells of each label, then over labels; NaN where there are none."""
    totals, counts = np.bincount(labels, weights * values), np.bincount(labels, weights)
    return float((totals[counts > 0] / counts[counts > 0]).mean()) if counts.any() else np.nan


def _check_batches(batches: NDArray[np.intp], labels: NDArray[np.intp], batch_key: str, label_key: str) -> None:
    remedy = "pass batch_key=None for the scores that need no batches"
    if batches.max() == 0:
        raise ValueError(f"All cells are of one batch in .obs[{batch_key!r}], so there is nothing to mix: {remedy}.")
    n_pairs = np.bincount(np.unique(np.column_stack([labels, batches]), axis=0)[:, 0])
    n_cells = np.bincount(labels)
    if not ((n_pairs > 1) & (n_pairs < n_cells)).any():
        raise ValueError(
            f"No label of .obs[{label_key!r}] has cells of two batches of .obs[{batch_key!r}], so ASW_batch is undefined: "
            f"{remedy}."
        )


def _embedding(adata: AnnData, key: str) -> NDArray[np.float64]:
    import scipy.sparse as sp

    if key not in adata.obsm:
        raise KeyError(f"There is no embedding {key!r} in .obsm, which has {list(adata.obsm)}.")
    stored: Any = adata.obsm[key]
    array = np.asarray(stored.toarray() if sp.issparse(stored) else stored, dtype=np.float64)
    if bad := int((~np.isfinite(array)).any(1).sum()):
        raise ValueError(f"The embedding .obsm[{key!r}] is NaN or infinite in {bad} of {len(array)} cells.")
    return array
