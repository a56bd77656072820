"""Networks and known links, and the edges that they are compared on."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ._messages import listed

if TYPE_CHECKING:
    import pandas as pd

_LINK = ["regulator", "target"]
_EDGE = [*_LINK, "score"]
_FORMS = "a network is a matrix of scores, regulators by targets, or a table with columns regulator, target and score"


def named_networks(networks: pd.DataFrame | Mapping[str, pd.DataFrame]) -> dict[str, pd.DataFrame]:
    """Return networks by name, after a look at their form."""
    import pandas as pd

    if isinstance(networks, pd.DataFrame):
        networks = {"network": networks}
    if not isinstance(networks, Mapping):
        raise TypeError(f"networks has to be a DataFrame, or several by name, and is a {type(networks).__name__}.")
    if not networks:
        raise ValueError("There is no network to score.")
    for name, network in networks.items():
        if not isinstance(network, pd.DataFrame):
            raise TypeError(f"Network {name!r} has to be a DataFrame, and is a {type(network).__name__}: {_FORMS}.")
        if _is_table(network):
            _check_table(network, name)
        else:
            _check_matrix(network, name)
    return dict(networks)


def links_of(known: pd.DataFrame | Iterable[tuple[str, str]]) -> pd.DataFrame:
    """Return known links, each once, with names as text; none of a gene to itself."""
    import pandas as pd

    if isinstance(known, pd.DataFrame):
        if lacking := [column for column in _LINK if column not in known]:
            raise KeyError(
                f"known has no column {listed(lacking)}; it has {listed([str(column) for column in known])}. Rename those "
                "with the regulator and the target of each link."
            )
        links = known[_LINK]
    else:
        pairs = list(known)
        if any(isinstance(pair, str) or len(pair) != 2 for pair in pairs):
            raise ValueError("known has to be a table, or pairs of a regulator and a target.")
        links = pd.DataFrame(pairs, columns=_LINK)
    if missing := int(links.isna().any(axis=1).sum()):
        raise ValueError(f"{missing} of {len(links)} known links lack a name; leave them out.")
    links = links.astype(str).drop_duplicates()
    links = links[links["regulator"] != links["target"]]
    if links.empty:
        raise ValueError("known holds no link between two genes.")
    return links


@dataclass(frozen=True)
class PossibleEdges:
    """From each regulator to each target but itself.

    Parameters
    ----------
    regulators
        In alphabetical order, so that draws from them are the same in whatever order networks have them.
    targets
        In alphabetical order.
    possible
        ``(n_regulators, n_targets)``, whether they differ.
    known
        ``(n_regulators, n_targets)``, whether a link is known.
    """

    regulators: pd.Index
    targets: pd.Index
    possible: NDArray[np.bool_]
    known: NDArray[np.bool_]

    @classmethod
    def of(
        cls,
        networks: Mapping[str, pd.DataFrame],
        links: pd.DataFrame,
        regulators: Iterable[str] | None,
        targets: Iterable[str] | None,
    ) -> PossibleEdges:
        """Find those that all networks can be compared on."""
        import pandas as pd

        of_links = {what: set(links[what]) for what in _LINK}
        rows = _common(networks, "regulator", regulators)
        columns = _common(networks, "target", targets)
        kept = rows if regulators is not None else rows & of_links["regulator"]
        own, others = pd.Index(sorted(kept), dtype=str), pd.Index(sorted(columns), dtype=str)
        possible = np.ones((len(own), len(others)), dtype=np.bool_)
        itself = others.get_indexer(own)
        possible[itself >= 0, itself[itself >= 0]] = False
        known = np.zeros_like(possible)
        places = own.get_indexer(pd.Index(links["regulator"])), others.get_indexer(pd.Index(links["target"]))
        among = (places[0] >= 0) & (places[1] >= 0)
        known[places[0][among], places[1][among]] = True
        if not among.any():
            raise ValueError(_no_link(of_links, {"regulator": rows, "target": columns}))
        if known.sum() == possible.sum():
            raise ValueError(
                f"All {known.sum()} possible edges are known links, so that any ranking is right: score more targets."
            )
        return cls(own, others, possible, known)

    @property
    def are_links(self) -> NDArray[np.bool_]:
        """``(n_edges,)``."""
        return self.known[self.possible]

    @property
    def regulator_codes(self) -> NDArray[np.intp]:
        """``(n_edges,)``."""
        return np.nonzero(self.possible)[0]

    def scores(self, network: pd.DataFrame) -> NDArray[np.float64]:
        """Return ``(n_edges,)`` scores of a network, NaN for those it has none of."""
        if _is_table(network):
            rows, columns = (
                index.get_indexer(_names(network[what]))
                for index, what in ((self.regulators, "regulator"), (self.targets, "target"))
            )
            among = (rows >= 0) & (columns >= 0)
            matrix = np.full(self.possible.shape, np.nan)
            matrix[rows[among], columns[among]] = _numbers(network["score"])[among]
        else:
            rows = _names(network.index).get_indexer(self.regulators)
            columns = _names(network.columns).get_indexer(self.targets)
            matrix = _numbers(network.iloc[rows, columns])
        return matrix[self.possible]


def _is_table(network: pd.DataFrame) -> bool:
    return all(column in network for column in _EDGE)


def _check_table(network: pd.DataFrame, name: str) -> None:
    from pandas.api.types import is_numeric_dtype

    if not is_numeric_dtype(network["score"]):
        raise TypeError(f"Column score of network {name!r} is {network['score'].dtype}: make it numbers.")
    if missing := int(network[_LINK].isna().any(axis=1).sum()):
        raise ValueError(f"{missing} of {len(network)} edges of network {name!r} lack a name; leave them out.")
    repeated = network[network.duplicated(_LINK)]
    if len(repeated):
        edges = [f"{one} -> {other}" for one, other in zip(*(repeated[what] for what in _LINK), strict=True)]
        raise ValueError(f"Network {name!r} has edges twice: {listed(edges)}. Leave one score of each.")


def _check_matrix(network: pd.DataFrame, name: str) -> None:
    from pandas.api.types import is_numeric_dtype

    if any(column in network for column in _LINK):
        lacking = [column for column in _EDGE if column not in network]
        raise KeyError(
            f"Network {name!r} has no column {listed(lacking)}; it has {listed([str(column) for column in network])}. "
            f"Rename those that hold them: {_FORMS}."
        )
    for names, where in ((network.index, ".index"), (network.columns, ".columns")):
        if not names.is_unique:
            twice = sorted(set(_names(names[names.duplicated()])))
            raise ValueError(f"{where} of network {name!r} has names twice: {listed(twice)}. Leave one of each.")
    if strange := [str(column) for column, dtype in network.dtypes.items() if not is_numeric_dtype(dtype)]:
        raise TypeError(f"Network {name!r} does not hold numbers in {listed(strange)}: {_FORMS}.")


def _common(networks: Mapping[str, pd.DataFrame], what: str, given: Iterable[str] | None) -> set[str]:
    """Return the regulators or targets of all networks; of those given, where they are."""
    if isinstance(given, str):
        raise TypeError(f"{what}s has to be several names, and is {given!r}: put it into a list.")
    sets = [] if given is None else [{str(name) for name in given}]
    for network in networks.values():
        if not _is_table(network):
            sets.append(set(_names(network.index if what == "regulator" else network.columns)))
        elif given is None:
            sets.append(set(_names(network[what].unique())))
    common = set.intersection(*sets)
    if not common:
        problem = (
            f"There is no {what} that all networks have" if given is None else f"No given {what} is in all matrices"
        )
        raise ValueError(f"{problem}: write the names of genes alike everywhere.")
    return common


def _no_link(of_links: Mapping[str, set[str]], of_networks: Mapping[str, set[str]]) -> str:
    """Say what may be wrong where no known link is a possible edge."""
    found = {what: len(of_links[what] & of_networks[what]) for what in _LINK}
    folded = {
        what: len({name.casefold() for name in of_links[what]} & {name.casefold() for name in of_networks[what]})
        for what in _LINK
    }
    parts = [f"{found[what]} of {len(of_links[what])} {what}s" for what in _LINK]
    message = f"No known link is among the edges to be scored, which have {' and '.join(parts)} of known links."
    if any(folded[what] > found[what] for what in _LINK):
        message += (
            f" In upper case there would be {folded['regulator']} and {folded['target']}: symbols of mouse and human "
            "genes differ in case; write them alike, as by known['target'].str.upper()."
        )
    return message


def _names(names: Any) -> pd.Index:
    import pandas as pd

    return pd.Index(names).astype(str)


def _numbers(values: pd.DataFrame | pd.Series) -> NDArray[np.float64]:
    return values.to_numpy(dtype=np.float64, na_value=np.nan)
