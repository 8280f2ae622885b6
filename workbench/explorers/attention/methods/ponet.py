"""PoNet in the explorer: poolings at three ranges in place of attention (Tan et al. 2021, arXiv 2110.02442)."""

import re
from dataclasses import dataclass

import numpy as np
import torch

from kernels.attention.cost import attention_cost
from kernels.attention.trace import AttentionTrace
from widgets.controls.knob import Knob
from widgets.figures.attention import Panel
from widgets.views.frame.story import Story
from workbench.explorers.attention.knobs import SEGMENT_TOKENS
from workbench.explorers.attention.method import Method
from workbench.models.attention import ponet

POOL = 3  # tokens of the local pool
KNOBS = (
    Knob(
        "segment_rule",
        "Segments",
        "sentences",
        choices=(("equal", "equal parts"), ("sentences", "sentences"), ("own", "your own starts")),
        help="How the tokens are divided into segments. Inputs without a text have equal parts.",
    ),
    SEGMENT_TOKENS,
    Knob(
        "segment_starts",
        "Segment starts",
        "40 90",
        help="Positions of the tokens that begin a segment. Click a picture to add or remove one.",
    ),
    Knob("use_ga", "Global aggregation", True, help="One row of attention weights, shared by all tokens."),
    Knob("use_smp", "Segment max-pooling", True, help="The largest value of the segment in every channel."),
    Knob("use_lmp", "Local max-pooling", True, help="The largest value of three neighbours in every channel."),
    Knob("fuse", "Product with each token", True, help="Multiplies the sum with the token's own projection."),
)
PANELS = (
    Panel("ga", "weights of global aggregation"),
    Panel("smp", "tokens chosen by segment max-pooling"),
    Panel("lmp", "tokens chosen by local max-pooling"),
    Panel("likeness", "cosine similarity of output rows"),
    Panel("fused", "fused output (absolute values)", columns="channel"),
)


@dataclass(frozen=True, kw_only=True)
class Projections:
    """One head's five projections, and what the encoder knows of its tokens.

    Parameters
    ----------
    hq, hk : (1, 1, t, d) float32, of the global pool.
    hs, hl, ho : (1, t, d) float32, of the segment pool, the local pool and the product.
    segments : (t,) int64, segment of every token as in training; None where there was no training.
    special : (1, t) bool, [CLS] and [SEP]: they get the global part only; None where there are none.
    """

    hq: torch.Tensor
    hk: torch.Tensor
    hs: torch.Tensor
    hl: torch.Tensor
    ho: torch.Tensor
    segments: torch.Tensor | None = None
    special: torch.Tensor | None = None


def projections(given) -> Projections:
    """Return the projections of a PoNet, else stand-ins: a head's query, key, value (segment, local), and query."""
    if given.parts:
        return Projections(hq=given.q, hk=given.k, **given.parts)
    return Projections(hq=given.q, hk=given.k, hs=given.v[0], hl=given.v[0], ho=given.q[0])


def segment_index(given, s) -> torch.Tensor:
    """Return PoNet's segment of every token, (t,) int64.

    Segments are equal parts, sentences of the text (equal parts where there is no text), or begin where the reader
    says; [CLS] and [SEP] always are segments of their own.
    """
    t, parts = given.q.shape[2], projections(given)
    by_sentence = s["segment_rule"] == "sentences"
    if by_sentence and parts.segments is not None:
        return parts.segments
    starts = range(0, t, s["segment_tokens"])
    if by_sentence and given.tokens:
        starts = sentence_starts(given.tokens)
    elif s["segment_rule"] == "own":
        starts = own_starts(s["segment_starts"])
    is_start = torch.zeros(t, dtype=torch.bool)
    is_start[[start for start in starts if start < t]] = True
    if parts.special is not None:
        is_start |= parts.special[0]
        is_start[1:] |= parts.special[0, :-1]
    is_start[0] = False
    return is_start.long().cumsum(0)


def sentence_starts(tokens) -> list[int]:
    """Return the tokens that begin a sentence or paragraph."""
    starts, ended = [], False
    for i, text in enumerate(tokens):
        if ended and text.strip():
            starts.append(i)
            ended = False
        if re.search(r"[.!?:]\s*$|\n\s*\n", text):
            ended = True
    return starts


def own_starts(starts: str) -> list[int]:
    """Read the reader's segment starts, such as "12 40 41"; ValueError names what is no whole number."""
    parts = re.split(r"[\s,]+", starts.strip())
    wrong = [part for part in parts if part and not part.isdecimal()]
    if wrong:
        raise ValueError(f"Segment starts must be whole numbers; {wrong[0]!r} is not one")
    return sorted({int(part) for part in parts if part})


def pooled(parts, index):
    """Pool one head at three ranges.

    Returns
    -------
    g : (1, 1, d), its weights a : (1, 1, t), segment and local maxima : (1, t, d).
    """
    g, a = ponet.global_aggregation(parts.hq, parts.hk)
    s = ponet.segment_max_pool(parts.hs, index)
    l = ponet.local_max_pool(ponet.hide_special(parts.hl, parts.special), POOL)
    return g, a, *(ponet.blank_special(x, parts.special) for x in (s, l))


def _runs(given, s, seen):
    """Pool at three ranges and fuse."""
    parts, index = projections(given), segment_index(given, s)

    def pool():
        g, _, segment, local = pooled(parts, index)
        return ponet.pooling_fusion(g, segment, local, parts.ho)

    return {"pool": pool}


def _trace(given, s) -> AttentionTrace:
    """Return the three poolings' maps and the fused output under the settings of segments, toggles and fusion.

    The effective matrix is the mean of the maps in use: a picture of what is read, not of softmax weights. At a special
    token, which reads nothing of its segment and neighbours, it is the global map.
    """
    parts, index = projections(given), segment_index(given, s)
    t, d = given.q.shape[2:]
    used = [name for name in ponet.POOLINGS if s[f"use_{name}"]]
    g, a, segment, local = pooled(parts, index)
    found = ponet.effective_maps(a, parts.hs, ponet.hide_special(parts.hl, parts.special), index, 1, kernel_size=POOL)
    maps = {name: np.array(getattr(found, name)[0, 0]) for name in ponet.POOLINGS}
    if parts.special is not None:
        maps["smp"][parts.special[0]] = maps["lmp"][parts.special[0]] = 0
    nothing = np.zeros((t, t), np.float32)
    read = sum((maps[name] for name in used), nothing)
    product = parts.ho if s["fuse"] else torch.ones_like(parts.ho)
    out = ponet.pooling_fusion(s["use_ga"] * g, s["use_smp"] * segment, s["use_lmp"] * local, product)
    unit = torch.nn.functional.normalize(out[0].double(), dim=-1)
    maps["likeness"] = (unit @ unit.T).clamp(min=0).numpy().astype(np.float32)
    maps["fused"] = out[0].abs().numpy()
    return AttentionTrace(
        method="PoNet (three poolings)",
        t=t,
        causal=False,
        # the mean query scores every key once; before it stands the mean of all queries, and after it the product
        cost=attention_cost(t=t, d=d, causal=False, summaries=np.full(t, int(s["use_ga"])), before=2 * t * d),
        coverage=0.0,
        attention=torch.softmax(parts.hq[0, 0] @ parts.hk[0, 0].T * d**-0.5, -1).numpy(),
        effective=read / np.maximum(1, read.sum(1, keepdims=True)),
        reached=read > 0,
        key_scores=a[0, 0].numpy(),
        maps=maps,
        facts={
            "projections": _PROJECTIONS[bool(given.parts)],
            "segments": int(index.max()) + 1,
            "segments are": _segments_are(given, s),
            "poolings in use": ", ".join(used) or "none",
            "comparisons of the max-poolings (counted)": t * d * (s["use_smp"] + (POOL - 1) * s["use_lmp"]),
            "different output rows (counted)": f"{torch.unique(out[0], dim=0).shape[0]:,} of {t:,}",
        },
    )


_PROJECTIONS = {
    True: "PoNet's own; true attention is what its queries and keys would give",
    False: "stand-ins: the head's query, key and value",
}


def _segments_are(given, s):
    if s["segment_rule"] == "own":
        return "the reader's own"
    return (
        "sentences"
        if s["segment_rule"] == "sentences" and given.tokens
        else f"equal parts of {s['segment_tokens']} tokens"
    )


def _picked(s, row, column):
    """A click starts or ends a segment where the reader divides the text; else it chooses the query."""
    if s["segment_rule"] != "own":
        return {"row": row}
    starts = set(own_starts(s["segment_starts"])) ^ {column}
    return {"segment_starts": " ".join(map(str, sorted(starts - {0})))}


_OWN_ENCODER = {"input": "ponet", "tokens": 256, "layer": 1, "head": 2, "segment_rule": "sentences"}
_TWINS = (
    'The "&" operator yields the bitwise AND of its arguments. The "|" operator yields the bitwise OR of its '
    "arguments. Lists are sorted in place."
)
STORIES = (
    Story(
        "Without the product",
        _OWN_ENCODER | {"use_lmp": False, "fuse": False, "left": "fused", "right": "likeness"},
        "Global and segment pooling give every token of a sentence the same vector. On the left, in the fused output "
        "(tokens by channels), each sentence is one stripe. On the right, in the similarity of its rows, each sentence "
        "is one dark square. The table counts the rows that differ: one for each sentence, and one for [CLS] and "
        "[SEP]. Tick the product with each token, and all rows differ again.",
    ),
    Story(
        "Three ranges",
        _OWN_ENCODER | {"left": "ga", "right": "smp"},
        "On the left, global aggregation gives all tokens the same row of weights. On the right are, for every token, "
        "the tokens of its sentence that have the maximum in some channel: one block for each sentence, in which most "
        "words have none. Local max-pooling, the third range, is a band of three tokens. [CLS] and [SEP] have rows in "
        "the left picture only.",
    ),
    Story(
        "Two sentences alike",
        _OWN_ENCODER | {"words": _TWINS, "head": 1, "left": "smp", "right": "likeness"},
        "The first two sentences differ in one sign and one word. On the right, a second dark line runs beside the "
        "diagonal: the output of a word is most similar to that of the same word in the other sentence.",
    ),
    Story(
        "Your own segments",
        _OWN_ENCODER | {"segment_rule": "own", "segment_starts": "30 43", "left": "lmp", "right": "smp"},
        "Click a picture to begin a segment at that token, or to remove the border there. The field lists the tokens "
        "that begin a segment.",
    ),
)

METHOD = Method(
    key="ponet",
    title="PoNet",
    knobs=KNOBS,
    depends={"segment_rule": {"equal": ("segment_tokens",), "sentences": (), "own": ("segment_starts",)}},
    trace=_trace,
    panels=PANELS,
    shows="effective",
    picked=_picked,
    runs=_runs,
    longest=1024,
    causal=False,
    home="ponet",
    stories=STORIES,
)
