"""Tables and graphs of what the verbs have written, in the manner of ``scanpy.get``."""

from typing import TYPE_CHECKING

from scgpt._lazy import lazy

if TYPE_CHECKING:
    from ._attention import attention_matrix, attention_targets
    from ._gene_network import gene_edges, gene_graph, gene_neighbors

__all__ = ["attention_matrix", "attention_targets", "gene_edges", "gene_graph", "gene_neighbors"]
__getattr__, __dir__ = lazy(
    __name__,
    {
        "attention_matrix": "._attention",
        "attention_targets": "._attention",
        "gene_edges": "._gene_network",
        "gene_graph": "._gene_network",
        "gene_neighbors": "._gene_network",
    },
)
