"""The attention-mask explorer: inputs and methods (models) joined to the view (widgets); attention papers open it."""

import time
from dataclasses import replace
from urllib.parse import parse_qs

import numpy as np
import torch.nn.functional as F

from widgets.controls.knob import Knob
from widgets.figures.attention import AttentionScene, CoverageCurve, MaskResult, block_shares
from widgets.figures.attention_query import PixelMap, QueryMaps, QueryRow
from widgets.views.attention_mask import PICTURES, AttentionMaskView, ViewHooks
from widgets.views.attention_stories import STORIES
from workbench.machines.roofline import ceilings
from workbench.models.attention import attention_cost, attention_query
from workbench.models.attention.attention_inputs import (
    MAX_TOKENS,
    SOURCES,
    AttentionInput,
    load_input,
    of_head,
    read_npz,
)
from workbench.models.attention.attention_methods import DENSE_LIMIT, METHODS, OTHERS, combiner_how
from workbench.models.attention.attention_trace import AttentionTrace
from workbench.models.attention.combiner import PATTERNS
from workbench.models.attention.ponet_reading import own_starts
from workbench.models.attention.sea_cells import GROUPS
from workbench.models.attention.sea_reading import KNOWS, TRAINED
from workbench.models.attention.xattention import MODES

__all__ = ["KNOBS", "AttentionExplorer", "explorer", "scenes"]

FILE = "file"
FIRST_INPUT = "lm"
FIRST_PICTURE = next(key for key, source in SOURCES.items() if source.pictures)
A_PIXEL = 2251  # of the left house
_METHOD_CHOICES = tuple((key, method.title) for key, method in METHODS.items())
_OTHER_CHOICES = (("none", "nothing"), *((key, method.title) for key, method in OTHERS.items()))
_INPUT_CHOICES = (*((key, source.title) for key, source in SOURCES.items()), (FILE, "Your file"))
_SORTS = (
    ("keys", "keys by last queries"),
    ("random", "random"),
    ("none", "none"),
    ("queries", "queries"),
    ("both", "keys and queries"),
)
_RULES = (("threshold", "share of the mass"), ("ratio", "share of the blocks"))
_ESTIMATORS = (
    ("oracle", "the oracle: best possible"),
    *((key, f"trained, {steps} steps" if steps else "untrained") for key, steps in TRAINED.items()),
)
_SEGMENTS = (("equal", "equal parts"), ("sentences", "sentences"), ("own", "your own starts"))


def _named(keys):
    return tuple((key, key.replace("_", " ")) for key in keys)


KNOBS = (
    Knob("input", "Queries and keys", FIRST_INPUT, choices=_INPUT_CHOICES, help="Where queries and keys come from."),
    Knob("words", "Your text", "", lines=3, help="Text for the model; empty takes held-out Python documentation."),
    Knob("tokens", "Tokens", 512, 64, MAX_TOKENS, scale="log2", help="As many as the text has, at most."),
    Knob("layer", "Layer", 3, 0, 31, 1, help="Of the model."),
    Knob("head", "Head", 3, 0, 31, 1, help="Of the layer."),
    Knob("delta", "Slash (keys back)", 77, 1, 900, 1, help="How far back queries look."),
    Knob("width", "Slash width", 2, 1, 8, 1, help="How many neighbouring offsets."),
    Knob("column", "Column (key)", 100, 0, 900, 1, help="A key that all later queries look for."),
    Knob("share", "Share of heavy keys", 0.02, 0.001, 0.2, scale="log10", help="Chance that a key is heavy."),
    Knob("seed", "Seed", 0, 0, 99, 1, help="Of the generator."),
    Knob("method", "Method", "xattention", choices=_METHOD_CHOICES, help="How attention is thinned out."),
    Knob("versus", "Beside it", "none", choices=_OTHER_CHOICES, help="A second method with the same settings."),
    Knob("block", "Block (tokens)", 32, 16, 128, scale="log2", help="Tokens per block row and column."),
    Knob("stride", "Stride", 8, 1, 16, scale="log2", help="One of this many lines of every tile is read."),
    Knob("choose", "Keep blocks by", "threshold", choices=_RULES,
         help="A share of the estimated mass, or a fixed number of blocks per row."),
    Knob("threshold", "Share of mass to keep", 0.9, 0.0, 1.0, 0.01, help="Estimated mass that the kept blocks hold."),
    Knob("kept_share", "Share of blocks to keep", 0.25, 0.01, 1.0, 0.01, help="Of the blocks that a row may keep."),
    Knob("sampler", "Read", "antidiagonal", choices=_named(MODES), help="Which logits the estimate looks at."),
    Knob("segment", "Segment (blocks)", 2, 1, 16, scale="log2", help="Keys are sorted inside so many blocks."),
    Knob("permute", "Sort", "keys", choices=_SORTS, help="What is sorted inside segments."),
    Knob("estimator", "Estimate by", "oracle", choices=_ESTIMATORS,
         help="True attention averaged into cells, or SEA's estimator at a step of its training."),
    Knob("cells", "Cells per estimated row", 32, 8, 256, scale="log2", help="Width of the compressed attention."),
    Knob("keys_per_query", "Keys per query", 12, 1, 256, 1, help="Budget of exact attention."),
    Knob("group", "Rank cells per", "query", choices=_named(GROUPS), help="Which cells share a budget."),
    Knob("pattern", "Factorisation", "fixed", choices=_named(PATTERNS), help="How the past is cut into regions."),
    Knob("segments", "Segments", "sentences", choices=_SEGMENTS,
         help="How the text is cut; without a text into equal parts."),
    Knob("part", "Segment (tokens)", 16, 1, 1024, scale="log2", help="Tokens per segment or row."),
    Knob("cuts", "Segment starts", "40 90", help="Tokens that begin a segment; click a picture to add or remove one."),
    Knob("use_ga", "Global aggregation", True, help="One attention row for all."),
    Knob("use_smp", "Segment maxima", True, help="The largest of the segment in every channel."),
    Knob("use_lmp", "Local maxima", True, help="The largest of three neighbours in every channel."),
    Knob("fuse", "Product with each token", True, help="Multiplies what is shared by the token's own projection."),
    Knob("window", "Window", 7, 2, 14, 1, help="Keys per query are the window squared."),
    Knob("dilation", "Dilation", 1, 1, 8, 1, help="Distance of the pixels taken from a window."),
    Knob("square", "Global group (pixels)", 8, 1, 8, scale="log2", help="A key averages a square of this side."),
    Knob("place", "Fused key", 24, 0, 195, 1, help="The key whose pixels are pointed out below."),
    Knob("formula", "Formula", "q >= k and (q - k < 128 or k < 16)",
         help="In q, k, h, t; and, or, not; + - * // %; abs, min, max."),
)  # fmt: skip
_RELEVANT = {
    "input": {key: source.settings for key, source in SOURCES.items()} | {FILE: ("head",)},
    "method": {key: method.knobs for key, method in METHODS.items()},
    "versus": {key: method.knobs for key, method in OTHERS.items()},
    "choose": {"threshold": ("threshold",), "ratio": ("kept_share",)},
    "segments": {"equal": ("part",), "sentences": (), "own": ("cuts",)},
}


class AttentionExplorer(AttentionMaskView):
    """The mask view over all inputs and methods."""

    knobs = (*KNOBS, *PICTURES)


def explorer(*, query="", **state) -> AttentionExplorer:
    """Return the view in any state of its knobs, or in the state that a link's query string describes.

    Unless they are named, a method that reads pictures opens on one, and a method that weighs all keys shows weights.
    """
    uploaded: dict[str, AttentionInput] = {}
    asked = {key: values[-1] for key, values in parse_qs(query.lstrip("?")).items()} if query else state
    if asked.get("method") in METHODS and METHODS[asked["method"]].pictures and "input" not in asked:
        if query:
            query += f"&input={FIRST_PICTURE}"
        state = {"input": FIRST_PICTURE, "row": A_PIXEL} | state
    if not query and state.get("method") in METHODS:
        state.setdefault("right", METHODS[state["method"]].shows)

    def upload(filename, content):
        uploaded["file"] = read_npz(content, filename)

    def load(state):
        if state["input"] != FILE:
            return load_input(state["input"], **{key: state[key] for key in SOURCES[state["input"]].settings})
        if not uploaded:
            raise ValueError("No file yet: choose an .npz with arrays q and k above the pictures")
        own = uploaded["file"]
        head = min(state["head"], own.all_q.shape[1] - 1)
        return of_head(f"{own.title}, head {head}", own.all_q, own.all_k, own.all_v, head, causal=own.causal)

    wiring = ViewHooks(
        relevant=_RELEVANT,
        limits=_limits,
        adjust=_adjust,
        budget=_budget,
        picked=_picked,
        recipe=lambda words: (
            f"from workbench.explorers.attention.explorer import explorer\nview = explorer({words}).wait()\n"
            "pairs = view.arrays(view.scene)\nview"
        ),
        stories=STORIES,
        upload=upload,
        file_choice=FILE,
    )
    return AttentionExplorer(lambda state, progress: scenes(load(state), state, progress), wiring, query=query, **state)


# What can be asked for ----------------------------------------------------------------------------------------------
def _methods(state):
    return [OTHERS[key] for key in (state["method"], state["versus"]) if key != "none"]


def _limits(state):
    source = SOURCES.get(state["input"])
    found = dict(source.limits) if source else {}
    longest = min(method.longest for method in _methods(state))
    found["tokens"] = min(found.get("tokens", MAX_TOKENS), max(longest, 64))
    return found | {"place": state["window"] ** 2 - 1, "column": min(900, state["tokens"] - 1)}


def _adjust(state, keys):
    """Turn along what would make no sense otherwise: pictures for methods that need them, what the new input lacks."""
    changes, remarks = {}, []
    source, home = SOURCES.get(state["input"]), METHODS[state["method"]].home
    if keys & {"method", "versus"} and any(m.pictures for m in _methods(state)) and not (source and source.pictures):
        changes["input"] = FIRST_PICTURE
        remarks.append("This method reads pictures: queries and keys are now pixels.")
    if "method" in keys and home and state["input"] == FIRST_INPUT:
        changes["input"] = home
        remarks.append(f"Queries and keys are now {METHODS[state['method']].title}'s own: {SOURCES[home].title}.")
    if "method" in keys and state["right"] in ("allowed", "effective"):
        changes["right"] = METHODS[state["method"]].shows
    needed, remark = _estimator({**state, **changes}, keys)
    changes |= needed
    remarks.append(remark)
    state = {**state, **changes}
    if keys & {"method", "versus", "input"} or changes:
        source, limits = SOURCES.get(state["input"]), _limits(state)
        for key in ("tokens", "layer", "head"):
            used = source is None or key in source.settings
            if used and key in limits and state[key] > limits[key]:
                changes[key] = int(limits[key])
                if key == "tokens":
                    remarks.append(f"Tokens lowered to {changes[key]:,}, the most that this input and method take.")
    return changes, " ".join(filter(None, remarks))


def _estimator(state, keys):
    """A trained estimator brings what it knows along when it is asked for, and goes when the reader leaves that."""
    needed = {key: value for method in _methods(state) for key, value in method.needs(state).items()}
    turned = [key for key, value in needed.items() if state[key] != value]
    if not turned:
        return {}, ""
    if keys & {"estimator", "method", "versus"}:
        return needed, f"{KNOWS}: {' and '.join(turned)} turned along."
    changes = {"estimator": "oracle"}
    if any(method.needs(state | changes) for method in _methods(state)):
        changes["versus"] = "none"
    return changes, f"{KNOWS}; elsewhere the oracle estimates."


def _budget(state):
    source = SOURCES.get(state["input"])
    tokens = source.limits["tokens"] if source and source.pictures else state["tokens"]
    for method in _methods(state):
        if method.pictures and not (source and source.pictures):
            return f"{method.title} reads pictures: choose one under Queries and keys."
        if tokens > method.longest:
            what = f"this picture has {tokens:,} pixels" if source and source.pictures else f"{tokens:,} asked for"
            return f"{method.title} takes up to {method.longest:,} tokens here; {what}."
        refusal = method.refuse({**state, "tokens": tokens})
        if refusal:
            return refusal
    if source and not source.causal:
        if state["versus"] == "combiner_alone":
            return "The sparse patterns alone are defined for causal attention: choose a causal input."
        if state["pattern"] == "logsparse" and any("pattern" in method.knobs for method in _methods(state)):
            return (
                "Log-sparse regions are defined for causal attention: choose a causal input or another factorisation."
            )
    return None


def _picked(state, row, column):
    if "segments" in METHODS[state["method"]].knobs and state["segments"] == "own":
        starts = set(own_starts(state["cuts"])) ^ {column}
        return {"cuts": " ".join(map(str, sorted(starts - {0})))}
    return {"row": row}


# What is drawn ------------------------------------------------------------------------------------------------------
def scenes(given: AttentionInput, state, progress=lambda fraction, step: None):
    """Yield all that the view draws for one head and one or two methods: masks and counts, then curves and times."""
    progress(0.1, METHODS[state["method"]].title)
    seen = METHODS[state["method"]].trace(given, state)
    other = None
    if state["versus"] != "none":
        progress(0.4, OTHERS[state["versus"]].title)
        other = OTHERS[state["versus"]].trace(given, state)
    now = AttentionScene(
        given.title,
        given.q.shape[2],
        _result(given, state["method"], state, seen),
        _result(given, state["versus"], state, other) if other else None,
        given.tokens,
        query=_query(given, seen) if seen.attention is not None else None,
    )
    if other:
        now = replace(now, result=_shared_pairs(now.result, now.other), other=_shared_pairs(now.other, now.result))
    yield now
    progress(0.6, "coverage curves")
    curves = []
    for key, trace in ((state["method"], seen), (state["versus"], other)):
        if trace is not None and trace.t <= DENSE_LIMIT:
            curves += OTHERS[key].curves(given, state, trace)
    lines = {c.label: CoverageCurve(c.label, c.density, c.coverage, c.settings) for c in curves}
    progress(0.8, "time the kernels")
    timed = [
        replace(result, facts=result.facts | _times(given, OTHERS[key], state, trace)) if trace is not None else None
        for key, result, trace in ((state["method"], now.result, seen), (state["versus"], now.other, other))
    ]
    yield replace(now, curves=tuple(lines.values()), result=timed[0], other=timed[1])


def _result(given, key, state, seen: AttentionTrace) -> MaskResult:
    panels: dict[str, np.ndarray] = {}
    for name in ("attention", "estimate", "effective"):
        if getattr(seen, name) is not None:
            panels[name] = np.ascontiguousarray(getattr(seen, name), np.float32)
    for name in ("allowed", "read", "keep"):
        if getattr(seen, name) is not None:
            panels[name] = np.ascontiguousarray(getattr(seen, name), bool)
    panels |= {name: np.ascontiguousarray(array) for name, array in seen.maps.items()}
    cells = {"keep": seen.block_size, "blocks": seen.block_size} if seen.block_size else {}
    if "estimate" in panels and panels["estimate"].shape[0] != seen.t and seen.block_size:
        cells["estimate"] = seen.block_size
    order, rows = (
        None if at is None or (at == np.arange(seen.t)).all() else at for at in (seen.order, seen.query_order)
    )
    if order is None and rows is not None:
        order = np.arange(seen.t)
    facts = _facts(given, OTHERS[key], state, seen)
    return MaskResult(seen.method, panels, seen.coverage, seen.density, cells, facts, seen.key_scores, order, rows)


def _facts(given, method, state, seen: AttentionTrace) -> dict[str, str]:
    facts = {}
    if seen.keep is not None and seen.allowed is not None:
        facts["blocks full / partial / empty (counted)"] = " / ".join(f"{n:,}" for n in _block_kinds(seen))
    for label, value in seen.facts.items():
        facts[label] = (
            f"{value:,.4g}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else value
        )
    if given.causal and not method.causal:
        facts["direction"] = "both: it has no causal form, so true attention is shown without a mask, too"
    moved, dense_moved = method.moved(given, state, seen), attention_cost.dense_bytes(given)
    facts["operations to estimate (counted)"] = f"{seen.score_flops:,}"
    facts["operations to attend (counted)"] = f"{seen.attention_flops:,}, dense {seen.dense_flops:,}"
    facts["bytes to attend (counted)"] = f"{moved:,}, dense in blocks of {attention_cost.DENSE_BLOCK} {dense_moved:,}"
    peak = ceilings()
    least = peak.floor_s(seen.score_flops + seen.attention_flops, moved, np.float32)
    dense_least = peak.floor_s(seen.dense_flops, dense_moved, np.float32)
    facts["least time by this CPU's peaks (modelled)"] = f"{1e3 * least:.3g} ms, dense {1e3 * dense_least:.3g} ms"
    return facts


def _block_kinds(seen):
    mask = seen.allowed
    if seen.query_order is not None:
        mask = mask[seen.query_order]
    if seen.order is not None:
        mask = mask[:, seen.order]
    shares = block_shares(np.ascontiguousarray(mask), seen.block_size)
    return int((shares == 1).sum()), int(((shares > 0) & (shares < 1)).sum()), int((shares == 0).sum())


def _shared_pairs(result, other):
    a, b = result.panels.get("allowed"), other.panels.get("allowed")
    if a is None or b is None or a.shape != b.shape:
        return result
    both, mine = int(np.count_nonzero(a & b)), int(np.count_nonzero(a & ~b))
    return replace(result, facts=result.facts | {"pairs of both / only here (counted)": f"{both:,} / {mine:,}"})


def _times(given, method, state, seen: AttentionTrace) -> dict[str, str]:
    """Time the method's parts and dense attention, the best of three runs each, one after the other."""
    runs = method.runs(given, state, seen) if seen.t <= DENSE_LIMIT else {}
    if not runs:
        return {}
    runs = runs | {"dense": lambda: F.scaled_dot_product_attention(given.q, given.k, given.v, is_causal=given.causal)}
    best = dict.fromkeys(runs, float("inf"))
    for _ in range(3):
        for name, run in runs.items():
            start = time.perf_counter()
            run()
            best[name] = min(best[name], 1e3 * (time.perf_counter() - start))
    label = f"time, best of 3, {ceilings().threads} threads (measured)"
    return {label: ", ".join(f"{name} {ms:.3g} ms" for name, ms in best.items())}


def _query(given, seen: AttentionTrace):
    def of(row, state):
        if given.grid is not None and METHODS[state["method"]].pictures:
            found = attention_query.pixel_maps(
                given, row, **{key: state[key] for key in ("window", "dilation", "square")}
            )
            maps = {r.name: PixelMap(r.heat, r.keys, float(r.reached.mean())) for r in found.readings}
            keys = next(r.weights for r in found.readings if r.name == found.fused)
            return QueryMaps(
                row, given.picture, maps, found.fused, keys, min(state["place"], keys.size - 1), found.sources
            )
        t = len(seen.attention)
        row = min(row, t - 1)
        regions, note = (), ""
        if "pattern" in METHODS[state["method"]].knobs:
            how = combiner_how(given, state)
            regions = tuple(attention_query.regions_of(row, t, **how))
            sizes = [len(region) for region in regions]
            if how["pattern"] == "logsparse":
                told = ", ".join(map(str, sizes)) or "no"
                note = f"{row} is {row:b} in binary: one summary per digit 1, of {told} keys."
            else:
                note = f"{len(sizes):,} summaries of {sum(sizes):,} keys in all."
        direct = seen.allowed[row] if seen.allowed is not None else np.ones(t, bool)
        effective = seen.effective[row] if seen.effective is not None else seen.attention[row]
        return QueryRow(row, seen.method, seen.attention[row], effective, direct, regions, given.tokens, note)

    return of
