"""Batch norm with statistics of its own for each experimental batch."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ._rows import rows

# The authors' value (2**-14 rounded, the smallest normal float16).
EPS = 6.1e-5


class DomainNorm(nn.Module):
    """Batch norm of tokens, without affine part, with statistics for each experimental batch (domain).

    Equal to one :class:`torch.nn.BatchNorm1d` per domain, each fed the tokens of its domain alone
    (:cite:t:`Chang2019`), for minibatches in which domains are mixed.

    As in torch, a momentum of None makes the running statistics means over all minibatches.

    Training never moves the statistics of the first ``n_fixed`` domains: it uses them, as evaluation does.
    """

    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor

    def __init__(self, n_domains: int, d_model: int, eps: float = EPS, momentum: float | None = 0.1):
        super().__init__()
        self.eps, self.momentum = eps, momentum
        self.n_fixed = 0
        self.register_buffer("running_mean", torch.zeros(n_domains, d_model))
        self.register_buffer("running_var", torch.ones(n_domains, d_model))
        self.register_buffer("num_batches_tracked", torch.zeros(n_domains, dtype=torch.int64))

    def forward(self, x_TD: Tensor, domain_T: Tensor) -> Tensor:
        """Normalise ``(T, D)`` token embeddings with the statistics of their ``(T,)`` domains."""
        if not self.training:
            mean_GD, var_GD = self.running_mean, self.running_var
        else:
            n_domains = len(self.running_mean)
            count_G1 = torch.bincount(domain_T, minlength=n_domains).unsqueeze(1)
            divisor_G1 = count_G1.clamp(min=1)
            zeros_GD = x_TD.new_zeros(n_domains, x_TD.shape[1], dtype=torch.float32)
            x32_TD = x_TD.float()
            mean_GD = zeros_GD.index_add(0, domain_T, x32_TD) / divisor_G1
            centred_TD = x32_TD - rows(mean_GD, domain_T)
            var_GD = zeros_GD.index_add(0, domain_T, centred_TD.square()) / divisor_G1
            self._update(mean_GD.detach(), var_GD.detach(), count_G1)
            if self.n_fixed:
                mean_GD = torch.cat([self.running_mean[: self.n_fixed], mean_GD[self.n_fixed :]])
                var_GD = torch.cat([self.running_var[: self.n_fixed], var_GD[self.n_fixed :]])
        scale_GD = torch.rsqrt(var_GD + self.eps)
        return ((x_TD - rows(mean_GD, domain_T)) * rows(scale_GD, domain_T)).to(x_TD.dtype)

    @torch.no_grad()
    def _update(self, mean_GD: Tensor, var_GD: Tensor, count_G1: Tensor) -> None:
        """Move the running statistics of the domains that are present; the variance unbiased, as torch has it."""
        present = count_G1[:, 0] > 1  # one token has no variance: torch refuses it, here it leaves no trace
        present[: self.n_fixed] = False
        unbiased_GD = var_GD * count_G1 / (count_G1 - 1).clamp(min=1)
        weight: float | Tensor = self.momentum or 0.0
        if self.momentum is None:
            weight = 1 / (self.num_batches_tracked[present].unsqueeze(1) + 1)
        for running_GD, new_GD in ((self.running_mean, mean_GD), (self.running_var, unbiased_GD)):
            running_GD[present] = torch.lerp(running_GD[present], new_GD[present], weight)
        self.num_batches_tracked += present.to(torch.int64)
