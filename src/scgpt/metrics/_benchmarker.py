"""The metrics of scib-metrics' Benchmarker."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ._graph import nearest_neighbors

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData

_PREFIX = "scib-metrics: "
_N_NEIGHBORS = 90


def check_size(adata: AnnData) -> None:
    """Refuse data with fewer cells than neighbours are looked for."""
    if adata.n_obs < _N_NEIGHBORS:
        raise ValueError(f"The Benchmarker looks at {_N_NEIGHBORS} neighbours, and there are {adata.n_obs} cells.")


def principal_components(adata: AnnData) -> NDArray[np.float64]:
    """Return up to 50 principal components of ``.X``, which must not hold counts."""
    import scanpy as sc

    remedy = "pass unintegrated, a key of .obsm"
    if adata.X is None:
        raise ValueError(f"There is no `.X` to compare with: {remedy}.")
    some: Any = adata.X[:100]
    values = np.asarray(some.data if hasattr(some, "toarray") else some)
    if np.array_equal(values, np.rint(values)):
        raise ValueError(f"`.X` holds counts: normalise and log-transform it, or {remedy}.")
    return np.asarray(sc.pp.pca(adata.X, n_comps=min(50, min(adata.shape) - 1)), dtype=np.float64)


def benchmarker_scores(
    embeddings: Mapping[str, NDArray[np.float64]],
    labels: NDArray[np.intp],
    batches: NDArray[np.intp],
    unintegrated: NDArray[np.float64],
) -> pd.DataFrame:
    """Return one row for each embedding, with all that the Benchmarker computes by default."""
    import anndata as ad
    import pandas as pd
    from scib_metrics.benchmark import Benchmarker

    # An object of our own: the Benchmarker writes into what it is given.
    names = [str(i) for i in range(len(labels))]
    data = ad.AnnData(obs=pd.DataFrame({"label": labels, "batch": batches}, index=names))
    for key, array in embeddings.items():
        data.obsm[key] = array.astype(np.float32)
    before = "before integration"
    data.obsm[before] = unintegrated
    bench = Benchmarker(
        data, "batch", "label", list(embeddings), pre_integrated_embedding_obsm_key=before, progress_bar=False
    )
    bench.prepare(nearest_neighbors)
    bench.benchmark()
    return bench.get_results().drop("Metric Type").astype(np.float64).add_prefix(_PREFIX)
