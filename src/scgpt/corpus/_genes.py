"""A vocabulary from the files themselves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from scgpt.data import GeneVocab, own_names

from ._sources import BadFile, Source


class Errors(Protocol):
    """What becomes of a :class:`BadFile`."""

    def of(self, source: Source) -> AbstractContextManager[None]:
        """Raise it, or note it."""
        ...


def union_vocab(
    sources: Sequence[Source], gene_key: str | None, mapping: Mapping[str, str] | None, errors: Errors
) -> GeneVocab:
    """Return the genes of all sources, in alphabetical order.

    Parameters
    ----------
    sources
        Where the cells come from; of several each has to share a gene with another.
    gene_key
        Column of ``.var`` with the names, by default its index.
    mapping
        From these to other names.
    errors
        What becomes of sources that cannot be read, or share no gene.
    """
    code_of: dict[str, int] = {}
    codes: dict[str, NDArray[np.int32]] = {}
    for source in sources:
        with errors.of(source):
            var = source.var()
            if gene_key is not None and gene_key != "index" and gene_key not in var:
                raise BadFile(f"{source.name}: gene_key={gene_key!r} is not a column of .var; there are {list(var)}.")
            names = sorted({name for name in own_names(var, gene_key, mapping) if name})
            codes[source.name] = np.array([code_of.setdefault(name, len(code_of)) for name in names], np.int32)
    in_files = np.bincount(np.concatenate([*codes.values(), []]).astype(np.int64), minlength=len(code_of))
    known = list(code_of)
    taken = np.zeros(len(known), bool)
    for source in sources:
        if source.name in codes:
            own = codes[source.name]
            with errors.of(source):
                if len(codes) > 1 and not (in_files[own] > 1).any():
                    raise BadFile(
                        f"{source.name} shares no gene with any other file; it names them "
                        f"{[known[i] for i in own[:3]]}. Pass a vocabulary, or bring the names of all to one kind by "
                        "gene_mapping=."
                    )
                taken[own] = True
    return GeneVocab.from_genes(sorted(name for name, is_taken in zip(known, taken, strict=True) if is_taken))
