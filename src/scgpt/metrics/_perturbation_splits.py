"""Which perturbations are trained on, and which are held out."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from ._columns import named_codes_of
from ._messages import listed
from ._perturbations import PERTURBATION_KEY, canonical_name, canonical_names, perturbed_by

if TYPE_CHECKING:
    from anndata import AnnData

type Part = Literal["train", "validation", "test"]
_PARTS = ("train", "validation", "test")


@dataclass(frozen=True)
class PerturbationSplit:
    """Perturbations for training, validation and test.

    Made by :meth:`by_perturbation` or :meth:`simulation`, of lists of names by :meth:`from_names`, or read by
    :meth:`load`. Control cells are in all parts: they are what methods predict from, and what scores compare with.

    Parameters
    ----------
    train
        Names of perturbations, with their genes in alphabetical order.
    validation
        Names of others, to choose settings on.
    test
        Names of others, to report.
    groups
        The names in ``test`` by what training saw of their genes: ``unseen_single`` for single genes, and for pairs
        ``unseen_double_seen0``, ``..._seen1`` and ``..._seen2`` by how many of the two some perturbation in ``train``
        perturbs, alone or with others; ``unseen_multiple`` for more genes than two. Groups without names are not there.
    settings
        How it was made: ``kind``, ``control`` and ``sep``, and for random splits ``seed``, ``test_size`` and
        ``validation_size``.

    Raises
    ------
    ValueError
        When a name stands in two places, or is not written with its genes in order.

    Examples
    --------
    >>> import anndata
    >>> import pandas as pd
    >>> from scgpt.metrics import PerturbationSplit
    >>> names = ["control", "A", "B", "C", "D", "A+B", "C+D", "A+C", "B+D"]
    >>> adata = anndata.AnnData(obs=pd.DataFrame({"perturbation": names}, index=names))
    >>> split = PerturbationSplit.simulation(adata.obs["perturbation"].unique())
    >>> {group: len(names) for group, names in split.groups.items()}
    {'unseen_double_seen0': 1, 'unseen_double_seen1': 1, 'unseen_single': 1}
    >>> train, test = adata[split.cells(adata, "train")], adata[split.cells(adata, "test")]
    >>> set(train.obs_names) & set(test.obs_names)
    {'control'}
    """

    train: tuple[str, ...]
    validation: tuple[str, ...]
    test: tuple[str, ...]
    groups: Mapping[str, tuple[str, ...]]
    settings: Mapping[str, str | int | float]

    def __post_init__(self) -> None:
        if absent := {"kind", "control", "sep"} - set(self.settings):
            raise ValueError(f"The settings of a split have to hold {sorted(absent)}.")
        names = [*self.train, *self.validation, *self.test]
        if twice := sorted(name for name, times in Counter(names).items() if times > 1):
            raise ValueError(f"Of the names in a split, these stand there twice: {listed(twice)}.")
        if wrong := [name for name in names if self._canonical(name) != name or name == self.control]:
            raise ValueError(f"In a split, these are control or do not have their genes in order: {listed(wrong)}.")
        if sorted(name for group in self.groups.values() for name in group) != sorted(self.test):
            raise ValueError("The groups of a split have to hold each name in test once, and no others.")

    @classmethod
    def by_perturbation(
        cls,
        names: Iterable[str],
        *,
        test_size: float = 0.25,
        validation_size: float = 0.1,
        seed: int = 0,
        control: str = "control",
        sep: str = "+",
    ) -> PerturbationSplit:
        """Draw perturbations at random, single genes and combinations alike.

        A gene whose perturbation is held out may be part of a combination in training; where it must not,
        :meth:`simulation` holds out genes.

        Parameters
        ----------
        names
            Of all perturbations, in any order; control among them is left out.
        test_size
            Share of the perturbations for the test: at least one, and none for 0.
        validation_size
            Share for validation, in the same way.
        seed
            The parts are a function of it and of the names alone.
        control
            Label of control cells.
        sep
            Between the genes of one perturbation.

        Returns
        -------
        The split.

        Raises
        ------
        ValueError
            When a name is given twice, is missing or makes no sense, or nothing is left for training.

        Examples
        --------
        >>> from scgpt.metrics import PerturbationSplit
        >>> split = PerturbationSplit.by_perturbation(
        ...     ["control", "A", "B", "C", "A+B", "B+C"], test_size=0.4, validation_size=0
        ... )
        >>> len(split.train), len(split.validation), len(split.test)
        (3, 0, 2)
        """
        everything = _shuffled(_perturbations(names, control, sep), seed)
        n_test, n_validation = (_number(len(everything), size) for size in _sizes(test_size, validation_size))
        return cls._of(
            everything[n_test + n_validation :],
            everything[n_test : n_test + n_validation],
            everything[:n_test],
            _settings("by_perturbation", control, sep, seed, test_size, validation_size),
        )

    @classmethod
    def simulation(
        cls,
        names: Iterable[str],
        *,
        test_size: float = 0.25,
        validation_size: float = 0.1,
        seed: int = 0,
        control: str = "control",
        sep: str = "+",
    ) -> PerturbationSplit:
        """Hold out genes, as the split that GEARS calls ``simulation`` :cite:p:`Roohani2024`.

        A share of the genes is held out: for the test are all perturbations of one of them, alone or with others, and
        of the combinations of other genes the same share. Of what is left, validation is held out in the same way. The
        default shares are those of GEARS; the genes drawn are not, so that results of the two should not be compared
        by seed.

        Unlike there, ``groups`` count a gene as seen where training, without validation, has a perturbation of it.

        Parameters
        ----------
        names
            As in :meth:`by_perturbation`.
        test_size
            Share of the genes, and of the combinations of other genes, for the test: at least one gene, and none for 0.
        validation_size
            Share of those left for validation, in the same way.
        seed
            As in :meth:`by_perturbation`.
        control
            As in :meth:`by_perturbation`.
        sep
            As in :meth:`by_perturbation`.

        Returns
        -------
        The split.

        Raises
        ------
        ValueError
            As :meth:`by_perturbation`.

        Examples
        --------
        >>> from scgpt.metrics import PerturbationSplit
        >>> split = PerturbationSplit.simulation(["A", "B", "C", "D", "A+B", "C+D"], test_size=0.25, validation_size=0)
        >>> [name for name in split.train if set(name.split("+")) & set(split.groups["unseen_single"])]
        []
        """
        genes_of = {name: perturbed_by(name, control=control, sep=sep) for name in _perturbations(names, control, sep)}
        left = _shuffled(genes_of, seed)
        genes = _shuffled({gene for parts in genes_of.values() for gene in parts}, seed)
        parts = []
        for size in _sizes(test_size, validation_size):
            n_genes = _number(len(genes), size)
            held, genes = set(genes[:n_genes]), genes[n_genes:]
            combined = [name for name in left if len(genes_of[name]) > 1 and held.isdisjoint(genes_of[name])]
            also = set(combined[: round(size * len(combined))])
            parts.append([name for name in left if name in also or not held.isdisjoint(genes_of[name])])
            left = [name for name in left if name not in set(parts[-1])]
        test, validation = parts
        return cls._of(left, validation, test, _settings("simulation", control, sep, seed, test_size, validation_size))

    @classmethod
    def from_names(
        cls,
        train: Iterable[str],
        validation: Iterable[str] = (),
        test: Iterable[str] = (),
        *,
        control: str = "control",
        sep: str = "+",
    ) -> PerturbationSplit:
        """Take a split that was made elsewhere.

        Parameters
        ----------
        train
            Names of perturbations; control among them is left out.
        validation
            Names of others.
        test
            Names of others.
        control
            Label of control cells.
        sep
            Between the genes of one perturbation.

        Returns
        -------
        The split; ``groups`` are those of its test.

        Raises
        ------
        ValueError
            When a name is given twice, is missing or makes no sense.

        Examples
        --------
        >>> from scgpt.metrics import PerturbationSplit
        >>> split = PerturbationSplit.from_names(train=["A", "B"], test=["B+A", "C"])
        >>> split.groups
        {'unseen_double_seen2': ('A+B',), 'unseen_single': ('C',)}
        """
        train, validation, test = (_perturbations(names, control, sep) for names in (train, validation, test))
        return cls._of(train, validation, test, {"kind": "from_names", "control": control, "sep": sep})

    @classmethod
    def _of(
        cls,
        train: Collection[str],
        validation: Collection[str],
        test: Collection[str],
        settings: Mapping[str, str | int | float],
    ) -> PerturbationSplit:
        if not train:
            raise ValueError("Nothing is left for training: give more perturbations, or hold out smaller shares.")
        control, sep = str(settings["control"]), str(settings["sep"])
        seen = {gene for name in train for gene in perturbed_by(name, control=control, sep=sep)}
        groups: dict[str, tuple[str, ...]] = {}
        for name in sorted(test):
            genes = perturbed_by(name, control=control, sep=sep)
            kind = {1: "unseen_single", 2: f"unseen_double_seen{sum(gene in seen for gene in genes)}"}
            group = kind.get(len(genes), "unseen_multiple")
            groups[group] = (*groups.get(group, ()), name)
        return cls(
            train=tuple(sorted(train)),
            validation=tuple(sorted(validation)),
            test=tuple(sorted(test)),
            groups=dict(sorted(groups.items())),
            settings=settings,
        )

    @property
    def control(self) -> str:
        """Label of control cells."""
        return str(self.settings["control"])

    def _canonical(self, name: str) -> str:
        return canonical_name(name, self.control, str(self.settings["sep"]))

    def of(
        self, adata: AnnData, perturbation_key: str = PERTURBATION_KEY, *, allow_unknown: bool = False
    ) -> NDArray[np.str_]:
        """Return the part that each cell is in.

        Parameters
        ----------
        adata
            Cells.
        perturbation_key
            Column of ``.obs`` with the perturbations.
        allow_unknown
            Cells may be of perturbations that the split does not name; else they are an error.

        Returns
        -------
        ``(n_obs,)`` text: ``"train"``, ``"validation"``, ``"test"``, ``"control"`` for control cells, which are in all
        parts, and ``""`` for cells of unknown perturbations.

        Raises
        ------
        KeyError
            When the column is not there.
        ValueError
            When cells have no perturbation, or one that is unknown.

        Examples
        --------
        >>> import anndata
        >>> import pandas as pd
        >>> from scgpt.metrics import PerturbationSplit
        >>> obs = pd.DataFrame({"perturbation": ["control", "A", "B+A"]}, index=["a", "b", "c"])
        >>> split = PerturbationSplit.from_names(train=["A"], test=["A+B"])
        >>> split.of(anndata.AnnData(obs=obs)).tolist()
        ['control', 'train', 'test']
        """
        codes, given = named_codes_of(adata, perturbation_key, "perturbation")
        part_of = {name: part for part in _PARTS for name in getattr(self, part)} | {self.control: "control"}
        parts = [part_of.get(self._canonical(name), "") for name in given]
        if not allow_unknown and "" in parts:
            unknown = [name for name, part in zip(given, parts, strict=True) if not part]
            raise ValueError(
                f"{len(unknown)} perturbations in .obs[{perturbation_key!r}] are in no part of the split: "
                f"{listed(unknown)}. Leave their cells out, or pass allow_unknown=True."
            )
        return np.array(parts, dtype=str)[codes]

    def cells(
        self,
        adata: AnnData,
        part: Part,
        perturbation_key: str = PERTURBATION_KEY,
        *,
        allow_unknown: bool = False,
    ) -> NDArray[np.bool_]:
        """Return which cells are in a part, control cells included.

        Parameters
        ----------
        adata
            Cells.
        part
            Which part.
        perturbation_key
            As in :meth:`of`.
        allow_unknown
            As in :meth:`of`; such cells are in no part.

        Returns
        -------
        ``(n_obs,)`` bool.

        Raises
        ------
        KeyError
            As :meth:`of`.
        ValueError
            As :meth:`of`, and when there is no such part.

        Examples
        --------
        >>> import anndata
        >>> import pandas as pd
        >>> from scgpt.metrics import PerturbationSplit
        >>> obs = pd.DataFrame({"perturbation": ["control", "A", "B+A"]}, index=["a", "b", "c"])
        >>> split = PerturbationSplit.from_names(train=["A"], test=["A+B"])
        >>> split.cells(anndata.AnnData(obs=obs), "train").tolist()
        [True, True, False]
        """
        if part not in _PARTS:
            raise ValueError(f"part has to be one of {list(_PARTS)}, and is {part!r}.")
        return np.isin(self.of(adata, perturbation_key, allow_unknown=allow_unknown), [part, "control"])

    def save(self, path: str | Path) -> None:
        """Write it as JSON, the same text for the same split."""
        Path(path).write_text(json.dumps(asdict(self), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: str | Path) -> PerturbationSplit:
        """Read what :meth:`save` wrote.

        Raises
        ------
        FileNotFoundError
            When the file is not there.
        ValueError
            When it holds no split.

        Examples
        --------
        >>> from scgpt.metrics import PerturbationSplit
        >>> PerturbationSplit.from_names(train=["A"], test=["A+B"]).save("split.json")
        >>> PerturbationSplit.load("split.json").test
        ('A+B',)
        """
        try:
            stored = json.loads(Path(path).read_text(encoding="utf-8"))
            return cls(
                train=tuple(map(str, stored["train"])),
                validation=tuple(map(str, stored["validation"])),
                test=tuple(map(str, stored["test"])),
                groups={group: tuple(map(str, names)) for group, names in stored["groups"].items()},
                settings=dict(stored["settings"]),
            )
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise ValueError(f"{path} holds no split of perturbations: {error}") from error


def _perturbations(names: Iterable[str], control: str, sep: str) -> list[str]:
    """Return canonical names, sorted, without control."""
    return sorted(name for name in canonical_names(names, control, sep, "perturbations") if name != control)


def _settings(
    kind: str, control: str, sep: str, seed: int, test_size: float, validation_size: float
) -> dict[str, str | int | float]:
    return {
        "kind": kind,
        "control": control,
        "sep": sep,
        "seed": seed,
        "test_size": test_size,
        "validation_size": validation_size,
    }


def _sizes(test_size: float, validation_size: float) -> tuple[float, float]:
    if not (0 <= test_size < 1 and 0 <= validation_size < 1):
        raise ValueError(
            f"test_size and validation_size have to be shares from 0 to below 1, and are {test_size} and "
            f"{validation_size}."
        )
    return test_size, validation_size


def _number(n: int, share: float) -> int:
    return max(round(n * share), 1) if share else 0


def _shuffled(names: Iterable[str], seed: int) -> list[str]:
    """Return names in an order that a hash makes of each: no other name, and no generator, has a say."""

    def place(name: str) -> bytes:
        return hashlib.blake2b(f"{seed}\n{name}".encode(), digest_size=16).digest()

    return sorted(names, key=place)
