"""The network in plain PyTorch; needs nothing but torch."""

from ._attention import attention
from ._config import ScGPTConfig
from ._network import NetworkOutput, ScGPTNetwork

__all__ = ["NetworkOutput", "ScGPTConfig", "ScGPTNetwork", "attention"]
