"""Times of single layers, of a training step and of a whole encoder, dense and with Monarch layers."""

from functools import partial

import torch
from torch import nn

import kernels
from workbench.explorers.pruning.source import source
from workbench.machines.stopwatch import measure
from workbench.models.compression.monarch import MonarchLinear, d2s_project
from workbench.paper import row
from workbench.papers.monarch.language import BATCH, DENSE, MONARCH, loss_of, model_of, windows

LAYERS = {
    "tiny": ((64, 4),),
    "small": ((768, 4), (1024, 32)),
    "full": ((384, 4), (768, 4), (1024, 4), (1024, 32), (4096, 4), (4096, 64)),
}
ROWS = {"tiny": (8,), "small": (1, 256), "full": (1, 32, 512)}
ROUNDS = {"tiny": 1, "small": 5, "full": 7}
ENCODERS = {"tiny": (), "small": ("small_encoder",), "full": ("small_encoder", "minilm")}


def times(size, seed, report):
    """Time layers forward, training steps of the language model, and encoders, each beside its dense twin."""
    threads = 1 if size == "tiny" else kernels.get_num_threads()
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    how = {"threads": threads, "rounds": ROUNDS[size]}
    try:
        rows = []
        for i, (n, blocks) in enumerate(LAYERS[size]):
            report(0.5 * i / len(LAYERS[size]), f"layer of {n}, {blocks} blocks")
            rows += _layer_rows(n, blocks, ROWS[size], seed, how)
        report(0.5, "training steps")
        rows += _step_rows(BATCH[size], seed, how)
        for i, key in enumerate(ENCODERS[size]):
            report(0.7 + 0.15 * i, key)
            rows += [] if source(key).missing() else _encoder_rows(key, how)
    finally:
        torch.set_num_threads(before)
    return rows


def _layer_rows(n, blocks, counts, seed, how):
    generator, rows = torch.Generator().manual_seed(seed), []
    layers = {DENSE: nn.Linear(n, n), MONARCH: MonarchLinear(n, n, blocks)}
    for count in counts:
        x = torch.randn(count, n, generator=generator)
        with torch.inference_mode():
            found = measure({name: partial(layer, x) for name, layer in layers.items()}, rounds=how["rounds"])
        rows += _rows("layer", found, how, n=n, nblocks=blocks, batch=count)
    return rows


def _step_rows(batch, seed, how):
    tokens = windows("train", [97 * i for i in range(batch)])

    def step(model, optimiser):
        optimiser.zero_grad()
        loss_of(model, tokens).backward()
        optimiser.step()

    models = {name: model_of(name, seed) for name in (DENSE, MONARCH)}
    runs = {name: partial(step, model, torch.optim.AdamW(model.parameters())) for name, model in models.items()}
    return _rows("training step", measure(runs, rounds=how["rounds"]), how, nblocks=4, batch=batch)


def _encoder_rows(key, how):
    dense, tokens = source(key).load(), source(key).evaluation()[0][:8]
    models = {DENSE: dense, MONARCH: d2s_project(dense, 4)}
    with torch.inference_mode():
        found = measure({name: partial(model, tokens) for name, model in models.items()}, rounds=how["rounds"])
    return _rows(key, found, how, nblocks=4, batch=len(tokens))


def _rows(work, found, how, **labels):
    return [
        row("time", 1e3 * timing.median_s, "ms", "measured", work=work, run=name, spread_ms=1e3 * timing.spread_s,
            **labels, **how)
        for name, timing in found.items()
    ]  # fmt: skip
