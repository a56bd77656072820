"""Generated expression."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData
    from numpy.typing import ArrayLike

    from scgpt.model import SCGPT, Precision, Prompt


def generate(
    adata: AnnData,
    *,
    model: str | Path | SCGPT,
    prompt: Prompt | None = None,
    genes: str | Iterable[str] | None = None,
    embeddings: str | ArrayLike | None = None,
    groupby: str | None = None,
    groups: str | Iterable[str] | None = None,
    n_cells: int | None = None,
    n_averaged: int = 1,
    n_rounds: int = 3,
    draw: bool = False,
    seed: int = 0,
    layer: str | None = None,
    gene_key: str | None = None,
    gene_mapping: Mapping[str, str] | pd.Series | str | Path | None = None,
    max_length: int | None = None,
    precision: Precision = "auto",
    progress_bar: bool = True,
) -> AnnData:
    r"""Generate the expression of genes from known genes, from a cell embedding, or for pseudo-cells :cite:p:`Cui2024`.

    In each of ``n_rounds`` rounds the values of all genes that are asked for are predicted, and an equal part of them is
    accepted: those to which the cell's ``<cls>`` token gives most attention. In the next round these are known. What is
    generated for a cell depends neither on the other cells nor on their number and order. Nothing is drawn at random but
    the cells that pseudo-cells are made after and, with ``draw``, which genes a cell expresses.

    Parameters
    ----------
    adata
        Cells by genes, as in :func:`scgpt.tl.embed`; it is left as it is.
    model
        A model with an embedding of unknown genes (``n_flags=2``) that was trained with the objective ``gen``, the folder
        of a checkpoint, or a checkpoint's name.
    prompt
        ``"genes"``: a cell's genes are generated from those that it measured. ``"cell"``: no gene is known, and the
        cell's embedding stands in place of the input of ``<cls>``. ``"both"``. By default ``"cell"`` where ``embeddings``
        or ``groupby`` are given, else ``"genes"``.
    genes
        What to generate, in the names of the model's vocabulary. By default all genes of the model that ``adata`` did not
        measure, or from a cell alone those that it measured. Time and memory grow with their number times the rounds.
        Measured values of these genes are not read where known genes are the prompt.
    embeddings
        ``(n_obs, d_model)`` prompts, or their key in ``.obsm``. They must not be scaled to length 1, as
        :func:`scgpt.tl.embed` writes them, but as ``get_latent_representation(normalize=False)`` gives them. By default
        the model makes them from ``adata``.
    groupby
        Column of ``.obs``, such as the cell type: pseudo-cells of its groups are generated.
    groups
        Which of them; by default all.
    n_cells
        Pseudo-cells of each group. By default one, from the mean embedding of the group's cells.
    n_averaged
        How many cells of the group, drawn at random, ``n_cells`` are made after each, by the mean of their embeddings. No
        cell is drawn again before all were. With 1, pseudo-cells differ as the cells of the group do.
    n_rounds
        Rounds; with 1 no generated gene sees another. A cell with fewer genes to generate takes a round for each.
    draw
        Draw which genes a cell expresses, each with its probability, as a function of seed, name of the cell and gene.
        Genes are then found in as many cells as they should be, and cells differ as measured ones do. Else a cell
        expresses the genes of which this is more likely than not, and most genes are found in all cells or in none.
    seed
        Of the cells drawn, and of what they express.
    layer
        As in :func:`scgpt.tl.embed`. Values are generated in its units: log-normalised from log-normalised ones.
    gene_key
        As in :func:`scgpt.tl.embed`.
    gene_mapping
        As in :func:`scgpt.tl.embed`.
    max_length
        Most known tokens of a cell, see :func:`scgpt.tl.embed`; genes to generate come on top.
    precision
        As in :func:`scgpt.tl.embed`.
    progress_bar
        Show progress.

    Returns
    -------
    A new AnnData of the generated genes alone. Its cells are those of ``adata``, with their ``.obs``; or pseudo-cells
    ``<group>-<i>``, with the group in ``.obs[groupby]``. It has:

    ``.X``
        float32, what the bins stand for. The quantiles of a cell's expressed values, by which bins were made, lead back:
        a bin is its lower edge, and values between bins are interpolated. They are those of the known genes, or where
        none is known those of the cell's measured genes, for a pseudo-cell the mean over the cells that it is made after.
        Where the model does not bin, this is what the network gives.
    ``.layers["bins"]``
        float32, predicted bins, from 1 to ``n_bins - 1`` and not rounded. 0 stands for no expression: it is predicted by
        models with zeros as tokens (``include_zeros=True``). Others take every gene to be expressed; but where they have
        the heads ``zero`` and ``gepc``, genes that the cell embedding gives a probability of expression of at most 0.5
        are 0, or those that are drawn to be with ``draw``. It takes the cell to express as large a share of its genes as it does of those measured that are not to be
        generated, or from a cell alone of all.
    ``.uns["scgpt"]["X"]``
        Provenance: parameters, package version, checkpoint and its hash, the hash of the model in use.

    Where the network knows batches or conditions of cells, they are read from ``adata``; those of a pseudo-cell are those
    of the first cell that it is made after.

    Raises
    ------
    KeyError
        When a layer or column is not there, or the vocabulary lacks a gene to generate.
    ValueError
        When the network cannot generate; when there is no gene to generate, or none is known; when embeddings have another
        width or length 1; when a group has no cell; when a number is below 1; when values cannot be expression.
    FileNotFoundError
        When the checkpoint is not there.

    Examples
    --------
    >>> import scanpy as sc
    >>> import scgpt
    >>> from scgpt.model import SCGPT
    >>> adata = sc.datasets.pbmc68k_reduced()[:60].raw.to_adata()[:, -100:].copy()
    >>> SCGPT.setup_anndata(adata)
    >>> model = SCGPT(adata, n_layers=2, d_model=32, n_heads=2, n_flags=2)
    >>> model.train(max_epochs=1, objectives=["gen"], enable_progress_bar=False)
    >>> more = scgpt.tl.generate(adata[:5, :80], model=model, progress_bar=False)  # genes that these cells lack
    >>> more.shape
    (5, 20)
    >>> pseudo = scgpt.tl.generate(adata, model=model, groupby="phase", n_cells=4, progress_bar=False)
    >>> pseudo.obs["phase"].value_counts().to_dict()
    {'G1': 4, 'G2M': 4, 'S': 4}
    """
    from scgpt.data import check_anndata
    from scgpt.model import SCGPT, resolve_precision, resolve_prompt

    from ._provenance import fingerprint, genes_of, record

    check_anndata(adata)
    if not isinstance(model, SCGPT):
        model = SCGPT.from_pretrained(model)
    source = "" if embeddings is None else "given"
    if isinstance(embeddings, str):
        if embeddings not in adata.obsm:
            raise KeyError(f"There is no embedding {embeddings!r} in .obsm; there are {list(adata.obsm.keys())}.")
        source, embeddings = embeddings, adata.obsm[embeddings]
    prompt = resolve_prompt(prompt, embeddings, groupby)
    match = model.match(adata, gene_key=gene_key, gene_mapping=gene_mapping)
    generated = model.generate(
        adata,
        prompt=prompt,
        genes=genes,
        embeddings=embeddings,
        groupby=groupby,
        groups=groups,
        n_cells=n_cells,
        n_averaged=n_averaged,
        n_rounds=n_rounds,
        draw=draw,
        seed=seed,
        layer=layer,
        match=match,
        max_length=max_length,
        precision=precision,
        progress_bar=progress_bar,
    )
    record(
        generated,
        "X",
        function="scgpt.tl.generate",
        report=model.load_report,
        model_sha256=fingerprint(model),
        prompt=prompt,
        embeddings=source,
        groupby=groupby or "",
        n_cells=n_cells or 0,
        n_averaged=n_averaged,
        n_rounds=n_rounds,
        draw=draw,
        seed=seed,
        layer=model.layer_of(layer),
        max_length=model.tokenizer.max_length if max_length is None else max_length,
        precision=resolve_precision(model.device, precision),
        **genes_of(match),
    )
    return generated
