"""In which precision a network is trained."""

from __future__ import annotations

import torch

from scgpt.nn import has_bfloat16

# From which on mixed precision is faster on a CPU: 0.8 times as fast at a width of 128, 1.2 at 256, 1.5 at 512 (Zen 4).
_LEAST_WIDTH = 256


def training_precision(device: torch.device, d_model: int) -> str:
    """Return what ``precision="auto"`` means for the training of a network, in Lightning's words.

    Parameters
    ----------
    device
        Where it is trained.
    d_model
        Width of the network. On a CPU weights are converted in each step, which a narrow one does not earn back.

    Returns
    -------
    ``"bf16-mixed"`` or ``"32-true"``.

    Examples
    --------
    >>> import torch
    >>> from scgpt.train import training_precision
    >>> training_precision(torch.device("cpu"), d_model=64)
    '32-true'
    """
    wide = device.type != "cpu" or d_model >= _LEAST_WIDTH
    return "bf16-mixed" if wide and has_bfloat16(device) else "32-true"
