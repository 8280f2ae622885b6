"""Tokens per second of decoders whose weights are dense or loaded sparse, one step of writing at a time."""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import nn

import kernels
from workbench.machines.roofline import ceilings
from workbench.machines.stopwatch import measure
from workbench.models.language import tiny_lm
from workbench.models.language.opt_stack import OptConfig, OptStack
from workbench.models.sparse_inference.statistics import linear_layers
from workbench.models.sparse_inference.tiled_csl import SparseDecodeLinear, decode_sparse
from workbench.paper import row

BATCHES = {"tiny": (1,), "small": (1, 8), "full": (1, 8, 16)}
SPARSITIES = {"tiny": (0.8,), "small": (0.8,), "full": (0.8, 0.9)}
PAST = {"tiny": 4, "small": 32, "full": 128}  # tokens that were written before
ROUNDS = {"tiny": 1, "small": 3, "full": 7}
DENSE32, DENSE16 = "dense, 32 bits", "dense, bfloat16"
TOLERANCE = {DENSE16: 0.1}  # others 1e-2, of the largest output: half-precision weights are the same


@dataclass(frozen=True)
class Decoder:
    """A model and how to give it tokens: ``inputs(batch, tokens, model)``."""

    name: str
    model: nn.Module
    inputs: Callable


def decoding(size, seed, report):
    """Time one step of each decoder at each batch size, dense and sparse in turn; weights of all are the same."""
    threads = 1 if size == "tiny" else kernels.get_num_threads()
    before, rows, makers = torch.get_num_threads(), [], _makers(size)
    torch.set_num_threads(threads)
    try:
        for place, (name, make) in enumerate(makers.items()):
            report(place / len(makers), name)
            labels = {"decoder": name, "threads": threads, "rounds": ROUNDS[size], "past": PAST[size]}
            rows += _of_decoder(make(seed), size, labels)
    finally:
        torch.set_num_threads(before)
    return rows


def _makers(size):
    llama = {"tiny": (64, 2, 128), "small": (1024, 16, 2816), "full": (4096, 32, 11008)}[size]
    opt = {"tiny": (64, 2), "small": (1024, 16), "full": (4096, 32)}[size]
    return {
        "tiny language model": lambda seed: Decoder("tiny language model", tiny_lm.load(), _tokens),
        f"LLaMA layer of {llama[0]}": partial(_llama, *llama),
        f"OPT layer of {opt[0]}": partial(_opt, *opt),
    }


def _llama(width, heads, hidden, seed):
    sizes = {"vocabulary": 256, "layers": 1, "heads": heads, "width": width, "hidden": hidden}
    model = tiny_lm.TinyLM(tiny_lm.TinyConfig(**sizes))
    model.reset(seed)
    return Decoder("LLaMA", model.eval().requires_grad_(False), _tokens)


def _opt(width, heads, seed):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = OptStack(OptConfig(width=width, heads=heads))
    return Decoder("OPT", model.eval().requires_grad_(False), _stream)


def _tokens(batch, tokens, model):
    return torch.arange(batch * tokens).view(batch, tokens) % 256


def _stream(batch, tokens, model):
    width = model.layers[0].norm_feed.weight
    values = torch.randn(batch, tokens, len(width), generator=torch.Generator().manual_seed(batch))
    return values.to(width.dtype)


def _of_decoder(decoder, size, labels):
    models, layers = {}, list(linear_layers(decoder.model))
    for sparsity in SPARSITIES[size]:
        sparse = decode_sparse(decoder.model, sparsity)
        models[f"tiled-CSL, {sparsity:.0%}"] = sparse
        dense = _with_weights_of(decoder.model, sparse, layers)
        _require_alike(decoder, dense, sparse, f"{sparsity:.0%} sparse")
    models = {DENSE32: dense, DENSE16: copy.deepcopy(dense).bfloat16()} | models
    _require_alike(decoder, dense, models[DENSE16], DENSE16)
    held = {name: _bytes(model, layers) for name, model in models.items()}
    copy_gbps, rows = ceilings(labels["threads"]).copy_gbps, []
    for batch in BATCHES[size]:
        steps = {name: _step(decoder, model, batch, labels["past"]) for name, model in models.items()}
        for name, timing in measure(steps, rounds=labels["rounds"]).items():
            ours = labels | {"weights": name, "batch": batch, "layer_bytes": held[name]}
            ours |= {"floor_ms": held[name] / copy_gbps / 1e6}  # reading the layers' weights once
            spread = {"spread_ms": 1e3 * timing.spread_s}
            rows.append(row("time of a step", 1e3 * timing.median_s, "ms", "measured", **spread, **ours))
            rows.append(row("tokens written", batch / timing.median_s, "tokens per second", "measured", **ours))
    return rows


@torch.no_grad()
def _step(decoder, model, batch, past):
    """Return a call that writes one more token of each text after ``past`` others."""
    cache: list = []
    model(decoder.inputs(batch, past, model), cache=cache)
    given = decoder.inputs(batch, 1, model)
    return torch.no_grad()(lambda: model(given, cache=cache[:]))  # a copy, so that every call sees the same past


@torch.no_grad()
def _with_weights_of(model, sparse, layers):
    """Return a dense copy of the model with the pruned weights, zeros and all."""
    dense = copy.deepcopy(model)
    for name, layer in linear_layers(dense, layers).items():
        layer.weight.copy_(torch.from_numpy(sparse.get_submodule(name).weight.decode()))
    return dense


def _require_alike(decoder, wanted, found, name):
    a, b = (_step(decoder, model, 2, 3)().float() for model in (wanted, found))
    worst = float((a - b).abs().max() / a.abs().max())
    if not worst <= TOLERANCE.get(name, 1e-2):
        raise ValueError(f"decoding: outputs of {name} differ from the dense ones by {worst:.1e} of the largest")


def _bytes(model, layers):
    found = [model.get_submodule(name) for name in layers]
    return sum(
        layer.nbytes if isinstance(layer, SparseDecodeLinear) else sum(p.nbytes for p in layer.parameters())
        for layer in found
    )
