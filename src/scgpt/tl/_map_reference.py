"""Labels of a reference, transferred to a query without training."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scgpt._messages import inform, listed

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from anndata import AnnData
    from numpy.typing import NDArray

    from scgpt.data import GeneMatch
    from scgpt.index import ReferenceIndex
    from scgpt.index._voting import Weights
    from scgpt.model import SCGPT, Precision


def map_reference(
    query: AnnData,
    reference: AnnData | ReferenceIndex | str | Path,
    *,
    labels_key: str,
    model: str | Path | SCGPT,
    k: int = 10,
    weights: Weights = "uniform",
    min_confidence: float = 0.0,
    unknown_label: str = "Unknown",
    use_rep: str = "X_scGPT",
    layer: str | None = None,
    gene_key: str | None = None,
    gene_mapping: Mapping[str, str] | pd.Series | str | Path | None = None,
    max_length: int | None = None,
    precision: Precision = "auto",
    progress_bar: bool = True,
    key_added: str = "scgpt_mapped_label",
    copy: bool = False,
) -> AnnData | None:
    r"""Label cells by the most like cells of a reference, without fine-tuning :cite:p:`Cui2024`.

    Both are embedded by one model. The ``k`` reference cells with the highest cosine to a cell vote on its label. A cell's
    label depends on that cell and the reference alone.

    Parameters
    ----------
    query
        Cells by genes, with counts or log-normalised values. Genes may come in another order than in the reference, be
        missing, or have other kinds of names, as in :func:`scgpt.tl.embed`.
    reference
        Cells with labels; or a :class:`~scgpt.ReferenceIndex` of them, or its folder. An AnnData is left as it is.
    labels_key
        Column of the reference's ``.obs``, or of the labels of the index.
    model
        A model, the folder of a checkpoint, or a checkpoint's name.
    k
        How many neighbours vote.
    weights
        ``"uniform"``: a vote each, as the authors do. ``"distance"``: one over the Euclidean distance of embeddings of
        length 1. Of labels with equally many votes that with the highest sum of cosines wins.
    min_confidence
        Cells with less are labelled ``unknown_label``; from 0 to 1.
    unknown_label
        For these cells.
    use_rep
        Key of ``.obsm`` where embeddings are looked for: one that :func:`scgpt.tl.embed` wrote with the same model,
        and with the settings below where they are given, is used as it is. The embedding of the query is written
        there if the key is free; one by another model is left alone.
    layer
        As in :func:`scgpt.tl.embed`, for both.
    gene_key
        As in :func:`scgpt.tl.embed`, for the query. The reference's genes are found by themselves; where that fails, embed
        it before.
    gene_mapping
        As in :func:`scgpt.tl.embed`, for both.
    max_length
        As in :func:`scgpt.tl.embed`, for both.
    precision
        As in :func:`scgpt.tl.embed`, for both.
    progress_bar
        Show progress.
    key_added
        Column of ``.obs`` and key of ``.uns["scgpt"]``.
    copy
        Return a copy of the query instead of writing to it.

    Returns
    -------
    None, or the copy. Sets:

    ``query.obs[key_added]``
        Categorical: all labels of the reference, in its order, and ``unknown_label`` where ``min_confidence`` is set.
    ``query.obs[key_added + "_confidence"]``
        float32, the label's share of the votes, from 0 to 1; that of the best label also where it is unknown.
    ``query.uns["scgpt"][key_added]``
        Provenance: parameters, package version, checkpoint and its hash, size of the reference.

    Raises
    ------
    KeyError
        When a column or layer is not there.
    ValueError
        When the query or the reference is empty; when reference cells have no label, or all the same; when no gene
        matches; when ``k`` is larger than the reference; when the reference is known to be embedded by another model.
    FileNotFoundError
        When the checkpoint or the folder of the index is not there.

    Examples
    --------
    >>> import scanpy as sc
    >>> import scgpt
    >>> adata = sc.datasets.pbmc68k_reduced().raw.to_adata()
    >>> reference, query = adata[:200].copy(), adata[200:240].copy()
    >>> scgpt.tl.map_reference(query, reference, labels_key="bulk_labels", model="mini", progress_bar=False)
    >>> agrees = query.obs["scgpt_mapped_label"].astype(str) == query.obs["bulk_labels"].astype(str)
    >>> bool(agrees.mean() > 0.5)
    True
    """
    import numpy as np
    import pandas as pd

    from scgpt.data import check_anndata, check_name
    from scgpt.index import ReferenceIndex
    from scgpt.index._voting import check_weights
    from scgpt.model import SCGPT

    from ._arguments import target
    from ._embed import embed
    from ._provenance import fingerprint, record

    check_anndata(query)
    check_name(labels_key, "labels_key")
    check_name(use_rep, "use_rep")
    check_weights(weights)
    if not 0 <= min_confidence <= 1:
        raise ValueError(f"min_confidence={min_confidence}: it must be between 0 and 1.")
    if query.n_obs == 0:
        raise ValueError("The query has no cells.")
    if isinstance(reference, str | Path):
        reference = ReferenceIndex.load(reference)
    if not isinstance(reference, ReferenceIndex):
        check_anndata(reference)
    _check_reference(reference, labels_key, k)
    query = target(query, copy, key_added)
    if not isinstance(model, SCGPT):
        model = SCGPT.from_pretrained(model)

    how: dict[str, Any] = {"layer": layer, "max_length": max_length, "precision": precision}
    genes: dict[str, Any] = {"gene_key": gene_key, "gene_mapping": gene_mapping}
    by = fingerprint(model)
    if isinstance(reference, ReferenceIndex):
        index = reference
        _check_model(index, model, by)
    else:
        vectors = _embedding_there(reference, use_rep, by, **how)
        if vectors is None:
            known = model.match(reference, gene_mapping=gene_mapping)
            _check_shared_genes(known, model.match(query, **genes))
            vectors = model.get_latent_representation(reference, match=known, progress_bar=progress_bar, **how)
        labels = pd.DataFrame({labels_key: reference.obs[labels_key]})
        index = ReferenceIndex.from_embeddings(vectors, labels, use_rep=use_rep)
    if use_rep not in query.obsm:
        embed(query, model, key_added=use_rep, progress_bar=progress_bar, **genes, **how)
    vectors = _embedding_there(query, use_rep, by, **how)
    if vectors is None:
        vectors = model.get_latent_representation(query, progress_bar=progress_bar, **genes, **how)

    votes = index.vote(index.query(vectors, k), labels_key, weights=weights)
    chosen, categories = votes.labels, list(votes.categories)
    if min_confidence > 0:
        chosen = np.where(votes.confidence < np.float32(min_confidence), unknown_label, chosen)
        categories += [] if unknown_label in categories else [unknown_label]
    query.obs[key_added] = pd.Categorical(chosen, categories=categories)
    query.obs[f"{key_added}_confidence"] = votes.confidence
    record(
        query,
        key_added,
        function="scgpt.tl.map_reference",
        report=model.load_report,
        model_sha256=by,
        labels_key=labels_key,
        n_reference=len(index),
        k=k,
        weights=weights,
        min_confidence=min_confidence,
        unknown_label=unknown_label,
        use_rep=use_rep,
    )
    return query if copy else None


def _check_reference(reference: AnnData | ReferenceIndex, labels_key: str, k: int) -> None:
    """Raise, before anything is embedded, for a reference that cannot label cells."""
    import numpy as np

    from scgpt.data import check_whole, column_of, without_missing
    from scgpt.index import ReferenceIndex

    if isinstance(reference, ReferenceIndex):
        n, n_labels = len(reference), len(np.unique(reference.codes(labels_key)))
    else:
        labels = column_of(reference.obs, labels_key, "labels_key", "reference.obs")
        without_missing(labels, labels_key, "label", "reference.obs")
        n, n_labels = reference.n_obs, labels.nunique()
    if n == 0:
        raise ValueError("The reference has no cells.")
    if n_labels == 1:
        raise ValueError(
            f"All cells of the reference have one label in {labels_key!r}: there is nothing to choose from."
        )
    check_whole(k, "k")
    if k > n:
        raise ValueError(f"k={k}: it must be at least 1 and at most {n}, the number of reference cells.")


def _check_model(index: ReferenceIndex, model: SCGPT, by: str) -> None:
    """Raise, before anything is embedded, where an index is of another model."""
    report = model.load_report
    index.check_model(
        {
            "model_sha256": by,
            "checkpoint": report.source if report else "trained from scratch",
            "checkpoint_sha256": report.sha256 if report else "",
        },
        "the query",
    )
    width = model.module.network.config.d_model
    if width != index.n_dims:
        raise ValueError(
            f"The model's embeddings have {width} dimensions, those in the reference {index.n_dims}: it was made by another "
            "model."
        )


def _check_shared_genes(reference: GeneMatch, query: GeneMatch) -> None:
    """Raise where the query measured no gene of the reference, else say how many."""
    known = set(reference.token_ids[reference.token_ids >= 0])
    shared = known & set(query.token_ids)
    if not shared:
        raise ValueError(
            f"The query has none of the {len(reference.matched)} genes of the reference that the model knows: its genes are "
            f"such as {listed(query.matched)}, those of the reference such as {listed(reference.matched)}."
        )
    inform(f"The query measured {len(shared)} of the {len(known)} genes of the reference that the model knows.")


def _embedding_there(
    adata: AnnData, use_rep: str, by: str, *, layer: str | None, max_length: int | None, precision: Precision
) -> NDArray[np.float32] | None:
    """Return the embedding that is there, if this model made it with the settings that are asked for."""
    import numpy as np

    from ._provenance import recorded

    made = recorded(adata, use_rep)
    asked = {"layer": layer, "max_length": max_length, "precision": None if precision == "auto" else precision}
    if use_rep not in adata.obsm or made.get("model_sha256") != by:
        return None
    if any(value is not None and made.get(key) != value for key, value in asked.items()):
        return None
    return np.asarray(adata.obsm[use_rep])
