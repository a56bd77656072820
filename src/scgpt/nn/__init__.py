"""The network in plain PyTorch; needs nothing but torch."""

from ._attention import attention
from ._config import ScGPTConfig
from ._network import NetworkOutput, ScGPTNetwork
from ._surgery import add_batches, fix_all_but_new_batches, gather_statistics

__all__ = [
    "NetworkOutput",
    "ScGPTConfig",
    "ScGPTNetwork",
    "add_batches",
    "attention",
    "fix_all_but_new_batches",
    "gather_statistics",
]
