"""Scores of inferred networks of genes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from ._network_inputs import PossibleEdges, links_of, named_networks
from ._network_ranking import ranking_scores

if TYPE_CHECKING:
    import pandas as pd


def network_scores(
    networks: pd.DataFrame | Mapping[str, pd.DataFrame],
    known: pd.DataFrame | Iterable[tuple[str, str]],
    *,
    regulators: Iterable[str] | None = None,
    targets: Iterable[str] | None = None,
    n_bootstrap: int = 200,
    seed: int = 0,
) -> pd.DataFrame:
    r"""Score rankings of edges from regulators to targets by known links, as BEELINE does :cite:p:`Pratapa2020`.

    All networks are scored on the same possible edges: from each regulator to each target but itself. Known links among
    them are right, all others wrong, though many of these may be links that nobody has found yet: low scores are usual,
    and only those on the same edges compare.

    Regulators are those of known links that all networks have. Targets are all that the networks have in common,
    whether or not a link to them is known. BEELINE takes the genes that known links name, which asks nothing of a
    network about other genes: ``targets={*known["regulator"], *known["target"]}``.

    - ``AUPRC``: average precision. Edges with equal scores are taken together.
    - ``AUPRC_ratio``: the same over the share of links in possible edges, which a random ranking gets.
    - ``EPR``: early precision over that share.
    - ``early_precision``: share of links in as many of the highest edges as there are links. Of edges with equal scores
      across this boundary the expectation is taken, where BEELINE takes all of them, and leaves out those without a
      score.
    - ``AUROC``: area under the receiver operating characteristic, 0.5 by chance.
    - ``n_links``, ``n_edges``: number of known links, and of possible edges.

    Parameters
    ----------
    networks
        A network, or networks by name. One is either a matrix of scores, with regulators in ``.index`` and targets in
        ``.columns``, or a table with columns ``regulator``, ``target`` and ``score``. The higher a score, the more likely
        is the link: take absolute values where the sign says whether it activates. Edges without a score, NaN in a
        matrix and not in the table, share the last rank.
    known
        Table with columns ``regulator`` and ``target``, or pairs of them. Repeated links count once, those of a gene to
        itself not at all.
    regulators
        To score in place of those of known links, but for such that a matrix lacks. A table of edges cannot tell what it
        has no edge of, so that it leaves out nothing.
    targets
        To score in place of all, with the same exception.
    n_bootstrap
        Times to draw regulators with replacement for 95 % intervals of ``AUPRC_ratio``; 0 leaves these out.
    seed
        Of the draws.

    Returns
    -------
    A row for each network, named ``network`` where it has no name; ``AUPRC_ratio`` is followed by its ``..._low`` and
    ``..._high``.

    Raises
    ------
    KeyError
        When a table lacks a column.
    TypeError
        When a network is no DataFrame, or scores are no numbers.
    ValueError
        When no known link is a possible edge, or every one is; when names or edges are there twice, or missing.

    Examples
    --------
    >>> import pandas as pd
    >>> import scgpt
    >>> network = pd.DataFrame(  # or of scgpt.get.attention_matrix, scgpt.metrics.baselines.coexpression, ...
    ...     [[0.0, 0.9, 0.1, 0.4], [0.2, 0.0, 0.8, 0.3]],
    ...     index=["STAT1", "KLF1"],
    ...     columns=["STAT1", "KLF1", "HBB", "IRF1"],
    ... )
    >>> known = [("STAT1", "IRF1"), ("KLF1", "HBB")]  # or a table, as TRRUST
    >>> scgpt.metrics.network_scores({"mine": network}, known, n_bootstrap=0).round(2)
             AUPRC  AUPRC_ratio  EPR  early_precision  AUROC  n_links  n_edges
    network
    mine      0.58         1.75  1.5              0.5   0.75        2        6
    """
    import pandas as pd

    if n_bootstrap < 0:
        raise ValueError(f"n_bootstrap has to be 0 or more, and is {n_bootstrap}.")
    named = named_networks(networks)
    edges = PossibleEdges.of(named, links_of(known), regulators, targets)
    rows = [
        ranking_scores(edges.scores(network), edges.are_links, edges.regulator_codes, n_bootstrap, seed)
        for network in named.values()
    ]
    return pd.DataFrame(rows, index=pd.Index(list(named), name="network"))
