"""Steps of training with 12 layers of width 512: ours beside the usual padded transformer, with the same weights in one process.

- ``fine-tuning``: 8 cells of 300 to 1,200 genes, of which 40% are masked; their values are predicted from each gene's output
  (``gep``) and from the cell's embedding (``gepc``).
- ``pretraining``: the same cells, of which half are unknown: generative attention from known to unknown genes, with the
  objective ``gen`` without its second pass.

A step is a forward and a backward pass with dropout, and one of Adam. The usual path (``_usual.py``) pads to the longest cell,
has dropout of the attention, too, as the authors' networks have, and is run without it as well, as ours is by default; it has a mask
of who sees whom in place of generative attention.
Both are fed the same tokens, and have the objectives of our module. Paths take turns after a step that warms them up; rates are
of the median turn. ``bf16`` is autocast, and run where the machine computes in bfloat16 or with ``--all``.

    python benchmarks/train.py                  # a quarter of an hour on two cores
    python benchmarks/train.py --quick --json FILE
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from _runs import RESULTS, keep, machine
from _usual import UsualNetwork

from scgpt.data import TokenBatch, mark_unknown, mask_values
from scgpt.module import ScGPTModule, make_objectives
from scgpt.nn import ScGPTConfig, has_bfloat16
from scgpt.train import Speed

N_TOKENS = 60_697  # of the authors' whole-human model
OBJECTIVES = {"fine-tuning": ("gep", "gepc"), "pretraining": ("gen",)}


def cells(n_cells: int) -> TokenBatch:
    """Cells of 300 to 1,200 genes."""
    rng = np.random.default_rng(0)
    lengths = rng.integers(301, 1201, n_cells)
    genes = np.concatenate([[1, *(3 + rng.choice(N_TOKENS - 3, n - 1, replace=False))] for n in lengths])
    values = rng.integers(1, 51, len(genes)).astype(np.float32)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    return TokenBatch(*map(torch.from_numpy, (genes, values, offsets, np.arange(n_cells))))


def ours(module: ScGPTModule, batch: TokenBatch) -> Callable[[], torch.Tensor]:
    """Return the loss of a step of ours; the second pass of ``gen`` begins later."""
    return lambda: module(batch, step=0)[-1].loss


def usual(network: UsualNetwork, batch: TokenBatch) -> Callable[[], torch.Tensor]:
    """Return that of the usual path."""
    grid = batch.to_padded()
    unknown = grid.get("unknown")
    targets = grid["targets"].masked_fill(~grid["predict"] | grid["padding"], torch.nan)
    return lambda: network.loss(grid["gene_ids"], grid["values"], grid["padding"], unknown, targets)


def step(loss: Callable[[], torch.Tensor], optimizer: torch.optim.Optimizer, half: bool) -> float:
    """Return the seconds of a step."""
    start = time.perf_counter()
    with torch.autocast("cpu", torch.bfloat16, enabled=half):
        value = loss()
    optimizer.zero_grad()
    value.backward()
    optimizer.step()
    return time.perf_counter() - start


def measure(kind: str, n_cells: int, turns: int, halves: bool) -> list[dict]:
    """Run the paths of a kind of training in turns."""
    module = ScGPTModule(ScGPTConfig(n_tokens=N_TOKENS, n_flags=2))
    module.objectives = make_objectives(OBJECTIVES[kind])
    batch = cells(n_cells)
    batch = mask_values(batch, 0.4) if kind == "fine-tuning" else mark_unknown(batch, 0.5)
    theirs, plain = (UsualNetwork(module.network) for _ in range(2))
    for layer in plain.encoder.layers:
        layer.self_attn.dropout = 0.0
    networks = {"usual": theirs, "usual, no dropout of attention": plain, "ours": module}
    optimizers = {network: torch.optim.Adam(network.parameters(), 1e-6, fused=True) for network in networks.values()}
    losses = {
        name: (network, (ours if network is module else usual)(network, batch), False)
        for name, network in networks.items()
    }
    if halves:
        losses |= {f"{name}, bf16": (*path[:2], True) for name, path in losses.items()}
    for network, loss, half in losses.values():
        step(loss, optimizers[network], half)
    seconds: dict[str, list[float]] = {name: [] for name in losses}
    for _ in range(turns):
        for name, (network, loss, half) in losses.items():
            seconds[name].append(step(loss, optimizers[network], half))
            print(f"{kind}: {name}: {seconds[name][-1]:.1f} s", flush=True)
    speed = Speed(module)
    speed.add(batch, 0)
    medians = {name: float(np.median(x)) for name, x in seconds.items()}
    return [
        {
            "step": kind,
            "path": name,
            "s": median,
            "cells/s": batch.n_cells / median,
            "tokens/s": batch.n_tokens / median,
            "GFLOP/s": speed.flops / median / 1e9,
            "times the usual": medians["usual"] / median,
        }
        for name, median in medians.items()
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="two cells and one turn; nothing is kept")
    parser.add_argument("--json", type=Path, help="write the results to this file, too")
    parser.add_argument("--all", action="store_true", help="bfloat16 even where the machine has none")
    args = parser.parse_args()
    torch.manual_seed(0)
    halves = has_bfloat16(torch.device("cpu")) or args.all
    n_cells, turns = (2, 1) if args.quick else (8, 2)
    rows = [row for kind in OBJECTIVES for row in measure(kind, n_cells, turns, halves)]
    print(pd.DataFrame(rows).round(3).to_string(index=False))
    about = {"machine": machine(), "threads": torch.get_num_threads(), "seed": 0, "turns": turns, "cells": n_cells}
    result = about | {"results": rows}
    if args.json:
        args.json.write_text(json.dumps(result, indent=1) + "\n")
    if not args.quick:
        keep(RESULTS / "train.json", result)


if __name__ == "__main__":
    main()
