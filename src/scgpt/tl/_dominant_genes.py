"""Names of clusters of perturbations."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from anndata import AnnData


def dominant_genes(
    adata: AnnData,
    groupby: str = "leiden",
    *,
    perturbation_key: str = "perturbation",
    control: str = "control",
    sep: str = "+",
    key_added: str = "dominant_gene",
    copy: bool = False,
) -> AnnData | None:
    """Name clusters of perturbations by the gene that most of their perturbations share :cite:p:`Cui2024`.

    Parameters
    ----------
    adata
        Perturbations, as :func:`scgpt.tl.perturb` returns them.
    groupby
        Column of ``.obs`` with the clusters.
    perturbation_key
        Column of ``.obs`` with the names of perturbations.
    control
        Name of none.
    sep
        Between the genes of a name.
    key_added
        Beginning of the columns written.
    copy
        Return a copy instead of writing to ``adata``.

    Returns
    -------
    None, or the copy. Sets:

    ``adata.obs[key_added]``
        Categorical, the gene of most perturbations of the cluster; of equal ones that which comes first in the alphabet.
        Missing where a cluster has no perturbation.
    ``adata.obs[f"{key_added}_share"]``
        float64, share of the cluster's perturbations that it is part of.

    Raises
    ------
    KeyError
        When a column is not there.

    Examples
    --------
    >>> import anndata
    >>> import pandas as pd
    >>> import scgpt
    >>> obs = {"perturbation": ["KLF1", "KLF1+CEBPA", "KLF1+TP73", "CEBPA"], "leiden": ["0", "0", "0", "1"]}
    >>> space = anndata.AnnData(obs=pd.DataFrame(obs, index=obs["perturbation"]))  # as scgpt.tl.perturb returns it
    >>> scgpt.tl.dominant_genes(space)
    >>> space.obs["dominant_gene"].tolist()
    ['KLF1', 'KLF1', 'KLF1', 'CEBPA']
    """
    import pandas as pd

    from scgpt.data import as_text, check_anndata, column_of
    from scgpt.metrics import perturbed_by

    from ._arguments import target

    check_anndata(adata)
    names = as_text(column_of(adata.obs, perturbation_key, "perturbation_key"), perturbation_key)
    clusters = column_of(adata.obs, groupby, "groupby").astype(object)
    adata = target(adata, copy, key_added)
    gene_of, share_of = {}, {}
    for cluster, own in names.groupby(clusters):
        counts = Counter(gene for name in own for gene in perturbed_by(name, control=control, sep=sep))
        if counts:
            gene = min(counts, key=lambda gene: (-counts[gene], gene))
            gene_of[cluster], share_of[cluster] = gene, counts[gene] / len(own)
    adata.obs[key_added] = pd.Categorical(clusters.map(gene_of))
    adata.obs[f"{key_added}_share"] = clusters.map(share_of).astype(float)
    return adata if copy else None
