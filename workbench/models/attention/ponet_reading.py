"""What PoNet's poolings read of one head of an explorer's input, and where its segments start."""

import re
from dataclasses import dataclass

import numpy as np
import torch

from workbench.models.attention import ponet
from workbench.models.attention.attention_trace import AttentionTrace
from workbench.models.attention.dense_attention import dense_flops

__all__ = [
    "PoNetParts",
    "own_starts",
    "ponet_parts",
    "pooled",
    "read_ponet",
    "run_poolings",
    "segment_index",
    "sentence_starts",
]

WINDOW = 3


@dataclass(frozen=True)
class PoNetParts:
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


def ponet_parts(given) -> PoNetParts:
    """Return the projections of a PoNet, else stand-ins: a head's query, key, value (segment, local), and query."""
    if given.ponet is not None:
        return given.ponet
    return PoNetParts(given.q, given.k, given.v[0], given.v[0], given.q[0])


def segment_index(given, s) -> torch.Tensor:
    """Return PoNet's segment of every token, (t,) int64.

    Segments are equal parts, sentences of the text (equal parts where there is no text), or begin where the reader
    says; [CLS] and [SEP] always are segments of their own.
    """
    t, parts = given.q.shape[2], ponet_parts(given)
    by_sentence = s["segments"] == "sentences"
    if by_sentence and parts.segments is not None:
        return parts.segments
    starts = range(0, t, s["part"])
    if by_sentence and given.tokens:
        starts = sentence_starts(given.tokens)
    elif s["segments"] == "own":
        starts = own_starts(s["cuts"])
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


def own_starts(cuts: str) -> list[int]:
    """Read the reader's segment starts, such as "12 40 41"; ValueError names what is no whole number."""
    parts = re.split(r"[\s,]+", cuts.strip())
    wrong = [part for part in parts if part and not part.isdecimal()]
    if wrong:
        raise ValueError(f"Segment starts must be whole numbers; {wrong[0]!r} is none")
    return sorted({int(part) for part in parts if part})


def pooled(parts, index):
    """Pool one head at three ranges.

    Returns
    -------
    g : (1, 1, d), its weights a : (1, 1, t), segment and local maxima : (1, t, d).
    """
    g, a = ponet.global_aggregation(parts.hq, parts.hk)
    s = ponet.segment_max_pool(parts.hs, index)
    l = ponet.local_max_pool(ponet.hide_special(parts.hl, parts.special), WINDOW)
    return g, a, *(ponet.blank_special(x, parts.special) for x in (s, l))


def run_poolings(given, s, seen):
    """Pool at three ranges and fuse."""
    parts, index = ponet_parts(given), segment_index(given, s)

    def pool():
        g, _, segment, local = pooled(parts, index)
        return ponet.pooling_fusion(g, segment, local, parts.ho)

    return {"pool": pool}


def read_ponet(given, s) -> AttentionTrace:
    """Return the three poolings' maps and the fused output under the settings of segments, toggles and fusion.

    The effective matrix is the mean of the maps in use: a picture of what is read, not of softmax weights. At a special
    token, which reads nothing of its segment and neighbours, it is the global map.
    """
    parts, index = ponet_parts(given), segment_index(given, s)
    t, d = given.q.shape[2:]
    used = [name for name in ponet.POOLINGS if s[f"use_{name}"]]
    g, a, segment, local = pooled(parts, index)
    found = ponet.effective_maps(a, parts.hs, ponet.hide_special(parts.hl, parts.special), index, 1, kernel_size=WINDOW)
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
        density=(3 + WINDOW) / t,
        attention_flops=t * d * (4 + 2 + WINDOW),
        dense_flops=dense_flops(t, d, causal=False),
        attention=torch.softmax(parts.hq[0, 0] @ parts.hk[0, 0].T * d**-0.5, -1).numpy(),
        effective=read / np.maximum(1, read.sum(1, keepdims=True)),
        allowed=sum((maps[name] for name in used if name != "ga"), nothing) > 0,
        key_scores=a[0, 0].numpy(),
        maps=maps,
        facts={
            "projections": _PROJECTIONS[given.ponet is not None],
            "segments": int(index.max()) + 1,
            "segments are": _segments_are(given, s),
            "poolings in use": ", ".join(used) or "none",
            "different output rows (counted)": f"{torch.unique(out[0], dim=0).shape[0]:,} of {t:,}",
        },
    )


_PROJECTIONS = {
    True: "PoNet's own; true attention is what its queries and keys would give",
    False: "stand-ins: the head's query, key and value",
}


def _segments_are(given, s):
    if s["segments"] == "own":
        return "the reader's own"
    return "sentences" if s["segments"] == "sentences" and given.tokens else f"equal parts of {s['part']} tokens"
