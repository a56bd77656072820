"""Edges of a network of genes, and where they put the genes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from ._colors import BLUE, VERMILLION
from ._written import written, written_table

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.axes import Axes
    from matplotlib.lines import Line2D

_CALL = "gene_similarity(adata, model)"
_COMPARED = "gene_similarity(adata, model, compare_to=...)"
# Of edges against another model, the last drawn above the others.
_CHANGES: dict[str, dict[str, Any]] = {
    "kept": {"color": "0.8", "linestyle": "-"},
    "gained": {"color": BLUE, "linestyle": "-"},
    "lost": {"color": VERMILLION, "linestyle": (0, (3, 1.2))},
}
# Points, and shades of grey.
_THIN, _THICK, _PALE, _DARK = 0.4, 2.2, 0.82, 0.4
# What holds genes without a common edge together, in the manner of a weak edge.
_PULL = 0.2


@dataclass(frozen=True)
class GeneEdges:
    """Edges between genes."""

    ends: NDArray[np.intp]
    """``(n, 2)``."""
    similarity: NDArray[np.float64]
    """``(n,)``."""
    kinds: NDArray[np.str_]
    """``(n,)``, what became of each; empty where nothing is compared."""

    @classmethod
    def of(cls, adata: AnnData, key: str, changes: bool) -> GeneEdges:
        """Read the edges, with those gained and lost if wanted."""
        matrix = sp.triu(sp.csr_matrix(written(adata.varp, key, ".varp", _CALL)), 1).tocoo()
        matrix.eliminate_zeros()
        ends = np.stack([matrix.row, matrix.col], 1).astype(np.intp)
        if not changes:
            return cls(ends, matrix.data.astype(np.float64), np.full(len(ends), ""))
        found = written(adata.uns, key, ".uns", _COMPARED)
        columns = ["gene_1", "gene_2", "change", "similarity", "similarity_before"]
        table = written_table(found, "changes", f".uns[{key!r}]", _COMPARED, columns)
        place = {name: i for i, name in enumerate(adata.var_names)}
        # Genes that were left out since have no edges.
        table = table[table["gene_1"].isin(place) & table["gene_2"].isin(place)]
        changed = np.sort([[place[name] for name in table[column]] for column in ("gene_1", "gene_2")], axis=0).T
        kinds = table["change"].astype(str).to_numpy()
        then, now = (table[column].to_numpy(dtype=np.float64) for column in ("similarity_before", "similarity"))
        kept = ~np.isin(ends @ [adata.n_vars, 1], changed @ [adata.n_vars, 1])
        return cls(
            np.concatenate([ends[kept], changed]).astype(np.intp),
            np.concatenate([matrix.data[kept], np.where(kinds == "lost", then, now)]).astype(np.float64),
            np.concatenate([np.full(kept.sum(), "kept"), kinds]),
        )

    def of_kind(self, *kinds: str) -> GeneEdges:
        """Return only these."""
        own = np.isin(self.kinds, kinds)
        return GeneEdges(self.ends[own], self.similarity[own], self.kinds[own])

    def among(self, genes: NDArray[np.intp]) -> GeneEdges:
        """Return those between these genes, whose places among them the ends become."""
        n = max(int(genes.max(initial=-1)), int(self.ends.max(initial=-1))) + 1
        place = np.full(n, -1)
        place[genes] = np.arange(len(genes))
        ends = place[self.ends]
        own = (ends >= 0).all(1)
        return GeneEdges(ends[own], self.similarity[own], self.kinds[own])

    def neighbours(self, genes: NDArray[np.intp]) -> NDArray[np.intp]:
        """Return the genes that have an edge to one of these, and are not among them."""
        touched = self.ends[np.isin(self.ends, genes).any(1)]
        return np.setdiff1d(touched, genes)

    def strengths(self, n_genes: int) -> NDArray[np.float64]:
        """Return for each gene the sum of its similarities."""
        return np.bincount(self.ends.ravel(), np.repeat(self.similarity, 2), n_genes)

    def places(self, n_genes: int) -> NDArray[np.float64]:
        """Return where the algorithm of Fruchterman and Reingold puts genes, always the same, in a square."""
        import igraph

        from scgpt.metrics._graph import igraph_seeded

        if n_genes == 1:
            return np.zeros((1, 2))
        # A gene more, not drawn, that is tied to all; without it parts of the network drift apart.
        edges = [*self.ends.tolist(), *((i, n_genes) for i in range(n_genes))]
        # By how many edges a gene has, lest those of many lie on one another.
        strengths = np.sqrt(self.strengths(n_genes))[self.ends].prod(1)
        weights = [*(self.similarity / strengths).tolist(), *[_PULL] * n_genes]
        start = np.random.default_rng(0).normal(size=(n_genes + 1, 2)) * n_genes**0.5
        graph = igraph.Graph(n_genes + 1, edges)
        with igraph_seeded(0):
            layout = graph.layout_fruchterman_reingold(weights=weights, seed=start.tolist(), niter=1000)
        places = np.array(layout.coords)[:-1]
        low, high = places.min(0), places.max(0)
        return (places - low) / np.maximum(high - low, 1e-9)

    def draw(self, ax: Axes, places: NDArray[np.float64]) -> None:
        """Draw lines between places of genes, the most similar ones last."""
        from matplotlib.collections import LineCollection

        share = self._shares()
        for zorder, kind in enumerate(("", *_CHANGES), start=1):
            own = np.flatnonzero(self.kinds == kind)
            own = own[np.argsort(self.similarity[own], kind="stable")]
            if not len(own):
                continue
            style = _CHANGES.get(kind) or {"color": [_grey(each) for each in share[own]]}
            thinnest = 0.8 if kind else _THIN  # colours are told on nothing thinner
            widths = thinnest + (_THICK - thinnest) * share[own]
            lines = LineCollection(places[self.ends[own]], linewidths=widths, zorder=1 + zorder / 10, **style)  # type: ignore[arg-type]
            lines.set_label(kind or "similarity")
            ax.add_collection(lines)

    def handles(self) -> list[Line2D]:
        """Return what explains the lines in a legend."""
        from matplotlib.lines import Line2D

        if not len(self.ends):
            return []
        if (self.kinds != "").any():
            return [
                Line2D([], [], linewidth=1.6, label=kind, **style)
                for kind, style in _CHANGES.items()
                if kind in self.kinds
            ]
        ends = {f"{self.similarity.min():.2f}": _THIN, f"{self.similarity.max():.2f}": _THICK}
        return [
            Line2D([], [], color=_grey((width - _THIN) / (_THICK - _THIN)), linewidth=width, label=f"cosine {value}")
            for value, width in ends.items()
        ]

    def _shares(self) -> NDArray[np.float64]:
        """Return where similarities lie between the lowest, 0, and the highest, 1."""
        low, high = self.similarity.min(initial=1), self.similarity.max(initial=0)
        return (self.similarity - low) / (high - low) if high > low else np.ones_like(self.similarity)


def _grey(share: float) -> str:
    return str(_PALE + (_DARK - _PALE) * share)
