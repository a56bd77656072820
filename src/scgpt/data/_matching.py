"""Which variable of a data set is which gene of the vocabulary."""

from __future__ import annotations

import logging
import re
import warnings
import zlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from scgpt._messages import listed, warn_user

from ._arguments import check_name
from ._vocab import GeneVocab

logger = logging.getLogger(__name__)

INDEX = "index"
# Where data sets usually keep gene names, in small letters, in the order in which equal matches are decided.
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
    "features",
    "_index",
)
_ENSEMBL = re.compile(r"(ENS[A-Z]*G\d{11})\.\d+")
_IS_ENSEMBL = re.compile(r"ENS[A-Z]*G\d{11}")
_FEW = 0.1
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

    Examples
    --------
    >>> import pandas as pd
    >>> from scgpt.data import GeneVocab, match_genes
    >>> match = match_genes(pd.DataFrame(index=["CD79A", "XIST"]), GeneVocab.from_genes(["CD3D", "CD79A"]))
    >>> match.n_genes, match.key, match.unmatched
    (1, 'index', ('XIST',))
    """

    token_ids: NDArray[np.int64]
    key: str
    matched: tuple[str, ...]
    unmatched: tuple[str, ...]
    duplicated: tuple[str, ...]

    @property
    def n_genes(self) -> int:
        """How many genes of the vocabulary the data set has."""
        return len(np.unique(self.token_ids[self.token_ids >= 0]))

    def within(self, token_ids: NDArray[np.int64]) -> GeneMatch:
        """Return the match to some genes of the vocabulary alone."""
        found, kept = self.token_ids >= 0, np.isin(self.token_ids, token_ids[token_ids >= 0])
        names = np.empty(len(found), dtype=object)
        names[found], names[~found] = self.matched, self.unmatched
        return replace(
            self,
            token_ids=np.where(kept, self.token_ids, -1),
            matched=tuple(names[kept]),
            unmatched=tuple(names[~kept]),
        )

    def __str__(self) -> str:
        n_vars = len(self.token_ids)
        text = f"{len(self.matched)} of {n_vars} genes are in the vocabulary (by .var {self.key!r})"
        if self.unmatched:
            text += f"; not there: {listed(self.unmatched)}"
        if self.duplicated:
            text += f"; carried by several variables, highest value counts: {listed(self.duplicated)}"
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
        When no gene matches, or few of those whose names are Ensembl ids, by a vocabulary of symbols: the few would pass
        for the cell.

    Warns
    -----
    UserWarning
        When fewer than a tenth match of those that could (the genes of the smaller of the two), or several variables
        carry one gene.

    Examples
    --------
    >>> import pandas as pd
    >>> from scgpt.data import GeneVocab, match_genes
    >>> vocab = GeneVocab.from_genes(["CD3D", "CD79A"])
    >>> var = pd.DataFrame({"symbol": ["CD79A", "CD3D", "XIST"]}, index=["cd79a", "cd3d", "xist"])
    >>> match = match_genes(var, vocab)
    >>> match.key, match.token_ids.tolist(), match.matched, match.unmatched
    ('symbol', [1, 0, -1], ('CD79A', 'CD3D'), ('XIST',))
    >>> ensembl = pd.DataFrame(index=["ENSG00000105369.10", "ENSG00000167286.9"])
    >>> symbols = {"ENSG00000105369": "CD79A", "ENSG00000167286": "CD3D"}
    >>> match_genes(ensembl, vocab, gene_mapping=symbols).token_ids.tolist()
    [1, 0]
    """
    mapping = read_mapping(gene_mapping)
    ids = {key: ids_of(gene_names(var, key), vocab, mapping) for key in name_keys(var, gene_key)}
    key, token_ids = best_match(ids)
    names = np.asarray(gene_names(var, key), dtype=object)
    found = token_ids >= 0
    if not found.any() or _takes_ids_for_symbols(names, found, vocab):
        raise ValueError(_no_match(var, vocab, ids, int(found.sum()), mapping is not None))
    tokens, counts = np.unique(token_ids[found], return_counts=True)
    match = GeneMatch(
        token_ids=token_ids,
        key=key,
        matched=tuple(names[found]),
        unmatched=tuple(names[~found]),
        duplicated=tuple(vocab.tokens[t] for t in tokens[counts > 1]),
    )
    logger.info("%s", match)
    if found.sum() < _FEW * min(len(names), len(vocab.genes)):
        warn_user(
            f"Only {found.sum()} of {len(names)} genes are in the vocabulary of {len(vocab.genes)} (by .var {key!r}), and all "
            "rests on these. If the names are of another kind or species, gene_key= names another column, and gene_mapping= "
            f"a table. Not there: {listed(match.unmatched)}."
        )
    if match.duplicated:
        warn_user(
            f"{len(match.duplicated)} genes are carried by several variables; the highest value in each cell counts: "
            f"{listed(match.duplicated)}."
        )
    return match


def name_keys(var: pd.DataFrame, gene_key: str | None = None) -> list[str]:
    """Return where gene names are looked for: the column that is named, or the index and the usual columns."""
    check_name(gene_key, "gene_key")
    if gene_key is not None and gene_key != INDEX and gene_key not in var:
        raise KeyError(f"gene_key={gene_key!r} is not a column of .var; there are {[INDEX, *map(str, var.columns)]}.")
    if gene_key:
        return [gene_key]
    columns = [c for c in var.columns if isinstance(c, str) and c.lower() in USUAL_COLUMNS]
    return [INDEX, *sorted(columns, key=lambda column: USUAL_COLUMNS.index(column.lower()))]


def best_match(ids: Mapping[str, NDArray[np.int64]]) -> tuple[str, NDArray[np.int64]]:
    """Return the key under which most names are known, the first of equals, and the ids under it."""
    return max(ids.items(), key=lambda item: int((item[1] >= 0).sum()))


def in_memory(var: Any) -> pd.DataFrame:
    """Return the variables of a data set, also of one that was read lazily."""
    return var if isinstance(var, pd.DataFrame) else var.to_memory()


def gene_names(var: pd.DataFrame, key: str) -> list[str]:
    """Return the name of each variable's gene, empty where it has none."""
    column = var.index if key == INDEX else var[key]
    return ["" if missing else str(name) for name, missing in zip(column, pd.isna(column), strict=True)]


def own_names(
    var: pd.DataFrame,
    gene_key: str | None = None,
    gene_mapping: Mapping[str, str] | pd.Series | str | Path | None = None,
) -> list[str]:
    """Return what a vocabulary that is made of these variables calls their genes; empty where one has no name.

    They are the names of a column, by default of the index, renamed by the mapping. Ensembl ids lose their version, so
    that data sets with other versions know them again.

    Raises
    ------
    KeyError
        When ``gene_key`` is not a column.
    """
    mapping = read_mapping(gene_mapping) or {}
    (key,) = name_keys(var, gene_key or INDEX)
    forms = [(name, match[1] if (match := _ENSEMBL.fullmatch(name)) else name) for name in gene_names(var, key)]
    return [mapping.get(name, mapping.get(unversioned, unversioned)) for name, unversioned in forms]


def ids_of(names: list[str], vocab: GeneVocab, mapping: Mapping[str, str] | None) -> NDArray[np.int64]:
    return vocab.ids(_token(name, vocab, mapping) for name in names)


def _token(name: str, vocab: GeneVocab, mapping: Mapping[str, str] | None) -> str:
    return next((form for form in name_forms(name, mapping) if form in vocab), name)


def name_forms(name: str, mapping: Mapping[str, str] | None) -> list[str]:
    """Return what a gene may be called in a vocabulary, the likeliest first."""
    forms = [name]
    if match := _ENSEMBL.fullmatch(name) or _SYMBOL_WITH_ENSEMBL.fullmatch(name):
        forms.append(match[1])
    if mapping is not None:
        forms = [mapping[form] for form in forms if form in mapping] + forms
    return forms


def read_mapping(mapping: Mapping[str, str] | pd.Series | str | Path | None) -> Mapping[str, str] | None:
    if mapping is None:
        return None
    if isinstance(mapping, str | Path):
        mapping = _read_table(mapping)
    elif isinstance(mapping, pd.Series):
        mapping = mapping.dropna()
    elif not isinstance(mapping, Mapping):
        raise TypeError(f"gene_mapping must be a mapping, a Series, or the path of a table, not {mapping!r}.")
    names = {str(k): str(v) for k, v in mapping.items()}
    # A table that names versions (ENSG00000000003.15) serves data that does not, and the other way round.
    return {match[1]: v for k, v in names.items() if (match := _ENSEMBL.fullmatch(k))} | names


def _read_table(path: str | Path) -> pd.Series:
    if not Path(path).is_file():  # pandas would take an address for a file to download
        raise FileNotFoundError(f"gene_mapping={str(path)!r} is not a file.")
    for sep in "\t,":
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", pd.errors.ParserWarning)  # of further columns, which tell us nothing
                # Such tables come with a header or without; read as a row, a header does no harm.
                table = pd.read_csv(
                    path,
                    sep=sep,
                    header=None,
                    names=[0, 1],
                    index_col=False,
                    dtype=str,
                    engine="python",
                    on_bad_lines=lambda fields: fields[:2],
                )
        except (ValueError, EOFError, OSError, zlib.error) as error:  # of pandas, and of compressed files
            reason = " ".join(str(error).split())
            raise ValueError(f"{path} is no table of names in the data and in the vocabulary ({reason}).") from None
        if table[1].notna().any():
            return table.dropna().set_index(0)[1]
    raise ValueError(f"{path} has one column; expected names in the data and names in the vocabulary.")


def _takes_ids_for_symbols(names: NDArray[np.object_], found: NDArray[np.bool_], vocab: GeneVocab) -> bool:
    """Whether data name genes by Ensembl ids and a vocabulary by symbols, but for those few that have none."""
    return _share_of_ids(names) > 0.5 and 2 * int(found.sum()) < len(found) and _share_of_ids(vocab.genes) < 0.5


def _share_of_ids(names: Collection[str]) -> float:
    return sum(_IS_ENSEMBL.match(name) is not None for name in names) / max(len(names), 1)


def _no_match(
    var: pd.DataFrame, vocab: GeneVocab, ids: Mapping[str, NDArray[np.int64]], n_found: int, mapped: bool
) -> str:
    names = gene_names(var, next(iter(ids)))
    text = (
        f"{f'Only {n_found}' if n_found else 'None'} of the {len(var)} genes {'are' if n_found > 1 else 'is'} in the "
        f"vocabulary. Looked at .var {list(ids)}, such as {[name[:50] for name in names[:3]]}; the vocabulary has "
        f"{list(vocab.genes[:3])}. "
    )
    upper = {g.upper() for g in vocab.genes}
    if any(_IS_ENSEMBL.match(n) for n in names) and not mapped:
        return text + (
            "These are Ensembl ids: name the .var column with symbols by gene_key=..., or pass gene_mapping=, a table "
            "of Ensembl ids and symbols (from GENCODE, BioMart or scanpy.queries.biomart_annotations)."
        )
    if not n_found and any(n.upper() in upper for n in names):
        return text + "They match in upper case: another species? Pass gene_mapping= from its genes to the model's."
    return text + "Name the .var column with the genes' names by gene_key=..., or pass gene_mapping=."
