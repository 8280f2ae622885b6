"""The attention-mask explorer: sources and methods, gathered from their folders, joined to the view."""

import numbers
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from os import PathLike
from urllib.parse import parse_qs

import numpy as np

from kernels.attention.trace import AttentionTrace
from widgets.controls.knob import Knob
from widgets.figures.attention import PANELS, AttentionScene, block_shares, in_slots
from widgets.views.attention_mask import AttentionMaskView, ViewHooks, picture_knobs
from workbench.data.limits import VISITOR
from workbench.explorers.attention import cost
from workbench.explorers.attention import knobs as shared
from workbench.explorers.attention.method import DENSE_LIMIT, Method, compared, methods, offered
from workbench.explorers.attention.own import from_arrays, from_call, from_matrix, read_attention
from workbench.explorers.attention.source import AttentionInput, load_input, of_head, sources
from workbench.explorers.entry_knobs import entry_knobs
from workbench.models.drop_in import capture

__all__ = ["capture", "explore", "explorer", "scenes", "view_class"]

FILE, NONE = "file", "none"
FIRST_INPUT, FIRST_METHOD, FIRST_PICTURE = "lm", "xattention", "landscape"
# Knobs of older links and what they are called today.
RENAMED = {
    "versus": "compare_with",
    "segment": "segment_blocks",
    "segments": "segment_rule",
    "part": "segment_tokens",
    "cuts": "segment_starts",
}


@cache
def view_class() -> type[AttentionMaskView]:
    """Return the mask view over all sources and methods that there are."""
    inputs = (*((key, source.title) for key, source in sources().items()), (FILE, "Your file"))
    first = tuple((key, method.title) for key, method in offered().items())
    second = ((NONE, "no second method"), *((key, method.title) for key, method in compared().items()))
    own = tuple(panel for method in methods().values() for panel in method.panels)
    estimate = 1 + [panel.key for panel in PANELS].index("estimate")
    panels = (*PANELS[:estimate], *own, *PANELS[estimate:])
    knobs = (
        Knob("input", "Queries and keys", FIRST_INPUT, choices=inputs, help="Where queries and keys come from."),
        *entry_knobs(sources(), shared),
        Knob("method", "Method", FIRST_METHOD, choices=first, help="How attention is made sparse."),
        Knob("compare_with", "Compare with", NONE, choices=second, help="A second method with the same settings."),
        *entry_knobs(methods(), shared),
        *picture_knobs(panels),
    )
    about = "The mask view over all sources and methods."
    return type("AttentionExplorer", (AttentionMaskView,), {
        "__doc__": about, "__module__": __name__, "knobs": knobs, "panels": panels, "renamed": RENAMED,
    })  # fmt: skip


def explore(q, k=None, v=None, *, causal=True, scale=None, attn_mask=None, **state) -> AttentionMaskView:
    """Open the explorer on a reader's own heads.

    Parameters
    ----------
    q : queries with keys ``k`` (and values ``v``), arrays or tensors as `own.from_arrays` takes them; or, without k, a
        matrix of attention weights or a bool mask as `own.from_matrix` takes it; or what `capture` returned, a layer of
        a model each; or the path of a file as `own.read_attention` reads it.
    causal, scale, attn_mask : of q and k, as `own.from_arrays`.
    state : of the explorer's knobs, such as ``method="xattention"``, ``layer``, ``head``.

    Examples
    --------
    ``explore(q, k)``, ``explore(capture(model, text), method="pbs_attn")``, ``explore("attention.npy")``
    """
    if k is not None:
        own = [from_arrays(q, k, v, causal=causal, scale=scale, attn_mask=attn_mask)]
    elif isinstance(q, str | PathLike):
        own = [read_attention(q)]
    elif isinstance(q, list | tuple):
        own = [from_call(each.call, f"Your model, layer {each.layer}") for each in q]
    else:
        own = [from_matrix(q)]
    return explorer(own=own, **({"input": FILE} | state))


def explorer(*, query="", own: Sequence[AttentionInput] = (), **state) -> AttentionMaskView:
    """Return the view in any state of its knobs, or in the state that a link's query string describes.

    Unless they are named, a method that needs a picture opens on one, and a method that weighs all keys shows weights.

    Parameters
    ----------
    own : layers of the reader's own, what the choice "Your file" shows; see `explore`.
    """
    uploaded = list(own)
    asked = {key: values[-1] for key, values in parse_qs(query.lstrip("?")).items()} if query else state
    method = offered().get(asked.get("method"))
    if method and method.opens and "input" not in asked:
        if query:
            query += f"&input={method.opens['input']}"
        state = {**method.opens, **state}
    if method and not query:
        state.setdefault("right", method.shows)

    def upload(filename, content):
        uploaded[:] = [read_attention(content, filename, VISITOR)]

    def load(state):
        source = sources().get(state["input"])
        if source:
            return load_input(source.key, **{knob.key: state[knob.key] for knob in source.knobs})
        if not uploaded:
            raise ValueError(
                "There is no file yet: choose an .npz file with arrays q and k, or an .npy file with a matrix of "
                "attention weights or a mask, above the pictures"
            )
        layer = uploaded[min(state["layer"], len(uploaded) - 1)]
        head = min(state["head"], layer.all_q.shape[1] - 1)
        return of_head(f"{layer.title}, head {head}", layer.all_q, layer.all_k, layer.all_v, head, causal=layer.causal)

    hooks = ViewHooks(
        relevant=_relevant(layers=len(own)),
        limits=_limits,
        adjust=_adjust,
        budget=_budget,
        picked=lambda state, row, column: offered()[state["method"]].picked(state, row, column),
        recipe=lambda words: (
            f"from workbench.explorers.attention.explorer import explorer\nview = explorer({words}).wait()\n"
            "pairs = view.arrays(view.scene)\nview"
        ),
        stories={key: method.stories for key, method in offered().items()},
        upload=upload,
        upload_limit_bytes=VISITOR.file_bytes,
        file_choice=FILE,
    )
    return view_class()(lambda state, progress: scenes(load(state), state, progress), hooks, query=query, **state)


# What can be asked for ----------------------------------------------------------------------------------------------
def _relevant(layers):
    depending, found = {}, {}
    for method in methods().values():
        for knob, choices in method.depends.items():
            depending.setdefault(knob, {}).update(choices)
    found["input"] = {key: tuple(k.key for k in source.knobs) for key, source in sources().items()}
    found["input"][FILE] = (shared.HEAD.key, shared.LAYER.key)[: 1 + (layers > 1)]
    for menu, entries in (("method", offered()), ("compare_with", compared())):
        found[menu] = {key: _at_once(method) for key, method in entries.items()}
    return found | depending


def _at_once(method: Method):
    """Knobs of a method that matter whatever its other knobs say."""
    later = {key for choices in method.depends.values() for keys in choices.values() for key in keys}
    return tuple(knob.key for knob in method.knobs if knob.key not in later)


def _methods(state) -> list[Method]:
    return [compared()[key] for key in (state["method"], state["compare_with"]) if key != NONE]


def _limits(state):
    source = sources().get(state["input"])
    found = {**source.limits, **source.limits_of(state)} if source else {}
    longest = min(method.longest for method in _methods(state))
    found["tokens"] = min(found.get("tokens", shared.MAX_TOKENS), max(longest, 64))
    for method in _methods(state):
        found |= method.limits(state)
    return found


def _adjust(state, keys):
    """Turn along what would make no sense otherwise: pictures for methods that need them, what the new input lacks."""
    changes, remarks = {}, []
    source, method = sources().get(state["input"]), offered()[state["method"]]
    needs_picture = any(m.pictures for m in _methods(state)) and not (source and source.pictures)
    if keys & {"method", "compare_with"} and needs_picture:
        changes["input"] = FIRST_PICTURE
        remarks.append("This method needs a picture: queries and keys are now pixels.")
    if "method" in keys and method.home and state["input"] == FIRST_INPUT:
        changes["input"] = method.home
        remarks.append(f"Queries and keys are now {method.title}'s own: {sources()[method.home].title}.")
    if "method" in keys and state["right"] in ("allowed", "effective"):
        changes["right"] = method.shows
    needed, remark = _required({**state, **changes}, keys)
    changes |= needed
    remarks.append(remark)
    state = {**state, **changes}
    if keys & {"method", "compare_with", "input"} or changes:
        source, limits = sources().get(state["input"]), _limits(state)
        used = None if source is None else {knob.key for knob in source.knobs}
        for key in ("tokens", "layer", "head"):
            if (used is None or key in used) and key in limits and state[key] > limits[key]:
                changes[key] = int(limits[key])
                if key == "tokens":
                    remarks.append(f"Tokens were lowered to {changes[key]:,}, the most that input and method take.")
    return changes, " ".join(filter(None, remarks))


def _required(state, keys):
    """Settings that go only with certain others bring those along when asked for, and go when those are left."""
    for requires in (method.requires for method in _methods(state) if method.requires):
        needed = requires.settings(state)
        turned = [key for key, value in needed.items() if state[key] != value]
        if not turned:
            continue
        if keys & {*requires.otherwise, "method", "compare_with"}:
            return needed, f"{requires.because}: {' and '.join(turned)} changed as well."
        changes = dict(requires.otherwise)
        if any(m.requires and m.requires.settings(state | changes) for m in _methods(state)):
            changes["compare_with"] = NONE
        return changes, f"{requires.because}; {requires.remark}."
    return {}, ""


def _budget(state):
    source = sources().get(state["input"])
    pictures = bool(source and source.pictures)
    tokens = source.limits["tokens"] if source and pictures else state["tokens"]
    for method in _methods(state):
        if method.pictures and not pictures:
            return f"{method.title} needs a picture: choose one under Queries and keys."
        if tokens > method.longest:
            what = f"this picture has {tokens:,} pixels" if pictures else f"{tokens:,} were asked for"
            return f"{method.title} takes up to {method.longest:,} tokens here; {what}."
        refusal = method.refuse({**state, "tokens": tokens}, source)
        if refusal:
            return refusal
    return None


# What is drawn ------------------------------------------------------------------------------------------------------
def scenes(given: AttentionInput, state, progress=lambda fraction, step: None):
    """Yield all that the view draws for one head and one or two methods: masks and counts, then curves and times."""
    method = compared()[state["method"]]
    progress(0.1, method.title)
    traced = [(method, method.trace(given, state))]
    if state["compare_with"] != NONE:
        method = compared()[state["compare_with"]]
        progress(0.4, method.title)
        traced.append((method, method.trace(given, state)))
    (first, seen), *rest = traced
    shown = [replace(trace, facts=_facts(given, method, state, trace)) for method, trace in traced]
    found = [row for _, trace in traced for row in _numbers(trace)]
    if rest:
        shown = [_shared_pairs(shown[0], shown[1]), _shared_pairs(shown[1], shown[0])]
    now = AttentionScene(
        source=given.title,
        t=given.q.shape[2],
        tokens=given.tokens,
        kind=given.kind,
        result=shown[0],
        other=shown[1] if rest else None,
        numbers=tuple(found),
        query=first.query(given, seen) if seen.attention is not None else None,
    )
    yield now
    progress(0.6, "coverage curves")
    curves = [curve for m, trace in traced if trace.t <= DENSE_LIMIT for curve in m.curves(given, state, trace)]
    progress(0.8, "time the kernels")
    timed = [
        replace(known, facts=known.facts | _times(given, method, state, trace))
        for known, (method, trace) in zip(shown, traced, strict=True)
    ]
    once = {curve.label: curve for curve in curves}
    found += [row for method, trace in traced for row in _time_numbers(given, method, state, trace)]
    yield replace(
        now, curves=tuple(once.values()), result=timed[0], other=timed[1] if rest else None, numbers=tuple(found)
    )


def _facts(given, method, state, seen: AttentionTrace) -> dict[str, str]:
    facts = {}
    if seen.keep is not None and (seen.allowed is not None or "blocks" in seen.maps):
        facts["blocks full / partial / empty (counted)"] = " / ".join(f"{n:,}" for n in _block_kinds(seen))
    for label, value in seen.facts.items():
        facts[label] = _told(value)
    if given.causal and not method.causal:
        facts["direction"] = "both: the method has no causal form, so true attention is shown without a mask as well"
    return facts | cost.modelled_time(seen.cost)


def _numbers(seen: AttentionTrace) -> list[tuple[str, str, float]]:
    """Return the facts that are numbers, as (method, what, number)."""
    found: dict[str, float] = {}
    if seen.keep is not None and seen.allowed is not None:
        kinds = ("full", "partial", "empty")
        found |= {f"{kind} blocks (counted)": n for kind, n in zip(kinds, _block_kinds(seen), strict=True)}
    found |= {label: value for label, value in seen.facts.items() if isinstance(value, numbers.Real)}
    least = zip(("", " of dense attention"), cost.least_seconds(seen.cost), strict=True)
    found |= {f"least time{whose} by the roofline, in ms (modelled)": 1e3 * s for whose, s in least}
    return [(seen.method, label, value) for label, value in found.items()]


def _time_numbers(given, method, state, seen: AttentionTrace) -> list[tuple[str, str, float]]:
    """Return the measured times that are shown, as (method, what, milliseconds)."""
    settings = {knob.key: state[knob.key] for knob in method.knobs}
    known = cost.known_times(given, method.key, settings, causal=seen.causal)
    quantities = (("time of a call", "median_s"), ("spread of the rounds", "spread_s"))
    return [
        (seen.method, f"{words} in ms, {name} (measured)", 1e3 * getattr(timing, quantity))
        for name, timing in known.items()
        for words, quantity in quantities
    ]


def _told(value) -> str:
    if isinstance(value, numbers.Integral):
        return f"{value:,}"
    return f"{value:,.4g}" if isinstance(value, numbers.Real) else value


def _block_kinds(seen):
    shares = seen.maps.get("blocks")
    if shares is None:
        shares = block_shares(np.ascontiguousarray(in_slots(seen, seen.allowed)), seen.block_size)
    return int((shares == 1).sum()), int(((shares > 0) & (shares < 1)).sum()), int((shares == 0).sum())


def _shared_pairs(seen, other):
    a, b = seen.allowed, other.allowed
    if a is None or b is None or a.shape != b.shape:
        return seen
    both, mine = int(np.count_nonzero(a & b)), int(np.count_nonzero(a & ~b))
    label = "pairs that both compute / only this method (counted)"
    return replace(seen, facts=seen.facts | {label: f"{both:,} / {mine:,}"})


def _times(given, method, state, seen: AttentionTrace) -> dict[str, str]:
    """Return the times of the method's parts and of dense attention, where the input is short enough to take them."""
    runs = method.runs(given, state, seen) if seen.t <= DENSE_LIMIT else {}
    return cost.measured_times(
        given, method.key, {knob.key: state[knob.key] for knob in method.knobs}, runs, causal=seen.causal
    )
