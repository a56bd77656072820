"""What generative attention costs, forward and backward, against the mask that it does without.

One cell of 512 to 4,096 tokens, half of them unknown, 8 heads of width 64, in float32. ``ours`` is
``scgpt.nn.attention``; ``mask`` is torch's own attention with a length x length mask of what each token may see;
``softmax`` is the same with scores, mask and softmax written out; ``all known`` is attention in which every token sees
every other. Each runs in a process of its own for its peak memory, which is what it adds to that of a cell of 64 tokens;
times are those of the processor, the least of five.

    python benchmarks/attention.py            # or --quick, --json FILE
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from _runs import machine

from scgpt._token_batch import TokenBatch  # torch alone: other imports would take longer than what is measured
from scgpt.nn import attention

RESULTS = Path(__file__).parent / "results" / "attention.json"
LENGTHS = (512, 1024, 2048, 4096)
HEADS, WIDTH = 8, 64


def visible(batch: TokenBatch) -> torch.Tensor:
    return ~batch.unknown.unsqueeze(0) | torch.eye(batch.n_tokens, dtype=torch.bool)


def all_known(q, k, v, batch):
    return attention(q, k, v, TokenBatch(batch.gene_ids, batch.values, batch.offsets, batch.cell_index))


def mask(q, k, v, batch):
    q, k, v = (x.transpose(0, 1).unsqueeze(0) for x in (q, k, v))
    return F.scaled_dot_product_attention(q, k, v, attn_mask=visible(batch)).squeeze(0).transpose(0, 1)


def softmax(q, k, v, batch):
    scores = torch.einsum("ihe,jhe->hij", q, k) / WIDTH**0.5
    return torch.einsum("hij,jhe->ihe", scores.masked_fill(~visible(batch), -torch.inf).softmax(-1), v)


METHODS = {"ours": attention, "mask": mask, "softmax": softmax, "all known": all_known}


def step(method: str, length: int) -> float:
    """Return the processor seconds of one step."""
    batch = TokenBatch(
        gene_ids=torch.zeros(length, dtype=torch.int64),
        values=torch.zeros(length),
        offsets=torch.tensor([0, length]),
        cell_index=torch.zeros(1, dtype=torch.int64),
        unknown=torch.arange(length) % 2 == 1,
    )
    q, k, v = (torch.randn(length, HEADS, WIDTH, requires_grad=True) for _ in range(3))
    start = time.process_time()
    METHODS[method](q, k, v, batch).sum().backward()
    return time.process_time() - start


def peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measure(method: str, length: int, times: int) -> dict:
    torch.manual_seed(0)
    step(method, 64)
    before = peak_mib()
    seconds = min(step(method, length) for _ in range(times))
    return {"method": method, "tokens": length, "MiB": round(peak_mib() - before, 1), "ms": round(1000 * seconds, 1)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="two lengths, to see that it runs")
    parser.add_argument("--json", type=Path, help="write the results to this file, too")
    parser.add_argument("--one", nargs=3, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        method, length, times = args.one
        print(json.dumps(measure(method, int(length), int(times))))
        return
    rows = []
    for length in LENGTHS[:2] if args.quick else LENGTHS:
        for method in METHODS:
            command = [sys.executable, __file__, "--one", method, str(length), "1" if args.quick else "5"]
            shown = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
            rows.append(json.loads(shown.splitlines()[-1]))
    import pandas as pd

    table = pd.DataFrame(rows)
    for value in ("MiB", "ms"):
        print(f"{value}\n{table.pivot(index='tokens', columns='method', values=value)[list(METHODS)].to_string()}\n")
    result = {"machine": machine(), "threads": torch.get_num_threads(), "results": rows}
    for path in [args.json] * bool(args.json) + [RESULTS] * (not args.quick):
        path.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
