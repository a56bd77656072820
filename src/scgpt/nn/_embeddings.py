"""From tokens to input embeddings."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ._rows import rows

# Of the embeddings at the start. The layer norm that follows makes their scale meaningless but for how far a step of
# the optimiser turns them: with torch's own 1.0 a small data set is over before genes have moved.
INITIAL_STD = 0.02


class JointEmbedding(nn.Module):
    """An embedding of which all rows are divided by their common root mean square.

    A row's length tells how much it counts among the others. Were the rows not divided, a penalty of their squares would
    weigh them against the rest of the network, too, and push them all to 0.
    """

    def __init__(self, n_rows: int, d_model: int):
        super().__init__()
        self.embedding = nn.Embedding(n_rows, d_model)
        nn.init.normal_(self.embedding.weight, std=INITIAL_STD)

    def forward(self, ids: Tensor) -> Tensor:
        """Map ``(...)`` ids to ``(..., D)``."""
        return self.embedding(ids) / self.embedding.weight.square().mean().sqrt()


class NormedEmbedding(nn.Module):
    """An embedding followed by layer norm: of genes, experimental batches and modalities.

    Training never moves the first ``n_fixed`` rows: they get no gradient.
    """

    def __init__(self, n_rows: int, d_model: int):
        super().__init__()
        self.embedding = nn.Embedding(n_rows, d_model)
        self.norm = nn.LayerNorm(d_model)
        nn.init.normal_(self.embedding.weight, std=INITIAL_STD)
        self.n_fixed = 0

    def forward(self, ids: Tensor) -> Tensor:
        """Map ``(...)`` ids to ``(..., D)``."""
        if not self.n_fixed:
            return self.norm(self.embedding(ids))
        table = self.embedding.weight
        return self.norm(rows(torch.cat([table[: self.n_fixed].detach(), table[self.n_fixed :]]), ids))


class ContinuousValueEncoder(nn.Module):
    """An MLP of one expression value, clamped from above."""

    def __init__(self, d_model: int, dropout: float, max_value: float):
        super().__init__()
        self.max_value = max_value
        self.linear1 = nn.Linear(1, d_model)
        self.linear2 = nn.Linear(d_model, d_model)
        self.norm = nn.LayerNorm(d_model)
        self.dropout = nn.Dropout(dropout)

    def forward(self, values_T: Tensor) -> Tensor:
        """Map ``(T,)`` values to ``(T, D)``."""
        values_T = values_T.clamp(max=self.max_value)
        if torch.is_grad_enabled():
            return self.dropout(self._encoded(values_T))
        # Bins are a few dozen: each is encoded once, and looked up.
        distinct_V, place_T = values_T.unique(return_inverse=True)
        return self.dropout(rows(self._encoded(distinct_V), place_T))

    def _encoded(self, values_T: Tensor) -> Tensor:
        return self.norm(self.linear2(torch.relu(self.linear1(values_T.unsqueeze(-1)))))


class CategoricalValueEncoder(nn.Module):
    """An embedding of binned values taken as integers."""

    def __init__(self, n_values: int, d_model: int):
        super().__init__()
        self.embedding = nn.Embedding(n_values, d_model)
        self.norm = nn.LayerNorm(d_model)

    def forward(self, values_T: Tensor) -> Tensor:
        """Map ``(T,)`` values, whole numbers of at least 0, to ``(T, D)``."""
        return self.norm(self.embedding(values_T.long()))
