"""Time of the sparse path and of dense attention over the length of the sequence."""

import torch

from workbench.judging import growth_exponent
from workbench.machines import stopwatch
from workbench.models.attention.dense_attention import attention_weights, dense_attention
from workbench.models.attention.sea_training import new_estimator
from workbench.paper import row

LENGTHS = {"tiny": (32, 64), "small": (256, 512, 1024), "full": (512, 1024, 2048, 4096, 8192, 16384)}
ROUNDS = {"tiny": 2, "small": 5, "full": 7}
HEADS, D, WIDTH, KEYS = 4, 32, 128, 32
LONGEST_WRITTEN = 4096  # beyond, four written-out matrices and their copies take gigabytes


def timing(size, seed, report):
    """Time one call of the sparse path and of dense attention over growing sequences, interleaved."""
    sea = new_estimator(HEADS * D, HEADS, seed, width=WIDTH, k=KEYS, backend="flat_csr")
    draw = torch.Generator().manual_seed(seed)
    rows = []
    for number, t in enumerate(LENGTHS[size]):
        q, k, v = (torch.randn(1, HEADS, t, D, generator=draw) for _ in range(3))
        contenders = {
            "SEA, flat_csr": lambda q=q, k=k, v=v: sea(q, k, v),
            "dense, matrix written out": lambda q=q, k=k, v=v: attention_weights(q, k, causal=False) @ v,
            "dense, torch's fused kernel": lambda q=q, k=k, v=v: dense_attention(q, k, v, causal=False),
        }
        if t > LONGEST_WRITTEN:
            del contenders["dense, matrix written out"]
        report(number / len(LENGTHS[size]), f"{t} tokens")
        with torch.no_grad():
            entries = int(sea(q, k, v).mask.indptr[-1])
            times = stopwatch.measure(contenders, rounds=ROUNDS[size])
        labels = {"tokens": t, "heads": HEADS, "cells": WIDTH, "keys": KEYS}
        for name, timed in times.items():
            labels_of_time = {"method": name, "rounds": ROUNDS[size], **labels}
            rows.append(row("time", 1e3 * timed.median_s, "ms", "measured", **labels_of_time))
            rows.append(row("spread of the times", 1e3 * timed.spread_s, "ms", "measured", **labels_of_time))
        counts = {"SEA, flat_csr": entries, "dense": HEADS * t * t}
        rows += [row("scores computed", n, "scores", "counted", method=name, **labels) for name, n in counts.items()]
    for name in dict.fromkeys(r["method"] for r in rows if r["quantity"] == "time"):
        timed = [r for r in rows if r["quantity"] == "time" and r["method"] == name]
        slope = growth_exponent([r["tokens"] for r in timed], [r["value"] for r in timed])
        rows.append(row("growth exponent of the time", slope, "number", "measured", method=name))
    return rows
