"""The network in plain PyTorch; needs nothing but torch."""

from ._attention import attention
from ._attention_scores import rank_normalised
from ._config import ScGPTConfig
from ._network import ScGPTNetwork
from ._output import NetworkOutput
from ._precision import has_bfloat16, layers_in
from ._start import start_at_value, start_from_genes, start_unchanged
from ._surgery import add_batches, add_genes, fix_all_but_new_batches, gather_statistics
from ._transformer import TransformerLayer

__all__ = [
    "NetworkOutput",
    "ScGPTConfig",
    "ScGPTNetwork",
    "TransformerLayer",
    "add_batches",
    "add_genes",
    "attention",
    "fix_all_but_new_batches",
    "gather_statistics",
    "has_bfloat16",
    "layers_in",
    "rank_normalised",
    "start_at_value",
    "start_from_genes",
    "start_unchanged",
]
