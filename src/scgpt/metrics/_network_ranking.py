"""How high a ranking of edges has links."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ._bootstrap import with_intervals


def ranking_scores(
    scores: NDArray[np.float64],
    are_links: NDArray[np.bool_],
    regulators: NDArray[np.intp],
    n_bootstrap: int,
    seed: int,
) -> dict[str, float]:
    """Return what :func:`~scgpt.metrics.network_scores` does of one network.

    Parameters
    ----------
    scores
        ``(n_edges,)``, NaN for the last rank.
    are_links
        ``(n_edges,)``, whether a link is known; some, and not all.
    regulators
        ``(n_edges,)`` codes.
    n_bootstrap
        Times to draw regulators.
    seed
        Of the draws.
    """
    # Edges with equal scores are of one level, the first has the highest.
    _, levels = np.unique(-np.where(np.isnan(scores), -np.inf, scores), return_inverse=True)
    edges = np.bincount(levels)
    links = np.bincount(levels[are_links], minlength=len(edges))
    share = links.sum() / edges.sum()
    auprc, early = average_precision(edges, links), early_precision(edges, links)
    out: dict[str, float] = {
        "AUPRC": auprc,
        "AUPRC_ratio": auprc / share,
        "EPR": early / share,
        "early_precision": early,
        "AUROC": auroc(edges, links),
        "n_links": int(links.sum()),
        "n_edges": int(edges.sum()),
    }
    if n_bootstrap:
        draws = _Draws(levels, are_links, regulators)
        out = with_intervals(out, draws.scores, draws.n_regulators, n_bootstrap, seed, {"AUPRC_ratio"})
    return out


def average_precision(edges: NDArray[np.number], links: NDArray[np.number]) -> float:
    """Return the mean, over links, of the share of links in edges of their level and above; NaN without links."""
    if not links.sum():
        return np.nan
    above = np.cumsum(edges, dtype=np.float64)
    precision = np.divide(np.cumsum(links), above, out=np.zeros_like(above), where=above > 0)
    return float(links @ precision / links.sum())


def early_precision(edges: NDArray[np.int_], links: NDArray[np.int_]) -> float:
    """Return the expected share of links in as many edges as there are links, in random order within a level."""
    n = links.sum()
    above = np.cumsum(edges)
    last = int(np.searchsorted(above, n))
    needed = n - (above[last] - edges[last])
    return float((links[:last].sum() + needed * links[last] / edges[last]) / n)


def auroc(edges: NDArray[np.int_], links: NDArray[np.int_]) -> float:
    """Return the share of pairs of a link and another edge in which the link is higher; of equal ones half."""
    others = edges - links
    lower = others.sum() - np.cumsum(others)
    return float(links / links.sum() @ (lower + others / 2) / others.sum())


class _Draws:
    """Scores of edges that count as often as their regulator is drawn.

    Only levels with links decide on the average precision. Others are put together with the next one that has some,
    so that a draw does not have to go through all edges.
    """

    def __init__(self, levels: NDArray[np.intp], are_links: NDArray[np.bool_], regulators: NDArray[np.intp]) -> None:
        import scipy.sparse as sp

        with_links = np.unique(levels[are_links])
        rows = np.searchsorted(with_links, levels)
        self.n_regulators = int(regulators.max()) + 1
        shape = len(with_links) + 1, self.n_regulators
        self._edges = sp.csr_array((np.ones(len(rows)), (rows, regulators)), shape=shape)
        self._links = sp.csr_array((are_links.astype(np.float64), (rows, regulators)), shape=shape)

    def scores(self, weights: NDArray[np.float64]) -> dict[str, float]:
        edges, links = self._edges @ weights, self._links @ weights
        share = links.sum() / edges.sum()
        return {"AUPRC_ratio": average_precision(edges, links) / share if share else np.nan}
