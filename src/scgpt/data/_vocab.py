"""The genes that a model knows."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from scgpt._json import read_object
from scgpt._messages import listed

PAD, CLS, EOC = "<pad>", "<cls>", "<eoc>"
SPECIAL_TOKENS = (PAD, CLS, EOC)


class GeneVocab(Mapping[str, int]):
    """Tokens of a model, genes and the special ones, and their ids.

    Parameters
    ----------
    tokens
        Tokens in the order of their ids, each once. ``<cls>`` must be among them.

    Raises
    ------
    ValueError
        When a token stands twice or ``<cls>`` is missing.

    Examples
    --------
    >>> from scgpt.data import GeneVocab
    >>> vocab = GeneVocab.from_genes(["CD3D", "CD79A"])
    >>> vocab["CD79A"], len(vocab), vocab.genes
    (1, 5, ('CD3D', 'CD79A'))
    >>> vocab.ids(["CD79A", "no gene"]).tolist()
    [1, -1]
    >>> vocab.save("vocab.json")
    >>> GeneVocab.load("vocab.json") == vocab
    True
    """

    def __init__(self, tokens: Iterable[str]):
        self.tokens = tuple(tokens)
        self._ids = {token: i for i, token in enumerate(self.tokens)}
        if len(self._ids) < len(self.tokens):
            twice = sorted(_repeated(self.tokens))
            raise ValueError(
                f"A vocabulary holds every token once, but {len(twice)} stand twice: {listed(twice)}. "
                "Use GeneVocab.from_genes to keep the first of each."
            )
        if CLS not in self._ids:
            raise ValueError(f"The vocabulary lacks {CLS!r}; use GeneVocab.from_genes to add the special tokens.")

    @classmethod
    def from_genes(cls, genes: Iterable[str]) -> GeneVocab:
        """Build from gene names, each kept once in the order given, with the special tokens after them.

        Raises
        ------
        ValueError
            When there is no gene.
        """
        names = [g for g in dict.fromkeys(str(g) for g in genes) if g not in SPECIAL_TOKENS]
        if not names:
            raise ValueError("No gene to build a vocabulary from.")
        return cls([*names, *SPECIAL_TOKENS])

    @classmethod
    def load(cls, path: str | Path) -> GeneVocab:
        """Read a ``vocab.json``, the authors' or ours: one object that maps tokens to ids.

        Raises
        ------
        FileNotFoundError
            When there is no such file.
        ValueError
            When it is not such an object, or the ids are not ``0 .. n - 1``.
        """
        path = Path(path)
        ids = read_object(path)
        if not all(type(i) is int for i in ids.values()):
            raise ValueError(f"{path} is not a vocabulary: expected one JSON object of tokens and whole-number ids.")
        ordered = sorted(ids, key=ids.__getitem__)
        if [ids[token] for token in ordered] != list(range(len(ids))):
            raise ValueError(f"The ids in {path} are not 0 .. {len(ids) - 1}, each once.")
        return cls(ordered)

    def save(self, path: str | Path) -> None:
        """Write a ``vocab.json`` that :meth:`load` and the authors' code read."""
        Path(path).write_text(json.dumps(self._ids, ensure_ascii=False, indent=1), encoding="utf-8")

    def __getitem__(self, token: str) -> int:
        return self._ids[token]

    def __iter__(self) -> Iterator[str]:
        return iter(self.tokens)

    def __len__(self) -> int:
        return len(self.tokens)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, GeneVocab) and self.tokens == other.tokens

    def __hash__(self) -> int:
        return hash(self.tokens)

    def __repr__(self) -> str:
        return f"GeneVocab of {len(self.genes)} genes and {len(self) - len(self.genes)} special tokens"

    @property
    def genes(self) -> tuple[str, ...]:
        """Tokens that are not special."""
        return tuple(t for t in self.tokens if t not in SPECIAL_TOKENS)

    @property
    def cls_id(self) -> int:
        """Id of ``<cls>``."""
        return self._ids[CLS]

    def ids(self, tokens: Iterable[str]) -> NDArray[np.int64]:
        """Return the id of each token, -1 where the vocabulary lacks it; special tokens count as lacking."""
        known = self._ids
        return np.fromiter((-1 if t in SPECIAL_TOKENS else known.get(t, -1) for t in tokens), dtype=np.int64)


def _repeated(names: Iterable[str]) -> set[str]:
    seen: set[str] = set()
    return {n for n in names if n in seen or seen.add(n)}  # type: ignore[func-returns-value]
