"""Names of cell types."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData

    from scgpt.data import GeneVocab
    from scgpt.model import SCGPT, SCGPTAnnotator
    from scgpt.nn import ScGPTConfig

# A gene that fewer known cells express is hardly learnt from scratch; to a query it would be noise. One in a hundred cells,
# between these numbers.
_MIN_CELLS = (3, 20)
# Of a type with fewer cells little can be learnt.
_FEW_CELLS = 10
# Cells to name that are looked at before the training: where values cannot be expression, most cells tell.
_LOOKED_AT = 256
_LABEL = "label"


def annotate(
    adata: AnnData,
    labels_key: str | None = None,
    *,
    reference: AnnData | None = None,
    unlabeled_category: str = "Unknown",
    model: str | Path | SCGPT | None = None,
    layer: str | None = None,
    gene_key: str | None = None,
    gene_mapping: Mapping[str, str] | pd.Series | str | Path | None = None,
    class_weight: Literal["balanced"] | Mapping[str, float] | None = None,
    min_confidence: float = 0.0,
    unknown_label: str = "Unknown",
    max_epochs: int | None = None,
    seed: int = 0,
    network_kwargs: Mapping[str, Any] | None = None,
    train_kwargs: Mapping[str, Any] | None = None,
    save: str | Path | None = None,
    progress_bar: bool = True,
    key_added: str = "scgpt",
    copy: bool = False,
) -> AnnData | None:
    r"""Name the types of cells, after those of cells that are known :cite:p:`Cui2024`.

    A model is trained on the known cells: those of ``adata`` that have a label, or those of ``reference``.

    Parameters
    ----------
    adata
        Cells by genes, with counts or log-normalised values. All of its cells are named, those with a label too.
    labels_key
        Column of ``.obs`` with the known types, of ``reference`` where there is one, else of ``adata``. Not needed
        where ``model`` is a trained annotator.
    reference
        Other cells, whose types are known. Its genes need not be those of ``adata``: the model is trained on the genes
        that both measured.
    unlabeled_category
        What stands in ``labels_key`` for cells of unknown type; so do missing values and empty text.
    model
        A checkpoint's name or folder, or a model, to fine-tune; what one made for the batches of its own data starts
        anew. A trained :class:`~scgpt.model.SCGPTAnnotator`, or its folder without ``labels_key``, names the cells as
        it is. None trains a small network from scratch.
    layer
        Layer with the expression, of both data sets; ``.X`` by default.
    gene_key
        Column of ``.var`` with the gene names, of both data sets; by default the names that both share, or that the
        model knows, are found by themselves.
    gene_mapping
        From names in the data to other names, see :func:`scgpt.data.match_genes`.
    class_weight
        ``"balanced"`` gives rare types the say of frequent ones, see :meth:`scgpt.model.SCGPTAnnotator.train`.
    min_confidence
        Cells of less confidence become ``unknown_label``.
    unknown_label
        See there.
    max_epochs
        See :meth:`scgpt.model.SCGPTAnnotator.train`.
    seed
        Of weights, order, masks and dropout.
    network_kwargs
        Fields of :class:`~scgpt.nn.ScGPTConfig` to change.
    train_kwargs
        Arguments of :meth:`scgpt.model.SCGPTAnnotator.train` to change.
    save
        Folder to save the trained annotator in; ``annotate(more, model=folder)`` names further cells. Trained on from
        pretrained weights it knows more genes than it was trained on: give it those in the provenance.
    progress_bar
        Show progress.
    key_added
        Beginning of the keys written.
    copy
        Return a copy instead of writing to ``adata``.

    Returns
    -------
    None, or the copy. Sets:

    ``adata.obs[f"{key_added}_label"]``
        Categorical, the likeliest type.
    ``adata.obs[f"{key_added}_confidence"]``
        float32, its probability, calibrated on known cells that were kept from training.
    ``adata.obsm[f"{key_added}_probabilities"]``
        DataFrame of float32, a column for each type, with ``|`` for a slash in its name, which h5ad files do not take.
    ``adata.uns["scgpt"][f"{key_added}_label"]``
        Provenance: parameters, package version, checkpoint and its hash, genes of ``adata`` that were read and that were
        not, and how many known cells each type had.

    Raises
    ------
    KeyError
        When a layer or column is not there.
    ValueError
        When fewer than two types are known; when no gene is shared; when values cannot be expression; when an
        annotator is told how to be trained.
    FileExistsError
        When the folder to save in holds anything.

    Examples
    --------
    >>> import numpy as np
    >>> import scanpy as sc
    >>> import scgpt
    >>> adata = sc.datasets.pbmc68k_reduced()[::10].raw.to_adata()[:, :100].copy()  # log-normalised values
    >>> adata.obs["known"] = adata.obs["bulk_labels"].where(
    ...     np.arange(adata.n_obs) % 3 > 0
    ... )  # the others are to be named
    >>> scgpt.tl.annotate(adata, "known", max_epochs=2, progress_bar=False)
    >>> list(adata.obs.filter(like="scgpt")), adata.obsm["scgpt_probabilities"].shape
    (['scgpt_label', 'scgpt_confidence'], (70, 9))

    After the cells of a reference, on from pretrained weights:

    >>> reference, query = adata[:50].copy(), adata[50:].copy()
    >>> scgpt.tl.annotate(query, "bulk_labels", reference=reference, model="mini", max_epochs=1, progress_bar=False)
    >>> int(query.obs["scgpt_label"].notna().sum())
    20
    """
    import pandas as pd

    from scgpt._messages import inform
    from scgpt.data import check_anndata, check_name, path_of
    from scgpt.hub import check_target
    from scgpt.metrics._columns import columns_of
    from scgpt.model import SCGPTAnnotator

    from ._arguments import refuse_own, target
    from ._provenance import fingerprint, genes_of, record

    check_anndata(adata)
    check_name(labels_key, "labels_key")
    refuse_own(("class_weight", "max_epochs", "seed"), train_kwargs or {}, "annotate")
    if not 0 <= min_confidence <= 1:
        raise ValueError(f"min_confidence is a probability, from 0 to 1, and not {min_confidence}.")
    if save is not None:
        check_target(path_of(save, "save"))  # before the training, not after it
    adata = target(adata, copy, key_added)
    layer = None if layer == "X" else layer
    names: dict[str, Any] = {"gene_key": gene_key, "gene_mapping": gene_mapping}
    if labels_key is None and isinstance(model, str | Path):
        try:
            model = SCGPTAnnotator.from_pretrained(model)
        except ValueError as error:
            error.add_note("To train a model, pass labels_key, the column of .obs with the known types.")
            raise
    if isinstance(model, SCGPTAnnotator):
        of_training = {
            "reference": reference,
            "class_weight": class_weight,
            "max_epochs": max_epochs,
            "network_kwargs": network_kwargs,
            "train_kwargs": train_kwargs,
            "save": save,
        }
        if given := [name for name, value in of_training.items() if value is not None]:
            raise ValueError(
                f"An annotator is trained already: leave out {', '.join(given)}, or pass another model to train."
            )
        annotator, support = model, {}
        match = annotator.match(adata, **names)
        n_known = len(annotator.vocab.genes)
        inform(
            f"Naming {adata.n_obs} cells, which measured {match.n_genes} of the {n_known} genes that the model knows."
        )
    else:
        if labels_key is None:
            raise ValueError("labels_key must name the column of .obs with the known types.")
        _check_cells(adata, layer)
        known = _known_cells(adata, labels_key, reference, unlabeled_category, model, layer, names)
        support = {str(name): int(n) for name, n in known.obs[_LABEL].value_counts().items()}
        annotator = _train(
            known, model, class_weight, max_epochs, seed, network_kwargs, dict(train_kwargs or {}), progress_bar
        )
        if save is not None:
            annotator.save(save)
        # Of genes that it was not trained on a pretrained model might say anything.
        match = annotator.match(adata, **names).within(annotator.vocab.ids(known.var_names))

    probabilities = annotator.predict(adata, soft=True, layer=layer or "X", match=match, progress_bar=progress_bar)
    values = probabilities.to_numpy()
    confidence = values.max(1)
    types = list(annotator.labels)
    label = np.array(types, dtype=object)[values.argmax(1)]
    unsure = confidence < min_confidence
    if min_confidence:
        label[unsure] = unknown_label
        types = list(dict.fromkeys([*types, unknown_label]))
    adata.obs[f"{key_added}_label"] = pd.Categorical(label, categories=types)
    adata.obs[f"{key_added}_confidence"] = confidence
    adata.obsm[f"{key_added}_probabilities"] = probabilities.set_axis(columns_of(probabilities), axis="columns")
    record(
        adata,
        f"{key_added}_label",
        function="scgpt.tl.annotate",
        report=annotator.load_report,
        model_sha256=fingerprint(annotator),
        labels_key=labels_key or "",
        layer=layer or "X",
        types=list(annotator.labels),
        support=dict(zip(columns_of(support), support.values(), strict=True)),
        **genes_of(match),
        temperature=annotator.temperature,
        min_confidence=min_confidence,
        n_unknown=int(unsure.sum()),
        class_weight=str(class_weight),
        seed=seed,
        network=str(annotator.module.network.config),
    )
    return adata if copy else None


def _check_cells(adata: AnnData, layer: str | None) -> None:
    """Raise, before the training, where cells to name are no expression."""
    import pandas as pd

    from scgpt.data import Study, in_memory, own_names

    some = adata[:_LOOKED_AT]
    Study(some, own_names(in_memory(some.var)), pd.Series("", index=some.obs_names), layer).expression()


def _known_cells(
    adata: AnnData,
    labels_key: str,
    reference: AnnData | None,
    unlabeled_category: str,
    model: str | Path | SCGPT | None,
    layer: str | None,
    names: Mapping[str, Any],
) -> AnnData:
    """Return the cells whose type is known, over the genes that can be used."""
    import pandas as pd
    from anndata import AnnData

    from scgpt._messages import inform, listed, warn_user
    from scgpt.data import Study, as_text, check_anndata, column_of, in_memory, match_genes
    from scgpt.model import SCGPT

    source, what = (adata, "adata") if reference is None else (reference, "reference")
    check_anndata(source)
    labels = as_text(column_of(source.obs, labels_key, "labels_key", f"{what}.obs"), labels_key, f"{what}.obs")
    known = (labels.notna() & ~labels.isin(["", str(unlabeled_category)])).to_numpy()
    labels = labels[known]
    support = labels.value_counts()
    if len(support) < 2:
        raise ValueError(
            f"{what}.obs[{labels_key!r}] names {len(support)} cell types in {known.sum()} cells (missing values and "
            f"{unlabeled_category!r} left out); to tell types apart takes two."
        )

    var, var_of_query = in_memory(source.var), in_memory(adata.var)
    vocab = _own_vocabulary(var, var_of_query, **names) if model is None else SCGPT.checkpoint_of(model).vocab
    ours = match_genes(var, vocab, **names)
    ids = ours.token_ids
    if reference is not None:
        try:
            theirs = match_genes(var_of_query, vocab, **names).token_ids
        except ValueError as error:
            error.add_note(
                "These are the genes of the cells to name; the vocabulary is that of the model or reference."
            )
            raise
        # What the query did not measure cannot tell its types apart.
        ids = np.where(np.isin(ids, theirs[theirs >= 0]), ids, -1)
        n_shared = len(np.unique(ids[ids >= 0]))
        if not n_shared:
            raise ValueError("The cells to name and those of known type share no gene; pass gene_mapping=.")
        inform(f"The query measured {n_shared} of the {ours.n_genes} genes of the reference; the others are left out.")
    genes = [vocab.tokens[i] if i >= 0 else "" for i in ids]
    batches = pd.Series("", index=labels.index)
    expression = Study(source[known], genes, batches, layer).expression()
    enough_cells = int(np.clip(known.sum() // 100, *_MIN_CELLS)) if model is None else 0
    often = np.asarray((expression.rows > 0).sum(0)).ravel() >= enough_cells
    if not often.any():
        raise ValueError(f"No gene is expressed in {enough_cells} of the {known.sum()} cells of known type.")
    kept = [gene for gene, enough in zip(expression.genes, often, strict=True) if enough]
    result = AnnData(
        expression.rows[:, often],
        obs=pd.DataFrame({_LABEL: pd.Categorical(labels.to_numpy())}, index=pd.RangeIndex(len(labels)).astype(str)),
        var=pd.DataFrame(index=pd.Index(kept)),
    )
    inform(
        f"Learning {len(support)} types from {result.n_obs} cells over {result.n_vars} genes: "
        + listed([f"{name} ({n})" for name, n in support.items()], most=30)
        + "."
    )
    if len(few := [str(name) for name, n in support.items() if n < _FEW_CELLS]):
        warn_user(f"Types of fewer than {_FEW_CELLS} cells are hard to learn: {listed(few)}.")
    return result


def _own_vocabulary(
    var: pd.DataFrame, var_of_query: pd.DataFrame, gene_key: str | None, gene_mapping: Any
) -> GeneVocab:
    """Return the genes of the known cells as a vocabulary: under those of their names that the query shares most."""
    from scgpt.data import GeneVocab, name_keys, own_names

    theirs = {name for key in name_keys(var_of_query, gene_key) for name in own_names(var_of_query, key, gene_mapping)}
    candidates = [own_names(var, key, gene_mapping) for key in name_keys(var, gene_key)]
    names = max(candidates, key=lambda names: len(theirs.intersection(names) - {""}))
    return GeneVocab.from_genes(name for name in names if name)


def _train(
    known: AnnData,
    model: str | Path | SCGPT | None,
    class_weight: Literal["balanced"] | Mapping[str, float] | None,
    max_epochs: int | None,
    seed: int,
    network_kwargs: Mapping[str, Any] | None,
    train_kwargs: dict[str, Any],
    progress_bar: bool,
) -> SCGPTAnnotator:
    from scgpt.model import SCGPT, SCGPTAnnotator

    SCGPTAnnotator.setup_anndata(known, labels_key=_LABEL, unlabeled_category="")
    changes = dict(network_kwargs or {})
    if model is None:
        annotator = SCGPTAnnotator(known, seed=seed, **changes)
    else:
        checkpoint = SCGPT.checkpoint_of(model)
        changes, fresh = _without_batches(checkpoint.config, changes)
        annotator = SCGPTAnnotator.from_pretrained(checkpoint, known, fresh=fresh, **changes)
    annotator.train(
        max_epochs, class_weight=class_weight, seed=seed, **{"enable_progress_bar": progress_bar} | train_kwargs
    )
    return annotator


def _without_batches(config: ScGPTConfig, changes: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Return what to change of a network that knows the batches of other data, and which parts then start anew."""
    off: dict[str, Any] = {"batch_embedding": False, "adversary": False}
    if config.input_norm == "domain":
        off["input_norm"] = "batch"
    changes = off | dict(changes)
    fresh = ["input_norm"] if config.input_norm == "domain" and changes["input_norm"] else []
    if config.batch_embedding:  # which the decoders read
        fresh += ["gep"] + ["gepc"] * changes.get("gepc", config.gepc)
    return changes, fresh
