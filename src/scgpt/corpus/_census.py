"""A corpus from CELLxGENE Census, or any other TileDB-SOMA experiment."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from scgpt._messages import inform
from scgpt.data import GeneVocab, read_mapping

from ._assemble import Options, assemble
from ._build import read_vocab
from ._corpus import Corpus, Part

# Cells that a restart takes as finished, or does anew.
_CELLS_OF_SOURCE = 65_536


def census(
    query: str,
    out: str | Path,
    *,
    uri: str | None = None,
    version: str = "stable",
    organism: str = "homo_sapiens",
    primary: bool = True,
    held_out: str | None = None,
    exclude: Collection[str | int] = (),
    measurement: str = "RNA",
    layer: str = "raw",
    vocab: GeneVocab | str | Path | None = None,
    gene_key: str | None = "feature_name",
    gene_mapping: Mapping[str, str] | pd.Series | str | Path | None = None,
    min_genes: int = 50,
    cells_per_dataset: int = 65_536,
    seed: int = 0,
    overwrite: bool = False,
) -> Corpus:
    """Build a corpus from the cells of CELLxGENE Census that a filter lets through.

    The presets are the queries behind the authors' checkpoints (:cite:t:`Cui2024`): ``heart``, ``blood``, ``brain``,
    ``lung``, ``kidney``, ``intestine``, ``pancreas``, ``others`` and ``pan-cancer``. The authors did not ask for
    ``is_primary_data``, so that cells which several collections hold were in their corpora several times; here they are
    in once, unless ``primary=False``.

    Needs the extra ``census``. Goes on where it was ended, see :func:`build`.

    Parameters
    ----------
    query
        Name of a preset, or a filter of cells, such as ``"tissue_general == 'lung' and disease == 'COVID-19'"``.
    out
        Folder to write.
    uri
        Of another experiment; by default the census is opened.
    version
        Of the census, a date or ``stable``. ``stable`` moves on: name a date to go on with a build later.
    organism
        Of the census.
    primary
        Whether to take only cells with ``is_primary_data``.
    held_out
        Filter of cells that are for validation instead, such as ``"dataset_id == '...'"``.
    exclude
        ``soma_joinid`` of cells that must not enter the corpus.
    measurement, layer
        Where the expression is.
    vocab, gene_key, gene_mapping, min_genes, cells_per_dataset, seed, overwrite
        See :func:`build`.

    Returns
    -------
    The corpus, as of :func:`build`.

    Raises
    ------
    ImportError
        When the extra ``census`` is not installed.
    ValueError
        When the filter is neither a preset nor lets any cell through.

    Examples
    --------
    >>> import scgpt
    >>> scgpt.corpus.census("heart", "heart.zarr", version="2023-05-08")  # doctest: +SKIP
    >>> scgpt.corpus.census("tissue_general == 'lung' and disease == 'COVID-19'", "lung.zarr")  # doctest: +SKIP
    """
    value_filter = value_filter_of(query, primary)
    options = Options(
        vocab=read_vocab(vocab),
        gene_key=gene_key,
        gene_mapping=read_mapping(gene_mapping),
        min_genes=min_genes,
        cells_per_dataset=cells_per_dataset,
        seed=seed,
        on_error="raise",
        overwrite=overwrite,
    )
    with _opened(uri, version, organism) as experiment:
        cells: dict[Part, NDArray[np.int64]] = {
            "train": _joinids(experiment, value_filter),
            "held_out": np.empty(0, int),
        }
        if held_out is not None:
            cells["held_out"] = _joinids(experiment, f"({value_filter}) and ({held_out})")
            cells["train"] = np.setdiff1d(cells["train"], cells["held_out"])
        inform(f"{len(cells['train'])} cells to train on, {len(cells['held_out'])} held out: {value_filter}")
        return _assemble(experiment, cells, {str(i) for i in exclude}, measurement, layer, Path(out), options, {
            "experiment": experiment.uri, "query": value_filter, "held_out": held_out,
        })  # fmt: skip


def presets() -> dict[str, str]:
    """Return the filters of the authors' corpora."""
    return json.loads((files("scgpt.corpus") / "queries.json").read_text(encoding="utf-8"))


def value_filter_of(query: str, primary: bool) -> str:
    """Return the filter that a query stands for.

    Raises
    ------
    ValueError
        When it is neither a preset nor a filter.
    """
    known = presets()
    if query not in known and not any(sign in query for sign in ("=", "<", ">", " in ")):
        raise ValueError(f"There is no query {query!r}; there are {', '.join(known)}, or pass a filter of cells.")
    value_filter = known.get(query, query)
    return f"({value_filter}) and is_primary_data == True" if primary else value_filter


@contextmanager
def _opened(uri: str | None, version: str, organism: str) -> Iterator[Any]:
    try:
        import tiledbsoma

        if uri is None:
            import cellxgene_census
    except ImportError as error:
        raise ImportError(
            f"This needs {error.name}: pip install 'scgpt-tools[census]', in an environment of its own, since it wants "
            "an older pandas."
        ) from error
    if uri is not None:
        with tiledbsoma.Experiment.open(uri) as experiment:
            yield experiment
    else:
        with cellxgene_census.open_soma(census_version=version) as whole:
            yield whole["census_data"][organism]


def _joinids(experiment: Any, value_filter: str) -> NDArray[np.int64]:
    """Return which cells a filter lets through."""
    import tiledbsoma

    try:
        found = experiment.obs.read(value_filter=value_filter, column_names=["soma_joinid"]).concat()
    except (tiledbsoma.SOMAError, ValueError, KeyError, AttributeError, SyntaxError) as error:
        columns = [name for name in experiment.obs.keys() if not name.startswith("soma_")]
        raise ValueError(f"The filter {value_filter!r} cannot be used: {error}. Columns: {columns}.") from error
    joinids = np.sort(found["soma_joinid"].to_numpy())
    if not len(joinids):
        raise ValueError(f"No cell of {experiment.uri} passes the filter {value_filter!r}.")
    return joinids


def _assemble(
    experiment: Any,
    cells: Mapping[Part, NDArray[np.int64]],
    exclude: set[str],
    measurement: str,
    layer: str,
    out: Path,
    options: Options,
    about: Mapping[str, Any],
) -> Corpus:
    from ._soma import SomaSource

    sources: dict[Part, list[SomaSource]] = {"train": [], "held_out": []}
    excluded: dict[str, set[str]] = {}
    for part, joinids in cells.items():
        for first in range(0, len(joinids), _CELLS_OF_SOURCE):
            own = joinids[first : first + _CELLS_OF_SOURCE]
            source = SomaSource(experiment, measurement, layer, own, f"cells {own[0]} to {own[-1]}, {part}")
            sources[part].append(source)
            excluded[source.name] = exclude & set(own.astype(str))
    return assemble(sources, out, options, excluded, about)
