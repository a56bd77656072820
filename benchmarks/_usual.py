"""The usual way to run scGPT, which the benchmarks of speed compare with: padded cells, one after another through numpy.

Cells are binned one at a time with numpy's quantiles, padded to the longest of their batch by a collator in PyTorch's
``DataLoader``, and read by ``torch.nn.TransformerEncoder``, which does without what is padded where it can. The weights
are those of one of our networks.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from scgpt.nn import ScGPTNetwork


def binned(values: np.ndarray, n_bins: int) -> np.ndarray:
    """Bins of one cell's values above 0, tied ones in the middle of what they could take."""
    edges = np.quantile(values, np.linspace(0, 1, n_bins - 1))
    lowest, highest = np.digitize(values, edges, right=True) + 1, np.digitize(values, edges)
    return (np.minimum(lowest, highest) + highest) // 2


class UsualCells(Dataset):
    """Rows of a matrix as genes and bins, ``<cls>`` first.

    Parameters
    ----------
    matrix
        Cells by genes.
    gene_ids
        Of its columns.
    cls
        Id and value of ``<cls>``.
    """

    def __init__(self, matrix: sp.csr_matrix, gene_ids: np.ndarray, cls: tuple[int, float], n_bins: int = 51):
        self.matrix, self.gene_ids, self.cls, self.n_bins = matrix, gene_ids, cls, n_bins

    def __len__(self) -> int:
        return self.matrix.shape[0]

    def __getitem__(self, cell: int) -> tuple[Tensor, Tensor]:
        row = self.matrix[cell].toarray()[0]
        expressed = np.nonzero(row)[0]
        genes = np.insert(self.gene_ids[expressed], 0, self.cls[0])
        values = np.insert(binned(row[expressed], self.n_bins).astype(np.float32), 0, self.cls[1])
        return torch.from_numpy(genes).long(), torch.from_numpy(values).float()


def padded(cells: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor, Tensor]:
    """Genes, values and padding, each ``(B, L)``."""
    genes, values = (nn.utils.rnn.pad_sequence(list(x), batch_first=True) for x in zip(*cells, strict=True))
    lengths = torch.tensor([len(x) for x, _ in cells])
    return genes, values, torch.arange(genes.shape[1]) >= lengths[:, None]


def loader(cells: UsualCells, batch_size: int) -> DataLoader:
    """Batches in the order of the cells, made by as many processes as there are cores."""
    n_workers = min(len(os.sched_getaffinity(0)), batch_size)
    return DataLoader(cells, batch_size, collate_fn=padded, num_workers=n_workers)


class UsualNetwork(nn.Module):
    """A padded transformer with the weights of a network of ours, for genes with a layer norm and values by an MLP."""

    def __init__(self, network: ScGPTNetwork):
        super().__init__()
        c = network.config
        self.genes, self.values = network.genes, network.values
        layer = nn.TransformerEncoderLayer(c.d_model, c.n_heads, c.d_feed_forward, c.dropout, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, c.n_layers)
        self.gep, self.gepc, self.flags = network.gep, network.gepc, network.flags
        for theirs, ours in zip(self.encoder.layers, network.layers, strict=True):
            attention, blocks = ours.attention, ours.feed_forward
            pairs = [
                (theirs.self_attn.out_proj, attention.out),
                (theirs.linear1, blocks[0]),
                (theirs.linear2, blocks[3]),
                (theirs.norm1, ours.norm1),
                (theirs.norm2, ours.norm2),
            ]
            for target, source in pairs:
                target.load_state_dict(source.state_dict())
            theirs.self_attn.in_proj_weight.data.copy_(attention.qkv.weight)
            theirs.self_attn.in_proj_bias.data.copy_(attention.qkv.bias)

    def forward(self, genes: Tensor, values: Tensor, padding: Tensor, unknown: Tensor | None = None) -> Tensor:
        """Return ``(B, L, D)``; unknown tokens, ``(B, L)``, are seen by themselves alone."""
        values_BLD = self.values(values.flatten()).view(*values.shape, -1)
        mask = None
        if unknown is not None:
            values_BLD = torch.where(unknown.unsqueeze(-1), self.flags.weight[1], values_BLD)
            itself = torch.eye(genes.shape[1], dtype=torch.bool, device=genes.device)
            mask = (unknown.unsqueeze(1) & ~itself).repeat_interleave(self.encoder.layers[0].self_attn.num_heads, 0)
        return self.encoder(self.genes(genes) + values_BLD, mask, src_key_padding_mask=padding)

    def loss(self, genes: Tensor, values: Tensor, padding: Tensor, unknown: Tensor | None, targets: Tensor) -> Tensor:
        """Return the summed squared errors of both decoders, means over tokens whose ``(B, L)`` target is no NaN."""
        out_BLD = self(genes, values, padding, unknown)
        asked = ~targets.isnan()
        of_cell_BLD = out_BLD[:, :1].expand_as(out_BLD)
        predictions = self.gep(out_BLD[asked]), self.gepc(self.genes(genes[asked]), of_cell_BLD[asked])
        return sum(nn.functional.mse_loss(x, targets[asked]) for x in predictions)


@torch.inference_mode()
def embeddings(network: UsualNetwork, batches: DataLoader) -> Iterator[Tensor]:
    """Yield the ``(B, D)`` output of ``<cls>`` of each batch, of length 1."""
    for batch in batches:
        yield nn.functional.normalize(network(*batch)[:, 0], dim=1)
