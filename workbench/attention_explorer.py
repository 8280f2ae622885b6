"""The attention-mask explorer: inputs and methods (models) joined to the view (widgets); attention papers open it."""

import time

import numpy as np
import torch.nn.functional as F

from kernels.attention.block_sparse import block_sparse_attention
from widgets.controls.knob import Knob
from widgets.figures.attention import AttentionScene, CoverageCurve, MaskResult
from widgets.views.attention_mask import PICTURES, AttentionMaskView
from workbench.machines.roofline import ceilings
from workbench.models.attention_inputs import MAX_TOKENS, SOURCES, AttentionInput, load_input, read_npz
from workbench.models.attention_methods import DENSE_LIMIT, METHODS, coverage_curve
from workbench.models.attention_trace import AttentionTrace
from workbench.models.combiner import PATTERNS
from workbench.models.xattention import MODES

__all__ = ["KNOBS", "AttentionExplorer", "explorer", "scene"]

_METHOD_CHOICES = tuple((key, method.title) for key, method in METHODS.items())
_INPUT_CHOICES = (*((key, title) for key, (title, _) in SOURCES.items()), ("file", "Your file"))
_SORTS = (
    ("keys", "keys by last queries"),
    ("random", "random"),
    ("none", "none"),
    ("queries", "queries"),
    ("both", "keys and queries"),
)


def _named(keys):
    return tuple((key, key.replace("_", " ")) for key in keys)


KNOBS = (
    Knob("input", "Queries and keys", "minilm", choices=_INPUT_CHOICES,
         help="Where queries and keys come from."),
    Knob("words", "Your text", "", help="Text for the models; empty takes held-out Python documentation."),
    Knob("tokens", "Tokens", 512, 64, MAX_TOKENS, scale="log2", help="Models stop at their context."),
    Knob("layer", "Layer", 2, 0, 31, 1, help="Of the model; clipped to what it has."),
    Knob("head", "Head", 0, 0, 31, 1, help="Of the layer; clipped to what it has."),
    Knob("method", "Method", "xattention", choices=_METHOD_CHOICES, help="How attention is thinned out."),
    Knob("versus", "Beside it", "none", choices=(("none", "nothing"), *_METHOD_CHOICES),
         help="A second method, same settings."),
    Knob("block", "Block (tokens)", 32, 16, 128, scale="log2", help="Tokens per block row and column."),
    Knob("stride", "Stride", 8, 1, 16, scale="log2", help="One of this many lines of every tile is read."),
    Knob("threshold", "Share of mass to keep", 0.9, 0.0, 1.0, 0.01, help="Estimated mass that the kept blocks hold."),
    Knob("sampler", "Read", "antidiagonal", choices=_named(MODES),
         help="Which logits the estimate looks at."),
    Knob("segment", "Segment (blocks)", 2, 1, 16, scale="log2",
         help="Keys are sorted inside segments of this many blocks."),
    Knob("permute", "Sort", "keys", choices=_SORTS,
         help="What is sorted inside segments."),
    Knob("cells", "Cells per estimated row", 32, 8, 256, scale="log2", help="Width of the compressed attention."),
    Knob("keys_per_query", "Keys per query", 12, 1, 256, 1, help="Budget of exact attention."),
    Knob("pattern", "Factorisation", "fixed", choices=_named(PATTERNS),
         help="How the past is cut into regions."),
    Knob("part", "Segment (tokens)", 16, 1, 256, scale="log2", help="Tokens per segment or row."),
    Knob("window", "Window", 7, 2, 14, 1, help="Keys per query are the window squared."),
    Knob("dilation", "Dilation", 1, 1, 8, 1, help="Distance of the pixels taken from a window."),
    Knob("formula", "Formula", "q >= k and (q - k < 128 or k < 16)",
         help="In q, k, h, t; and, or, not; + - * // %; abs, min, max."),
)  # fmt: skip


class AttentionExplorer(AttentionMaskView):
    """The mask view over all inputs and methods."""

    knobs = (*KNOBS, *PICTURES)


def explorer(*, query="", **state) -> AttentionExplorer:
    """Return the view in any state of its knobs, or in the state that a link's query string describes."""
    uploaded: dict[str, AttentionInput] = {}

    def upload(filename, content):
        uploaded["file"] = read_npz(content, filename)

    def load(state):
        if state["input"] != "file":
            return load_input(state["input"], **{key: state[key] for key in ("words", "tokens", "layer", "head")})
        if not uploaded:
            raise ValueError("No file yet: choose an .npz with arrays q and k above the pictures")
        return uploaded["file"]

    return AttentionExplorer(
        lambda state, progress: scene(load(state), state, progress),
        relevant={key: method.knobs for key, method in METHODS.items()},
        budget=_budget,
        recipe_lines=lambda words: (
            f"from workbench.attention_explorer import explorer\nview = explorer({words}).wait()\n"
            "pairs = view.arrays(view.scene)\nview"
        ),
        upload=upload,
        query=query,
        **state,
    )


def scene(given: AttentionInput, state, progress=lambda fraction, step: None) -> AttentionScene:
    """Compute all that the view draws for one head and one or two methods."""
    progress(0.1, METHODS[state["method"]].title)
    result = _result(given, state["method"], state)
    other = None
    if state["versus"] != "none":
        progress(0.4, METHODS[state["versus"]].title)
        other = _result(given, state["versus"], state)
    curves = []
    for number, key in enumerate(dict.fromkeys(key for key in (state["method"], state["versus"]) if key != "none")):
        curve = coverage_curve(given, key, state, lambda f, n=number: progress(0.5 + 0.25 * (n + f), "coverage curve"))
        if curve:
            curves.append(CoverageCurve(METHODS[key].title, *curve))
    return AttentionScene(given.title, given.q.shape[2], result, other, given.tokens, tuple(curves))


def _budget(state):
    for key in (state["method"], state["versus"]):
        if key != "none" and state["tokens"] > METHODS[key].longest:
            return (
                f"{METHODS[key].title} takes up to {METHODS[key].longest:,} tokens here; {state['tokens']:,} asked for."
            )
        refusal = METHODS[key].refuse(state) if key != "none" else None
        if refusal:
            return refusal
    return None


def _result(given, key, state) -> MaskResult:
    seen = METHODS[key].trace(given, state)
    panels: dict[str, np.ndarray] = {}
    for name in ("attention", "estimate", "effective"):
        if getattr(seen, name) is not None:
            panels[name] = np.ascontiguousarray(getattr(seen, name), np.float32)
    for name in ("allowed", "read", "keep"):
        if getattr(seen, name) is not None:
            panels[name] = np.ascontiguousarray(getattr(seen, name), bool)
    if "attention" in panels and "allowed" in panels:
        panels["lost"] = np.where(panels["allowed"], np.float32(0), panels["attention"])
    if seen.order is not None and "allowed" in panels:
        panels["permuted"] = np.ascontiguousarray(panels["allowed"][:, seen.order])
    cells = {"keep": seen.block_size} if seen.block_size else {}
    if "estimate" in panels and panels["estimate"].shape[0] != seen.t and seen.block_size:
        cells["estimate"] = seen.block_size
    return MaskResult(seen.method, panels, seen.coverage, seen.density, cells, _facts(given, seen), seen.key_scores)


def _facts(given, seen: AttentionTrace) -> dict[str, str]:
    facts = {label: f"{value:,.4g}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else value
             for label, value in seen.facts.items()}  # fmt: skip
    if seen.keep is not None and seen.allowed is not None:
        facts["blocks full / partial / empty (counted)"] = " / ".join(f"{n:,}" for n in _block_kinds(seen))
    facts["operations to estimate (counted)"] = f"{seen.score_flops:,}"
    facts["operations to attend (counted)"] = f"{seen.attention_flops:,}"
    facts["dense attention's operations (counted)"] = f"{seen.dense_flops:,}"
    peak = ceilings()
    least, dense_least = (
        1e-6 * flops / peak.fma_gflops_f32 for flops in (seen.score_flops + seen.attention_flops, seen.dense_flops)
    )
    facts["least time at this CPU's peak (modelled)"] = f"{least:.3g} ms, dense {dense_least:.3g} ms"
    by_blocks = seen.keep is not None and seen.order is None and seen.block_size % 16 == 0
    if by_blocks and seen.t <= DENSE_LIMIT:
        ours, dense = _measured(given, seen)
        facts[f"time of the kernel, best of 3, {peak.threads} threads (measured)"] = (
            f"{ours:.3g} ms, dense {dense:.3g} ms"
        )
    return facts


def _block_kinds(seen):
    block, t = seen.block_size, seen.t
    blocks = -(-t // block)
    padded = np.zeros((blocks * block, blocks * block), np.uint8)
    padded[:t, :t] = seen.allowed
    counts = padded.reshape(blocks, block, blocks, block).sum(axis=(1, 3), dtype=np.int64)
    inside = np.minimum(block, t - block * np.arange(blocks))
    full = counts == inside[:, None] * inside
    return int(full.sum()), int((~full & (counts > 0)).sum()), int((counts == 0).sum())


def _measured(given, seen):
    arrays = [x.numpy() for x in (given.q, given.k, given.v)]
    keep = np.ascontiguousarray(seen.keep[None, None])
    runs = (
        lambda: block_sparse_attention(*arrays, keep, block_size=seen.block_size, causal=seen.causal),
        lambda: F.scaled_dot_product_attention(given.q, given.k, given.v, is_causal=given.causal),
    )
    return tuple(min(_once(run) for _ in range(3)) for run in runs)


def _once(run):
    start = time.perf_counter()
    run()
    return 1e3 * (time.perf_counter() - start)
