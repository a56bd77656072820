"""Which variable of a data set is which gene of the vocabulary."""

from __future__ import annotations

import logging
import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ._vocab import GeneVocab, _listed

logger = logging.getLogger(__name__)

INDEX = "index"
# Where data sets usually keep gene names, in the order in which equal matches are decided.
USUAL_COLUMNS = (
    "feature_name",
    "gene_symbols",
    "gene_symbol",
    "gene_name",
    "gene_names",
    "symbol",
    "gene",
    "gene_short_name",
    "gene_ids",
    "gene_id",
    "feature_id",
    "ensembl_id",
    "ensembl",
)
_ENSEMBL = re.compile(r"(ENS[A-Z]*G\d{11})\.\d+")
# CELLxGENE tells genes of one symbol apart in this way.
_SYMBOL_WITH_ENSEMBL = re.compile(r"(.+)_ENS[A-Z]*G\d{11}")


@dataclass(frozen=True, eq=False)
class GeneMatch:
    """Which variables of a data set are which genes of a vocabulary.

    Parameters
    ----------
    token_ids
        ``(n_vars,)`` int64, id of each variable's gene, -1 where the vocabulary lacks it.
    key
        Column of ``.var`` that held the names, ``"index"`` for its index.
    matched, unmatched
        Names of the variables in either case, in the order of the variables.
    duplicated
        Vocabulary genes that several variables carry. In each cell the highest of their values stands for the gene:
        that needs neither other cells nor the order of the variables.
    """

    token_ids: NDArray[np.int64]
    key: str
    matched: tuple[str, ...]
    unmatched: tuple[str, ...]
    duplicated: tuple[str, ...]

    def __str__(self) -> str:
        n_vars = len(self.token_ids)
        text = f"{len(self.matched)} of {n_vars} genes are in the vocabulary (by .var {self.key!r})"
        if self.unmatched:
            text += f"; not there: {_listed(self.unmatched)}"
        if self.duplicated:
            text += f"; carried by several variables, highest value counts: {_listed(self.duplicated)}"
        return text


def match_genes(
    var: pd.DataFrame,
    vocab: GeneVocab,
    *,
    gene_key: str | None = None,
    gene_mapping: Mapping[str, str] | pd.Series | str | Path | None = None,
) -> GeneMatch:
    """Match the variables of a data set to the genes of a vocabulary.

    Names are matched as they are; else with an Ensembl version suffix (``.12``) or an appended Ensembl id
    (``SYMBOL_ENSG...``) stripped.

    Parameters
    ----------
    var
        ``adata.var``.
    vocab
        The model's genes.
    gene_key
        Column of ``var`` with the gene names, or ``"index"``. By default the index and the usual columns
        (``feature_name``, ``gene_symbols``, ``gene_ids``, ...) are tried, and the one with most matches is taken.
    gene_mapping
        From names in the data to names in the vocabulary, such as Ensembl ids to symbols: a mapping, a Series, or
        a CSV or TSV file whose first two columns are these. Names that it lacks are matched as they are.

    Returns
    -------
    Which variable is which gene, and a report of those that matched and did not.

    Raises
    ------
    KeyError
        When ``gene_key`` is not a column.
    ValueError
        When no gene matches.
    """
    if gene_key is not None and gene_key != INDEX and gene_key not in var:
        raise KeyError(f"gene_key={gene_key!r} is not a column of .var; there are {[INDEX, *map(str, var.columns)]}.")
    mapping = _read_mapping(gene_mapping)
    candidates = [gene_key] if gene_key else [INDEX, *(c for c in USUAL_COLUMNS if c in var)]
    ids = {key: _ids(_names(var, key), vocab, mapping) for key in candidates}
    key = max(ids, key=lambda k: int((ids[k] >= 0).sum()))  # the first of equals
    token_ids = ids[key]
    names = np.asarray(_names(var, key), dtype=object)
    found = token_ids >= 0
    if not found.any():
        raise ValueError(_no_match(var, vocab, ids, mapping is not None))
    tokens, counts = np.unique(token_ids[found], return_counts=True)
    match = GeneMatch(
        token_ids=token_ids,
        key=key,
        matched=tuple(names[found]),
        unmatched=tuple(names[~found]),
        duplicated=tuple(vocab.tokens[t] for t in tokens[counts > 1]),
    )
    logger.info("%s", match)
    if match.duplicated:
        warnings.warn(
            f"{len(match.duplicated)} genes are carried by several variables; the highest value in each cell counts: "
            f"{_listed(match.duplicated)}.",
            UserWarning,
            stacklevel=2,
        )
    return match


def _names(var: pd.DataFrame, key: str) -> list[str]:
    column = var.index if key == INDEX and INDEX not in var else var[key]
    return [str(name) for name in column]


def _ids(names: list[str], vocab: GeneVocab, mapping: Mapping[str, str] | None) -> NDArray[np.int64]:
    return vocab.ids(_token(name, vocab, mapping) for name in names)


def _token(name: str, vocab: GeneVocab, mapping: Mapping[str, str] | None) -> str:
    forms = [name]
    if match := _ENSEMBL.fullmatch(name) or _SYMBOL_WITH_ENSEMBL.fullmatch(name):
        forms.append(match[1])
    if mapping is not None:
        forms = [mapping[form] for form in forms if form in mapping] + forms
    return next((form for form in forms if form in vocab), name)


def _read_mapping(mapping: Mapping[str, str] | pd.Series | str | Path | None) -> Mapping[str, str] | None:
    if mapping is None or isinstance(mapping, Mapping):
        return mapping
    if isinstance(mapping, pd.Series):
        return {str(k): str(v) for k, v in mapping.dropna().items()}
    # Such tables come with a header or without; read as a row, a header does no harm.
    table = pd.read_csv(mapping, sep=None, engine="python", header=None, dtype=str).dropna()
    if table.shape[1] < 2:
        raise ValueError(f"{mapping} has one column; expected names in the data and names in the vocabulary.")
    # A table that names versions (ENSG00000000003.15) serves data that does not, and the other way round.
    keys = [match[1] if (match := _ENSEMBL.fullmatch(k)) else k for k in table.iloc[:, 0]]
    return dict(zip(keys, table.iloc[:, 1], strict=True))


def _no_match(var: pd.DataFrame, vocab: GeneVocab, ids: Mapping[str, NDArray[np.int64]], mapped: bool) -> str:
    names = _names(var, next(iter(ids)))
    text = (
        f"None of the {len(var)} genes is in the vocabulary. Looked at .var {list(ids)}, such as "
        f"{names[:3]}; the vocabulary has {list(vocab.genes[:3])}. "
    )
    upper = {g.upper() for g in vocab.genes}
    if any(re.match(r"ENS[A-Z]*G\d{11}", n) for n in names) and not mapped:
        return text + (
            "These are Ensembl ids: name the .var column with symbols by gene_key=..., or pass gene_mapping=, a table "
            "of Ensembl ids and symbols (from GENCODE, BioMart or scanpy.queries.biomart_annotations)."
        )
    if any(n.upper() in upper for n in names):
        return text + "They match in upper case: another species? Pass gene_mapping= from its genes to the model's."
    return text + "Name the .var column with the genes' names by gene_key=..., or pass gene_mapping=."
