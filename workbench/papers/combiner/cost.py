"""What every pattern costs over the length: time, operations, and the largest tensor."""

import torch

from kernels.attention.cost import attention_cost
from workbench.machines.stopwatch import measure
from workbench.machines.tensor_memory import largest_tensor_bytes
from workbench.models.attention.combiner import PATTERNS, combiner_attention, multiply_adds
from workbench.models.attention.dense_attention import dense_attention
from workbench.paper import row


def cost(size, seed, report):
    """Time every pattern over the length, one head, and watch the largest tensor; dense attention beside it."""
    lengths, rounds = {
        "tiny": ((256, 512), 2),
        "small": ((1024, 4096), 3),
        "full": ((1024, 2048, 4096, 8192, 16384), 5),
    }[size]
    rng = torch.Generator().manual_seed(seed)
    rows = []
    for place, length in enumerate(lengths):
        report(place / len(lengths), f"{length} tokens")
        q, k, v = (torch.randn(1, 1, length, 32, generator=rng) for _ in range(3))
        runs = {p: lambda p=p, x=(q, k, v): combiner_attention(*x, pattern=p) for p in PATTERNS}
        runs["dense (torch)"] = lambda x=(q, k, v): dense_attention(*x)
        labels = {"input": "normal random q, k, v", "tokens": length}
        for name, timing in measure(runs, rounds=rounds).items():
            named = labels | {"method": name, "threads": torch.get_num_threads(), "rounds": rounds}
            rows.append(row("time", 1e3 * timing.median_s, "ms", "measured", **named, spread_ms=1e3 * timing.spread_s))
        for name, run in runs.items():
            dense = attention_cost(t=length, d=32, causal=True).dense.multiply_adds
            operations = 2 * (multiply_adds(name, length, 32) if name in PATTERNS else dense)
            rows.append(row("largest tensor", largest_tensor_bytes(run), "bytes", "counted", **labels, method=name))
            rows.append(row("operations", operations, "operations", "counted", **labels, method=name))
    return rows
